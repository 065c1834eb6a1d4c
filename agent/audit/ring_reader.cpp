#include "audit/ring_reader.h"

#include <bpf/libbpf.h>

#include <cerrno>

namespace egressd::audit {

struct RingReader::Impl {
  Callback callback;
  std::size_t taken = 0;
  std::size_t max = 0;
  ring_buffer* ring = nullptr;

  ~Impl() { ring_buffer__free(ring); }

  // libbpf marks the entry consumed before it looks at the return value, so a negative one ends
  // the round without losing or repeating anything. (ring_buffer__consume_n() needs libbpf 1.5.)
  static int on_sample(void* context, void* data, std::size_t size) {
    auto& self = *static_cast<Impl*>(context);
    ++self.taken;
    self.callback({static_cast<const std::uint8_t*>(data), size});
    return self.taken >= self.max ? -ECANCELED : 0;
  }
};

RingReader::RingReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RingReader::~RingReader() = default;

Result<std::unique_ptr<RingReader>> RingReader::open(int map_fd, Callback callback) {
  auto impl = std::make_unique<Impl>();
  impl->callback = std::move(callback);
  impl->ring = ring_buffer__new(map_fd, Impl::on_sample, impl.get(), nullptr);
  if (impl->ring == nullptr)
    return std::unexpected(Error::from_errno("read the kernel's event ring buffer"));
  return std::unique_ptr<RingReader>(new RingReader(std::move(impl)));
}

int RingReader::epoll_fd() const { return ring_buffer__epoll_fd(impl_->ring); }

Result<std::size_t> RingReader::poll(std::size_t max) {
  impl_->taken = 0;
  impl_->max = max;
  if (max == 0) return 0;
  const int r = ring_buffer__consume(impl_->ring);
  if (r < 0 && r != -ECANCELED)
    return std::unexpected(Error::from_errno("read the kernel's event ring buffer", -r));
  return impl_->taken;
}

}  // namespace egressd::audit
