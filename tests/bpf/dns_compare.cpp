#include "tests/bpf/dns_compare.h"

#include <time.h>

#include <algorithm>
#include <cstring>

namespace egressd::test {
namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;

std::uint64_t boot_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_BOOTTIME, &t);
  return static_cast<std::uint64_t>(t.tv_sec) * kSecond + static_cast<std::uint64_t>(t.tv_nsec);
}

bool usual(std::uint16_t type) {
  static constexpr std::uint16_t kUsual[] = {1, 5, 12, 28, 33, 64, 65};
  return std::ranges::find(kUsual, type) != std::end(kUsual);
}

}  // namespace

std::string hex_of(std::span<const std::uint8_t> message) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (const auto b : message) {
    hex.push_back(kDigits[b >> 4]);
    hex.push_back(kDigits[b & 15]);
  }
  return hex;
}

std::optional<DnsVerdict> verdict_of(std::uint32_t outcome) {
  switch (outcome) {
    case EGRESSD_DNS_LEARNED:
      return DnsVerdict::Learned;
    case EGRESSD_DNS_SHORT:
      return DnsVerdict::Short;
    case EGRESSD_DNS_BAD_HEADER:
      return DnsVerdict::BadHeader;
    case EGRESSD_DNS_BAD_QUESTION:
      return DnsVerdict::BadQuestion;
    case EGRESSD_DNS_NOT_ASKED:
      return DnsVerdict::NotAsked;
    case EGRESSD_DNS_TRUNCATED:
      return DnsVerdict::Truncated;
    case EGRESSD_DNS_RCODE:
      return DnsVerdict::Rcode;
    case EGRESSD_DNS_BAD_RECORD:
      return DnsVerdict::BadRecord;
    case EGRESSD_DNS_BAD_OWNER:
      return DnsVerdict::BadOwner;
    case EGRESSD_DNS_TOO_MANY:
      return DnsVerdict::TooMany;
    case EGRESSD_DNS_NO_ADDRESS:
      return DnsVerdict::NoAddress;
    default:
      return std::nullopt;
  }
}

std::array<std::uint8_t, 16> map_key(std::span<const std::uint8_t> address) {
  std::array<std::uint8_t, 16> key{};
  if (address.size() == 4) {
    key[10] = key[11] = 0xff;
  }
  std::ranges::copy(address, key.end() - static_cast<std::ptrdiff_t>(address.size()));
  return key;
}

void DnsComparison::set_policy(std::vector<enforce::NamePattern> patterns) {
  kernel_.set_policy(patterns, kernel_.usual_config());
  kernel_.forget();
  patterns_.clear();
  private_.clear();
  for (const auto& p : patterns) {
    patterns_.push_back({p.text, p.name_id});
    private_[p.name_id] = p.allow_private;
  }
  std::memset(&kernel_.io(), 0, sizeof(dns_test_io));
  asked_ = {};
  ids_.clear();
}

std::string DnsComparison::ask(std::span<const std::uint8_t> m) {
  auto& io = kernel_.io();
  const auto lost = kernel_.count(EGRESSD_DNS_BRANCH_LOST);
  if (!kernel_.judge(m)) {
    return "the program did not run";
  }
  const auto outcome = io.outcome;
  const auto question = read_question(m);
  const bool plain = m.size() >= 12 && (m[2] & 0xf8) == 0 && m[4] == 0 && m[5] == 1 && m[6] == 0 &&
                     m[7] == 0 && m[8] == 0 && m[9] == 0;
  std::uint32_t want = EGRESSD_DNS_DENIED_MALFORMED;
  std::vector<std::uint32_t> ids;
  bool may_ask = false;
  if (plain && question) {
    std::vector<DnsPattern> rules;
    std::vector<DnsPattern> others;
    for (const auto& p : patterns_) {
      (p.id == EGRESSD_DNS_ASK_ONLY ? others : rules).push_back(p);
    }
    ids = match_labels(rules, question->labels);
    may_ask = !match_labels(others, question->labels).empty() &&
              std::ranges::find(ids, EGRESSD_DNS_REFUSED) == ids.end();
    std::erase(ids, EGRESSD_DNS_REFUSED);
    if (ids.empty() && !may_ask) {
      want = EGRESSD_DNS_DENIED_NAME;
    } else if (question->qclass != 1 || !usual(question->qtype)) {
      want = EGRESSD_DNS_DENIED_TYPE;
    } else if (ids.empty() || (question->qtype != 1 && question->qtype != 28)) {
      want = EGRESSD_DNS_ASKED_NO_GRANT;
    } else {
      want = EGRESSD_DNS_ASKED;
    }
  }
  // More branches than are followed: what is granted then must still be part of what is right.
  const bool partly = kernel_.count(EGRESSD_DNS_BRANCH_LOST) != lost;
  if (outcome != want && !partly) {
    return "outcome " + std::to_string(outcome) + ", not " + std::to_string(want);
  }
  if (outcome != EGRESSD_DNS_ASKED) {
    return {};
  }
  std::vector<std::uint32_t> got;
  for (std::size_t i = 0; i < EGRESSD_DNS_MAX_IDS; ++i) {
    const auto id = io.judged.name_ids[i];
    if (id == 0) {
      continue;
    }
    got.push_back(id);
    if (((io.judged.private_ids >> i) & 1U) != (private_[id] ? 1U : 0U)) {
      return "private addresses for name " + std::to_string(id);
    }
  }
  std::ranges::sort(got);
  if (partly ? !std::ranges::includes(ids, got) : got != ids) {
    return "names granted";
  }
  io.seed = 1;
  io.key = io.judged_key;
  io.asked = io.judged;
  asked_ = {static_cast<std::uint16_t>(m[0] << 8 | m[1]), question->qtype, {}, question->labels};
  ids_ = got;
  return {};
}

std::string DnsComparison::answer(std::span<const std::uint8_t> m) {
  const auto before = boot_ns();
  if (!kernel_.answer(m)) {
    return "the program did not run";
  }
  const auto after = boot_ns();
  kernel_.take_learned(taken_);
  const auto& io = kernel_.io();
  auto lesson = read_answer(m, asked_);
  if (!asking() && lesson.verdict != DnsVerdict::Short && lesson.verdict != DnsVerdict::BadHeader &&
      lesson.verdict != DnsVerdict::BadQuestion) {
    lesson = {DnsVerdict::NotAsked, {}};
  }
  verdict_ = lesson.verdict;
  if (verdict_of(io.outcome) != lesson.verdict) {
    return "outcome " + std::to_string(io.outcome) + ", verdict of the reference " +
           std::to_string(static_cast<int>(lesson.verdict));
  }
  if (lesson.verdict != DnsVerdict::Learned) {
    return taken_.empty() ? "" : "an answer that is not believed taught";
  }
  if (io.found != lesson.addresses.size()) {
    return "number of records";
  }
  const auto config = kernel_.usual_config();
  // Address, name: seconds from now.
  std::map<std::pair<std::array<std::uint8_t, 16>, std::uint32_t>, std::uint64_t> want;
  for (std::size_t i = 0; i < lesson.addresses.size(); ++i) {
    const auto& a = lesson.addresses[i];
    const auto& f = io.addresses[i];
    if (!std::equal(a.bytes.begin(), a.bytes.end(), m.begin() + f.off) ||
        std::min(f.ttl, io.chain_ttl) != a.ttl) {
      return "record " + std::to_string(i);
    }
    const auto guard = guard_of(a.bytes);
    for (const auto id : ids_) {
      if (guard == DnsGuard::Public || (guard == DnsGuard::Private && private_[id])) {
        auto& end = want[{map_key(a.bytes), id}];
        end = std::max<std::uint64_t>(
            end, std::clamp(a.ttl, config.min_ttl_s, config.max_ttl_s) + config.grace_s);
      }
    }
  }
  std::size_t grants = 0;
  for (const auto& [address, value] : taken_) {
    for (const auto& g : value.grants) {
      if (g.name_id == 0) {
        continue;
      }
      ++grants;
      const auto it = want.find({address, g.name_id});
      if (it == want.end()) {
        return "learned what it must not: " + hex_of(address) + " for name " +
               std::to_string(g.name_id);
      }
      const auto start = g.expires_ns - it->second * kSecond;
      if (start < before || start > after) {
        return "end of " + hex_of(address);
      }
    }
  }
  if (grants != want.size()) {
    return "learned " + std::to_string(grants) + " of " + std::to_string(want.size());
  }
  return {};
}

}  // namespace egressd::test
