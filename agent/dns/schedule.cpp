#include "dns/schedule.h"

#include <algorithm>

namespace egressd::dns {
namespace {

std::chrono::nanoseconds scaled(std::chrono::seconds span, double factor) {
  const std::chrono::duration<double> product = span * factor;
  return std::chrono::duration_cast<std::chrono::nanoseconds>(product);
}

}  // namespace

std::chrono::nanoseconds refresh_delay(std::chrono::seconds ttl, std::chrono::seconds min_ttl,
                                       std::chrono::seconds max_ttl, double random) {
  return scaled(std::clamp(ttl, min_ttl, max_ttl), 0.75 + 0.15 * random);
}

std::chrono::nanoseconds retry_delay(std::uint32_t failures, std::chrono::seconds max_backoff,
                                     double random) {
  constexpr std::uint32_t kMaxDoublings = 30;  // beyond any sensible max_backoff, within 64 bits
  const std::uint32_t doublings = std::min(std::max(failures, 1U) - 1, kMaxDoublings);
  const std::chrono::seconds delay(std::int64_t{1} << doublings);
  return scaled(std::min(delay, max_backoff), 0.5 + 0.5 * random);
}

}  // namespace egressd::dns
