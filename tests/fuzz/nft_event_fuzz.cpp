// A packet somebody sent, as the kernel logs it. What of it is told must be in it.

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "enforce/nft_events.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::uint8_t> bytes(data, size);
  const auto event = egressd::enforce::event_of({.prefix = "egressd:1:17::3:", .payload = bytes},
                                                egressd::BootTime(1));
  if (!event) std::abort();  // the prefix is ours
  if (size < 20 && event->family != 0) std::abort();
  if (event->dport != 0 && size < 24) std::abort();
  // And a prefix of anybody's.
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)egressd::enforce::event_of({.prefix = text, .payload = bytes}, egressd::BootTime(1));
  return 0;
}
