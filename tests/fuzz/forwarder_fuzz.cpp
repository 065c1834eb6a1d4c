// What anybody on the machine may send to the forwarder, and what becomes of it before somebody is
// asked: first a byte that says how much of the input is the question, behind it an answer.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "dns/query.h"

namespace {

using namespace egressd::dns;

void must(bool holds) {
  if (!holds) std::abort();
}

// Whatever goes to a client or a server can be read again, by the strict reader too.
void check_query(const Query& query) {
  must(query.wire_question.size() >= 5 && query.wire_question.size() <= 255 + 4);
  must(query.question.name.size() <= 4 * 255);
  const Message asked = upstream_query(query, 0x4242, 1232);
  const auto again = parse_query(asked);
  must(again && again->id == 0x4242 && again->wire_question == query.wire_question);
  must(again->question.name == query.question.name && again->question.type == query.question.type);
  must(again->edns.has_value() == query.edns.has_value());
  must(!again->edns || (again->edns->udp_size >= 512 && again->edns->udp_size <= 1232));
  for (const Message& reply :
       {empty_reply(query, Rcode::Refused, ExtendedError::Prohibited), truncated_reply(query)}) {
    must(answers(reply, query, query.id));
    must(!parse_query(reply));  // no reply is taken for a question
    // What fits 512 bytes fits every client.
    must(reply.size() <= 12 + 259 + 17);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::span<const std::uint8_t> rest(data + 1, size - 1);
  const std::size_t cut = std::min<std::size_t>(data[0], rest.size());
  const auto query = parse_query(rest.first(cut));
  if (!query) {
    must(query.error().reply.empty() || query.error().reply.size() >= 12);
    must(!parse_query(query.error().reply));
    return 0;
  }
  check_query(*query);
  const auto answer = rest.subspan(cut);
  if (answers(answer, *query, query->id)) {
    (void)rcode_of(answer);
    (void)is_truncated(answer);
    must(answer.size() >= 12 + query->wire_question.size());
    (void)parse_reply(answer, query->question.name, RecordType::A);
  }
  return 0;
}
