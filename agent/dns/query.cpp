#include "dns/query.h"

#include <algorithm>
#include <array>

namespace egressd::dns {
namespace {

constexpr std::size_t kHeaderSize = 12;
constexpr std::size_t kMaxNameBytes = 255;
constexpr std::size_t kMaxLabelBytes = 63;
constexpr std::uint16_t kTypeOpt = 41;
// Bits of the header's flags.
constexpr std::uint16_t kResponse = 0x8000, kOpcode = 0x7800, kTruncated = 0x0200,
                        kRecursionDesired = 0x0100, kRecursionAvailable = 0x0080,
                        kAuthentic = 0x0020, kCheckingDisabled = 0x0010, kRcode = 0x000f;
constexpr std::uint32_t kDnssecOk = 0x8000;
// What we say we take over UDP (RFC 9715).
constexpr std::uint16_t kOurUdpSize = 1232;
constexpr std::uint16_t kOptionExtendedError = 15;

std::uint16_t u16(std::span<const std::uint8_t> bytes, std::size_t at) {
  return static_cast<std::uint16_t>(bytes[at] << 8 | bytes[at + 1]);
}

void put16(Message& message, std::size_t value) {
  message.push_back(static_cast<std::uint8_t>(value >> 8));
  message.push_back(static_cast<std::uint8_t>(value));
}

// Bytes of the uncompressed name at `at`; 0 if there is none.
std::size_t name_size(std::span<const std::uint8_t> message, std::size_t at) {
  for (std::size_t size = 0; size < kMaxNameBytes && at + size < message.size();) {
    const std::uint8_t label = message[at + size];
    if (label > kMaxLabelBytes) return 0;
    size += label + std::size_t{1};
    if (label == 0) return size;
  }
  return 0;
}

Message header(std::uint16_t id, std::size_t flags, std::size_t questions,
               std::size_t additionals) {
  Message message;
  put16(message, id);
  put16(message, flags);
  put16(message, questions);
  put16(message, 0);
  put16(message, 0);
  put16(message, additionals);
  return message;
}

std::size_t reply_flags(std::uint16_t asked, Rcode rcode) {
  return kResponse | (asked & (kOpcode | kRecursionDesired | kCheckingDisabled)) |
         kRecursionAvailable | (static_cast<std::size_t>(rcode) & kRcode);
}

void put_opt(Message& message, std::uint16_t udp_size, Rcode rcode, bool dnssec_ok,
             std::optional<ExtendedError> why = {}) {
  message.push_back(0);
  put16(message, kTypeOpt);
  put16(message, udp_size);
  message.push_back(static_cast<std::uint8_t>(static_cast<unsigned>(rcode) >> 4));
  message.push_back(0);
  put16(message, dnssec_ok ? kDnssecOk : 0);
  put16(message, why ? 6 : 0);
  if (!why) return;
  put16(message, kOptionExtendedError);
  put16(message, 2);
  put16(message, static_cast<std::size_t>(*why));
}

std::unexpected<BadQuery> refuse(std::span<const std::uint8_t> message, Rcode rcode) {
  return std::unexpected(
      BadQuery{header(u16(message, 0), reply_flags(u16(message, 2), rcode), 0, 0)});
}

constexpr std::pair<std::uint16_t, const char*> kTypes[] = {
    {1, "A"},       {2, "NS"},    {5, "CNAME"},  {6, "SOA"},    {12, "PTR"}, {15, "MX"},
    {16, "TXT"},    {28, "AAAA"}, {33, "SRV"},   {35, "NAPTR"}, {41, "OPT"}, {43, "DS"},
    {48, "DNSKEY"}, {64, "SVCB"}, {65, "HTTPS"}, {255, "ANY"},  {257, "CAA"}};

}  // namespace

std::string to_string(Rcode rcode) {
  constexpr std::array<const char*, 6> kNames = {"NOERROR",  "FORMERR", "SERVFAIL",
                                                 "NXDOMAIN", "NOTIMP",  "REFUSED"};
  const auto number = static_cast<std::size_t>(rcode);
  return number < kNames.size() ? kNames[number] : "RCODE" + std::to_string(number);
}

std::string type_name(std::uint16_t type) {
  for (const auto& [number, name] : kTypes)
    if (number == type) return name;
  return "TYPE" + std::to_string(type);
}

bool is_usual_type(std::uint16_t type) {
  constexpr std::array<std::uint16_t, 7> kUsual = {1, 5, 12, 28, 33, 64, 65};
  return std::ranges::find(kUsual, type) != kUsual.end();
}

std::expected<Query, BadQuery> parse_query(std::span<const std::uint8_t> message) {
  if (message.size() < kHeaderSize || (u16(message, 2) & kResponse) != 0)
    return std::unexpected(BadQuery{});
  Query query;
  query.id = u16(message, 0);
  query.flags = u16(message, 2);
  if ((query.flags & kOpcode) != 0) return refuse(message, Rcode::NotImp);
  if (u16(message, 4) != 1 || u16(message, 6) != 0 || u16(message, 8) != 0)
    return refuse(message, Rcode::FormErr);

  const std::size_t name = name_size(message, kHeaderSize);
  std::size_t at = kHeaderSize + name + 4;
  if (name == 0 || at > message.size()) return refuse(message, Rcode::FormErr);
  auto question = parse_question(message);
  if (!question) return refuse(message, Rcode::FormErr);
  query.question = std::move(*question);
  query.question_class = u16(message, at - 2);
  query.wire_question.assign(message.begin() + kHeaderSize,
                             message.begin() + static_cast<std::ptrdiff_t>(at));

  bool old_enough = true;
  if (u16(message, 10) > 1) return refuse(message, Rcode::FormErr);
  if (u16(message, 10) == 1) {
    // Root, type, class (size), TTL (extended rcode, version, flags), length of the options.
    constexpr std::size_t kOptSize = 11;
    if (message.size() - at < kOptSize || message[at] != 0 || u16(message, at + 1) != kTypeOpt)
      return refuse(message, Rcode::FormErr);
    old_enough = message[at + 6] == 0;
    query.edns = {std::max<std::uint16_t>(u16(message, at + 3), 512),
                  (u16(message, at + 7) & kDnssecOk) != 0};
    at += kOptSize + u16(message, at + 9);
  }
  if (at != message.size()) return refuse(message, Rcode::FormErr);
  if (!old_enough) return std::unexpected(BadQuery{empty_reply(query, Rcode::BadVers)});
  return query;
}

Message upstream_query(const Query& query, std::uint16_t id, std::uint16_t max_udp_size) {
  constexpr std::uint16_t kPassedOn = kRecursionDesired | kAuthentic | kCheckingDisabled;
  Message message = header(id, query.flags & kPassedOn, 1, query.edns ? 1 : 0);
  message.insert(message.end(), query.wire_question.begin(), query.wire_question.end());
  if (query.edns)
    put_opt(message, std::min(query.edns->udp_size, max_udp_size), Rcode::NoError,
            query.edns->dnssec_ok);
  return message;
}

bool answers(std::span<const std::uint8_t> message, const Query& query, std::uint16_t id) {
  if (message.size() < kHeaderSize || u16(message, 0) != id ||
      (u16(message, 2) & (kResponse | kOpcode)) != kResponse)
    return false;
  const auto& asked = query.wire_question;
  if (u16(message, 4) != 1 || message.size() - kHeaderSize < asked.size()) return false;
  const auto folded = [](std::uint8_t c) { return c >= 'A' && c <= 'Z' ? c | 0x20 : c; };
  // Lengths of labels are below 64 and no letters. Type and class have to be the same bytes.
  const auto same = message.subspan(kHeaderSize, asked.size());
  return std::ranges::equal(same.first(asked.size() - 4), std::span(asked).first(asked.size() - 4),
                            {}, folded, folded) &&
         std::ranges::equal(same.last(4), std::span(asked).last(4));
}

Rcode rcode_of(std::span<const std::uint8_t> message) {
  return static_cast<Rcode>(u16(message, 2) & kRcode);
}

bool is_truncated(std::span<const std::uint8_t> message) {
  return (u16(message, 2) & kTruncated) != 0;
}

Message empty_reply(const Query& query, Rcode rcode, std::optional<ExtendedError> why) {
  Message message = header(query.id, reply_flags(query.flags, rcode), 1, query.edns ? 1 : 0);
  message.insert(message.end(), query.wire_question.begin(), query.wire_question.end());
  if (query.edns) put_opt(message, kOurUdpSize, rcode, query.edns->dnssec_ok, why);
  return message;
}

Message truncated_reply(const Query& query) {
  Message message = empty_reply(query, Rcode::NoError);
  message[2] |= kTruncated >> 8;
  return message;
}

}  // namespace egressd::dns
