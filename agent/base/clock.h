#pragma once

#include <time.h>

#include <chrono>
#include <cstdint>

namespace egressd {

// Time since boot including suspend (CLOCK_BOOTTIME), the clock of bpf_ktime_get_boot_ns(): every
// expiry shared with the kernel is in it, so a wall clock that jumps changes nothing.
using BootTime = std::chrono::nanoseconds;

// Passed in wherever expiry matters, so that tests move time instead of sleeping.
class Clock {
 public:
  virtual ~Clock() = default;
  [[nodiscard]] virtual BootTime now() const = 0;
};

class SystemClock final : public Clock {
 public:
  [[nodiscard]] BootTime now() const override {
    timespec ts{};
    ::clock_gettime(CLOCK_BOOTTIME, &ts);
    return std::chrono::seconds(ts.tv_sec) + std::chrono::nanoseconds(ts.tv_nsec);
  }
};

}  // namespace egressd
