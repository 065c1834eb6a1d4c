#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "dns/reply.h"

namespace egressd::dns {

using Message = std::vector<std::uint8_t>;

// RFC 1035 4.1.1 and later.
enum class Rcode : std::uint8_t {
  NoError = 0,
  FormErr = 1,
  ServFail = 2,
  NxDomain = 3,
  NotImp = 4,
  Refused = 5,
  BadVers = 16  // of EDNS; needs an OPT record
};
// "NOERROR", …; the number for those without a name.
std::string to_string(Rcode rcode);

// Why, for a person (RFC 8914).
enum class ExtendedError : std::uint16_t { Other = 0, Prohibited = 18, NetworkError = 23 };

// "A", "HTTPS", …; "TYPE123" for those seldom seen.
std::string type_name(std::uint16_t type);
// Types that take no free text to the name's owner or back, and that clients ask by themselves: as
// in bpf/dns_query.h.
bool is_usual_type(std::uint16_t type);

// What a client asks. One question and at most one OPT record; nothing else.
struct Query {
  std::uint16_t id = 0;
  std::uint16_t flags = 0;  // of the header, as sent
  Question question;        // canonical
  std::uint16_t question_class = 0;
  Message wire_question;  // name, type and class as sent: letters in their case
  struct Edns {
    std::uint16_t udp_size = 512;
    bool dnssec_ok = false;
  };
  std::optional<Edns> edns;
};

// What is wrong with a question, and the reply to it; empty if it deserves none.
struct BadQuery {
  Message reply;
};

// Reads a whole message from a client, strictly: no name is compressed, nothing follows. What is no
// query, or too short to say its id, gets no reply, so that two servers cannot talk for ever.
std::expected<Query, BadQuery> parse_query(std::span<const std::uint8_t> message);

// The question as it is asked further on: the client's name in its letters, the flags RD, AD and
// CD, and of its EDNS only size and DO. Options are between neighbours (RFC 6891 6.1.1), and could
// carry anything away.
Message upstream_query(const Query& query, std::uint16_t id, std::uint16_t max_udp_size);

// True if the message answers that query, as upstream_query() wrote it with that id. The letters of
// the name may come back in another case: some servers do that.
bool answers(std::span<const std::uint8_t> message, const Query& query, std::uint16_t id);
// Of a message that answers().
Rcode rcode_of(std::span<const std::uint8_t> message);
bool is_truncated(std::span<const std::uint8_t> message);

// A reply without records; the extended error only if the client speaks EDNS.
Message empty_reply(const Query& query, Rcode rcode, std::optional<ExtendedError> why = {});
// "Ask again by TCP". Without records: addresses the client might use have not been learned.
Message truncated_reply(const Query& query);

}  // namespace egressd::dns
