#include "enforce/live_sockets.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <egressd_live_bpf.skel.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/unique_fd.h"

namespace egressd::enforce {
namespace {

// What the kernel hands over at most in one read() of an iterator: 8 pages (bpf_seq_read).
constexpr std::size_t kChunk = 32768 / sizeof(egressd_live);

class Iterator final : public LiveSockets {
 public:
  Iterator() = default;
  ~Iterator() override { egressd_live_bpf::destroy(skeleton_); }
  Iterator(const Iterator&) = delete;
  Iterator& operator=(const Iterator&) = delete;

  Result<void> open(const std::function<int(const std::string&)>& map_fd);
  Result<void> next(BootTime until, std::vector<egressd_live>& entries) override;

 private:
  egressd_live_bpf* skeleton_ = nullptr;
  UniqueFd link_;  // not pinned: the walk is of use to a running agent only
  UniqueFd walk_;  // under way
};

Result<void> Iterator::open(const std::function<int(const std::string&)>& map_fd) {
  skeleton_ = egressd_live_bpf::open();
  if (skeleton_ == nullptr) return std::unexpected(Error::from_errno("open program egressd_live"));
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, skeleton_->obj) {
    if (::bpf_map__is_internal(map)) continue;
    const std::string name = ::bpf_map__name(map);
    const int fd = map_fd(name);
    if (fd < 0) return std::unexpected(Error::of("program egressd_live: there is no map " + name));
    if (const int err = ::bpf_map__reuse_fd(map, fd); err != 0)
      return std::unexpected(Error::from_errno("program egressd_live: use map " + name, -err));
  }
  if (const int err = egressd_live_bpf::load(skeleton_); err != 0)
    return std::unexpected(Error::from_errno("load program egressd_live", -err));
  // libbpf loads without complaint what it could not map.
  if (skeleton_->bss == nullptr)
    return std::unexpected(Error::of("program egressd_live: its variables cannot be mapped"));

  bpf_iter_link_info over{};
  over.map.map_fd = static_cast<__u32>(::bpf_map__fd(skeleton_->maps.egressd_socks));
  LIBBPF_OPTS(bpf_link_create_opts, options);
  options.iter_info = &over;
  options.iter_info_len = sizeof(over);
  link_ = UniqueFd(::bpf_link_create(::bpf_program__fd(skeleton_->progs.egressd_live), 0,
                                     BPF_TRACE_ITER, &options));
  if (!link_) return std::unexpected(Error::from_errno("attach program egressd_live"));
  return {};
}

Result<void> Iterator::next(BootTime until, std::vector<egressd_live>& entries) {
  entries.clear();
  skeleton_->bss->egressd_live_until = static_cast<__u64>(until.count());
  if (!walk_) walk_ = UniqueFd(::bpf_iter_create(link_.get()));
  if (!walk_) return std::unexpected(Error::from_errno("begin the walk over open sockets"));
  entries.resize(kChunk);
  ssize_t n = 0;
  do {
    n = ::read(walk_.get(), entries.data(), kChunk * sizeof(egressd_live));
    // EAGAIN: a million sockets with nothing to tell; the next read goes on behind them.
  } while (n < 0 && (errno == EAGAIN || errno == EINTR));
  const int err = errno;
  const auto bytes = static_cast<std::size_t>(std::max<ssize_t>(n, 0));
  entries.resize(bytes / sizeof(egressd_live));
  if (n <= 0) walk_.reset();
  if (n < 0) return std::unexpected(Error::from_errno("read open sockets", err));
  if (bytes % sizeof(egressd_live) != 0) {
    walk_.reset();
    return std::unexpected(Error::of("read open sockets: an entry is cut off"));
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<LiveSockets>> LiveSockets::open(
    const std::function<int(const std::string&)>& map_fd) {
  auto iterator = std::make_unique<Iterator>();
  if (auto r = iterator->open(map_fd); !r) return std::unexpected(std::move(r.error()));
  return iterator;
}

}  // namespace egressd::enforce
