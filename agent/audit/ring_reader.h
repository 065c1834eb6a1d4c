#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "base/result.h"

namespace egressd::audit {

// Reads entries of any size from a BPF ring buffer.
class RingReader {
 public:
  using Callback = std::function<void(std::span<const std::uint8_t> entry)>;

  // `map_fd` stays the caller's and must stay open as long as the reader.
  static Result<std::unique_ptr<RingReader>> open(int map_fd, Callback callback);
  ~RingReader();
  RingReader(const RingReader&) = delete;
  RingReader& operator=(const RingReader&) = delete;

  // Readable (EPOLLIN, level-triggered) while entries wait; owned by the reader. Producers that
  // suppress wake-ups (BPF_RB_NO_WAKEUP) need poll() on a timer as well.
  [[nodiscard]] int epoll_fd() const;
  // Hands at most `max` waiting entries to the callback, never blocks; returns how many.
  Result<std::size_t> poll(std::size_t max);

 private:
  struct Impl;
  explicit RingReader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace egressd::audit
