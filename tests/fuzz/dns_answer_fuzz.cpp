// Answers as name servers, or whoever forges theirs, send them: read by the kernel program and by
// the reference, as the answer to their own question if that may be asked, else to a fixed one.
#include <cstdlib>

#include "dns_kernel_fuzz.h"
#include "support/dns_message.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace egressd::test;
  auto& both = comparison();
  const std::span<const std::uint8_t> message(data, size);
  if (message.empty() || message.size() > EGRESSD_DNS_MSG_MAX) return -1;
  static const auto kFixed =
      DnsMessage().header(0x1234, 0x0100, 1, 0).question("www.example.org").bytes();
  auto query = query_of(message);
  if (!query.empty()) agree(both.ask(query), query);
  if (query.empty() || both.outcome() != EGRESSD_DNS_ASKED) {
    query = kFixed;
    agree(both.ask(query), query);
    if (both.outcome() != EGRESSD_DNS_ASKED) std::abort();
  }
  agree(both.answer(message), message);
  note(both.outcome(), both.learned());
  return 0;
}

extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  egressd::test::comparison();
  return 0;
}
