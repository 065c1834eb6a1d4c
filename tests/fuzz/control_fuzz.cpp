#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "control/message.h"

// Requests come from whoever may connect, answers from whatever listens on the path: neither may
// throw or crash, and an accepted request must mean the same after another trip over the wire.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace egressd::control;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)check_answer(std::string(text));
  if (const auto request = parse_request(text)) {
    const auto line = format_request(*request);
    const auto again = parse_request(line);
    // Escaping can make a line longer than the limit; that is the one way to differ.
    if (line.size() < kMaxRequestBytes &&
        (!again || again->command != request->command || again->arguments != request->arguments))
      std::abort();
  }
  return 0;
}
