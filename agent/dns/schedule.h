#pragma once

#include <chrono>
#include <cstdint>

namespace egressd::dns {

// When to ask for a name again. Pure: `random` in [0, 1) is passed in, so that tests are exact.

// Until the refresh of a good answer:
//   clamp(ttl, min_ttl, max_ttl) * (0.75 + 0.15 * random)
// that is, in the last quarter of the TTL and with a tenth of it to spare for retries. Whoever
// holds the addresses clamps TTLs in the same way, so that none ends before its refresh.
std::chrono::nanoseconds refresh_delay(std::chrono::seconds ttl, std::chrono::seconds min_ttl,
                                       std::chrono::seconds max_ttl, double random);

// Until the retry of a failing name, after `failures` >= 1 in a row:
//   min(1 s * 2^(failures - 1), max_backoff) * (0.5 + 0.5 * random)
std::chrono::nanoseconds retry_delay(std::uint32_t failures, std::chrono::seconds max_backoff,
                                     double random);

}  // namespace egressd::dns
