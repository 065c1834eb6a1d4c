// DNS messages as name servers, or whoever forges their answers, send them to the resolver and as
// the kernel hands them on.

#include <cstdint>
#include <cstdlib>
#include <span>

#include "dns/reply.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::uint8_t> message(data, size);
  const auto question = egressd::dns::parse_question(message);
  if (!question) return 0;
  // Longest canonical text of a name: 255 bytes on the wire, each at most \\DDD.
  if (question->name.size() > 4 * 255) std::abort();
  for (const auto type : {egressd::dns::RecordType::A, egressd::dns::RecordType::Aaaa}) {
    const auto reply = egressd::dns::parse_reply(message, question->name, type);
    if (!reply) continue;
    // Every address takes at least an owner, ten fixed bytes and itself.
    if (reply->addresses.size() * 15 > size) std::abort();
    for (const auto& address : reply->addresses) {
      if (address.is_v4() && type == egressd::dns::RecordType::Aaaa) continue;  // mapped
      if (address.is_v4() != (type == egressd::dns::RecordType::A)) std::abort();
    }
  }
  return 0;
}
