#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace egressd::test {

// What was asked, for the reference to hold an answer against. `name` in lower case, dotted; one
// with a dot inside a label stands in `labels`, which then count.
struct DnsAsked {
  std::uint16_t id = 0;  // host order
  std::uint16_t qtype = 1;
  std::string name;
  std::vector<std::string> labels = {};
};

// Why an answer teaches nothing; named as in enum egressd_dns_outcome, but on its own so that the
// reference shares no line with what it judges.
enum class DnsVerdict {
  Learned,
  Short,
  BadHeader,
  BadQuestion,
  NotAsked,
  Truncated,
  Rcode,
  BadRecord,
  BadOwner,
  TooMany,
  NoAddress,
};

struct DnsLesson {
  DnsVerdict verdict = DnsVerdict::Short;
  struct Address {
    std::vector<std::uint8_t> bytes;  // 4 or 16
    std::uint32_t ttl = 0;            // smallest on the way from the question
    auto operator<=>(const Address&) const = default;
  };
  std::vector<Address> addresses;
};

// The rules of bpf/dns.md once more, over strings and vectors and with no thought to speed.
DnsLesson read_answer(std::span<const std::uint8_t> message, const DnsAsked& asked);

// The question of a message that claims to have one.
struct DnsQuestion {
  std::vector<std::string> labels;  // lower case; empty: the root
  std::uint16_t qtype = 0;
  std::uint16_t qclass = 0;
};
std::optional<DnsQuestion> read_question(std::span<const std::uint8_t> message);

// What a name may teach: the tables of bpf/dns.md, "Guard". 4 or 16 bytes.
enum class DnsGuard { Public, Private, Never };
DnsGuard guard_of(std::span<const std::uint8_t> address);

// A pattern and its id, for the reference matcher: `*` in front, or inside labels.
struct DnsPattern {
  std::string text;
  std::uint32_t id = 0;
};

// Ids of the most specific matching pattern of each branch, ascending (see name_table.h), without
// those that are wider than another found: a pattern the branch left from, or any branch that
// leaves the way to the name itself.
std::vector<std::uint32_t> match_name(std::span<const DnsPattern> patterns,
                                      const std::string& name);
// The same of a name in lower case, label by label.
std::vector<std::uint32_t> match_labels(std::span<const DnsPattern> patterns,
                                        const std::vector<std::string>& labels);

}  // namespace egressd::test
