#include "audit/event_reader.h"

#include <cstring>

#include "audit/ring_reader.h"

namespace egressd::audit {

struct EventReader::Impl {
  std::unique_ptr<RingReader> ring;
  std::uint64_t malformed = 0;
};

EventReader::EventReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
EventReader::~EventReader() = default;

Result<std::unique_ptr<EventReader>> EventReader::open(int ringbuf_map_fd, Callback callback) {
  auto impl = std::make_unique<Impl>();
  auto ring = RingReader::open(ringbuf_map_fd, [self = impl.get(), callback = std::move(callback)](
                                                   std::span<const std::uint8_t> entry) {
    if (entry.size() != sizeof(egressd_event)) {
      ++self->malformed;
      return;
    }
    egressd_event event{};
    std::memcpy(&event, entry.data(), sizeof(event));
    callback(event);
  });
  if (!ring) return std::unexpected(std::move(ring.error()));
  impl->ring = std::move(*ring);
  return std::unique_ptr<EventReader>(new EventReader(std::move(impl)));
}

int EventReader::epoll_fd() const { return impl_->ring->epoll_fd(); }

std::uint64_t EventReader::malformed() const { return impl_->malformed; }

Result<std::size_t> EventReader::poll(std::size_t max) { return impl_->ring->poll(max); }

}  // namespace egressd::audit
