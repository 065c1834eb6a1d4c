#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/result.h"
#include "bpf/egressd_abi.h"

namespace egressd::audit {

// Reads denial events from the kernel's ring buffer (egressd_events).
class EventReader {
 public:
  using Callback = std::function<void(const egressd_event&)>;
  // So that a flood of denials leaves the loop time for everything else; at most this many
  // events a call. What is left keeps epoll_fd() readable.
  static constexpr std::size_t kMaxPerPoll = 512;

  // `ringbuf_map_fd` stays the caller's and must stay open as long as the reader.
  static Result<std::unique_ptr<EventReader>> open(int ringbuf_map_fd, Callback callback);
  ~EventReader();
  EventReader(const EventReader&) = delete;
  EventReader& operator=(const EventReader&) = delete;

  // Readable (EPOLLIN, level-triggered) while events wait; owned by the reader. Producers that
  // suppress wake-ups (BPF_RB_NO_WAKEUP) need poll() on a timer as well.
  [[nodiscard]] int epoll_fd() const;
  // Hands at most `max` waiting events to the callback, never blocks; returns how many.
  Result<std::size_t> poll(std::size_t max = kMaxPerPoll);
  // Entries of another size than egressd_event, skipped: kernel programs of another version.
  [[nodiscard]] std::uint64_t malformed() const;

 private:
  struct Impl;
  explicit EventReader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace egressd::audit
