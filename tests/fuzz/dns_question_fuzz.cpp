// Questions as any process of the machine can send them: judged by the kernel program and by the
// reference matcher.
#include "dns_kernel_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace egressd::test;
  auto& both = comparison();
  const std::span<const std::uint8_t> message(data, size);
  // A test run takes no more of a packet.
  if (message.empty() || message.size() > 3000) return -1;
  agree(both.ask(message), message);
  const auto question = read_question(message);
  note(both.outcome(), question ? question->labels.size() : 0);
  return 0;
}

extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  egressd::test::comparison();
  return 0;
}
