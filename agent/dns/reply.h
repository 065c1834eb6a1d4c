#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "net/ip_address.h"

namespace egressd::dns {

// DNS record types asked for (IANA numbers).
enum class RecordType : std::uint16_t { A = 1, Aaaa = 28 };

std::string_view to_string(RecordType type);  // "A", "AAAA"

struct Question {
  std::string name;  // lower case, without trailing dot; other bytes as \\DDD
  std::uint16_t type = 0;
};

// The first question of a message, query or response.
std::expected<Question, std::string> parse_question(std::span<const std::uint8_t> message);

// An answer with more is malformed: what is learned from one name costs room and time of all.
inline constexpr std::size_t kMaxAnswerRecords = 1088;
inline constexpr std::size_t kMaxAnswerAddresses = 1024;

// What the answer section of one message says about one name.
struct Reply {
  std::vector<std::string> cname_chain;   // in order, lower case, without trailing dot
  std::vector<net::IpAddress> addresses;  // without duplicates, in the order received
  std::uint32_t ttl = 0;                  // seconds, smallest of the CNAMEs and addresses used
};

// Reads the addresses of `name` (canonical) from a whole DNS message with RCODE 0: its CNAMEs are
// followed from `name`, and records of any other owner are left out, whoever put them there. No
// address is not an error. The error says what is malformed; then nothing of it is to be believed.
std::expected<Reply, std::string> parse_reply(std::span<const std::uint8_t> message,
                                              std::string_view name, RecordType type);

}  // namespace egressd::dns
