#include "support/dns_reference.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

namespace egressd::test {
namespace {

using Bytes = std::span<const std::uint8_t>;
using Labels = std::vector<std::string>;

std::string lower(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') {
      c = static_cast<char>(c - 'A' + 'a');
    }
  }
  return text;
}

std::optional<std::uint32_t> number(Bytes m, std::size_t at, std::size_t bytes) {
  if (at + bytes > m.size()) {
    return std::nullopt;
  }
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < bytes; ++i) {
    value = value << 8 | m[at + i];
  }
  return value;
}

// The name at `at`; moves `at` behind it. Every pointer must lead before the start of the run of
// labels it ends, into the part behind the header.
std::optional<Labels> read_name(Bytes m, std::size_t& at) {
  Labels labels;
  std::size_t wire = 1;
  std::size_t here = at;
  std::size_t run = at;
  int pointers = 0;
  std::optional<std::size_t> after;
  for (;;) {
    const auto length = number(m, here, 1);
    if (!length) {
      return std::nullopt;
    }
    if (*length == 0) {
      at = after.value_or(here + 1);
      return labels;
    }
    if ((*length & 0xc0) == 0xc0) {
      const auto pointer = number(m, here, 2);
      if (!pointer) {
        return std::nullopt;
      }
      const std::size_t target = *pointer & 0x3fff;
      if (target >= run || target < 12 || ++pointers > 16) {
        return std::nullopt;
      }
      if (!after) {
        after = here + 2;
      }
      here = run = target;
      continue;
    }
    wire += *length + 1;
    if (*length > 63 || wire > 255 || here + 1 + *length > m.size()) {
      return std::nullopt;
    }
    labels.push_back(
        lower(std::string(m.begin() + static_cast<std::ptrdiff_t>(here) + 1,
                          m.begin() + static_cast<std::ptrdiff_t>(here + 1 + *length))));
    here += 1 + *length;
  }
}

Labels split(const std::string& name) {
  Labels labels(1);
  for (const char c : name) {
    if (c == '.') {
      labels.emplace_back();
    } else {
      labels.back().push_back(c);
    }
  }
  return labels;
}

struct Cname {
  Labels target;
  std::uint32_t ttl = 0;
};

bool fits(const std::string& pattern, const std::string& label) {
  const auto star = pattern.find('*');
  if (star == std::string::npos) {
    return pattern == label;
  }
  const std::string suffix = pattern.substr(star + 1);
  return label.size() + 1 >= pattern.size() && label.starts_with(pattern.substr(0, star)) &&
         label.ends_with(suffix);
}

}  // namespace

DnsLesson read_answer(Bytes m, const DnsAsked& asked) {
  const auto no = [](DnsVerdict why) { return DnsLesson{why, {}}; };
  if (m.size() < 12) {
    return no(DnsVerdict::Short);
  }
  const std::uint32_t flags = *number(m, 2, 2);
  const bool response = flags >> 15 != 0;
  const std::uint32_t opcode = flags >> 11 & 15;
  if (!response || opcode != 0 || *number(m, 4, 2) != 1) {
    return no(DnsVerdict::BadHeader);
  }
  std::size_t at = 12;
  const auto question = read_name(m, at);
  const auto qtype = number(m, at, 2);
  const auto qclass = number(m, at + 2, 2);
  if (!question || !qtype || !qclass) {
    return no(DnsVerdict::BadQuestion);
  }
  at += 4;
  if (*qclass != 1 || (*qtype != 1 && *qtype != 28) || *qtype != asked.qtype ||
      *number(m, 0, 2) != asked.id ||
      *question != (asked.labels.empty() ? split(asked.name) : asked.labels)) {
    return no(DnsVerdict::NotAsked);
  }
  if ((flags >> 9 & 1) != 0) {
    return no(DnsVerdict::Truncated);
  }
  if ((flags & 15) != 0) {
    return no(DnsVerdict::Rcode);
  }
  const std::uint32_t count = *number(m, 6, 2);
  if (count > 320) {
    return no(DnsVerdict::TooMany);
  }
  std::multimap<Labels, Cname> cnames;
  std::vector<std::pair<Labels, DnsLesson::Address>> found;
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto owner = read_name(m, at);
    if (!owner) {
      return no(DnsVerdict::BadRecord);
    }
    const auto type = number(m, at, 2);
    const auto rclass = number(m, at + 2, 2);
    auto ttl = number(m, at + 4, 4);
    const auto size = number(m, at + 8, 2);
    if (!type || !rclass || !ttl || !size || at + 10 + *size > m.size()) {
      return no(DnsVerdict::BadRecord);
    }
    if (*ttl > 0x7fffffff) {
      ttl = 0;
    }
    at += 10;
    const std::size_t next = at + *size;
    if (*type == 5) {
      std::size_t end = at;
      const auto target = read_name(m, end);
      if (*rclass != 1 || !target || end != next) {
        return no(DnsVerdict::BadRecord);
      }
      if (cnames.size() == 16) {
        return no(DnsVerdict::TooMany);
      }
      cnames.emplace(*owner, Cname{*target, *ttl});
    } else if (*type == *qtype) {
      if (*rclass != 1 || *size != (*qtype == 1 ? 4 : 16)) {
        return no(DnsVerdict::BadRecord);
      }
      if (found.size() == 256) {
        return no(DnsVerdict::TooMany);
      }
      found.push_back({*owner,
                       {{m.begin() + static_cast<std::ptrdiff_t>(at),
                         m.begin() + static_cast<std::ptrdiff_t>(next)},
                        *ttl}});
    }
    at = next;
  }
  Labels end = *question;
  std::uint32_t least = 0xffffffff;
  std::set<Labels> seen;
  while (cnames.contains(end)) {
    if (cnames.count(end) > 1 || !seen.insert(end).second) {
      return no(DnsVerdict::BadOwner);
    }
    const Cname& c = cnames.find(end)->second;
    least = std::min(least, c.ttl);
    end = c.target;
  }
  if (seen.size() != cnames.size()) {
    return no(DnsVerdict::BadOwner);
  }
  if (found.empty()) {
    return no(DnsVerdict::NoAddress);
  }
  DnsLesson lesson{DnsVerdict::Learned, {}};
  for (auto& [owner, address] : found) {
    if (owner != end) {
      return no(DnsVerdict::BadOwner);
    }
    address.ttl = std::min(address.ttl, least);
    lesson.addresses.push_back(address);
  }
  return lesson;
}

std::optional<DnsQuestion> read_question(Bytes m) {
  std::size_t at = 12;
  auto labels = m.size() < 12 ? std::nullopt : read_name(m, at);
  const auto qtype = number(m, at, 2);
  const auto qclass = number(m, at + 2, 2);
  if (!labels || !qtype || !qclass) {
    return std::nullopt;
  }
  return DnsQuestion{std::move(*labels), static_cast<std::uint16_t>(*qtype),
                     static_cast<std::uint16_t>(*qclass)};
}

DnsGuard guard_of(Bytes address) {
  struct Range {
    std::vector<std::uint8_t> prefix;
    std::size_t bits;
    DnsGuard guard;
  };
  static const std::vector<Range> kFour{
      {{10}, 8, DnsGuard::Private},
      {{172, 16}, 12, DnsGuard::Private},
      {{192, 168}, 16, DnsGuard::Private},
      {{100, 64}, 10, DnsGuard::Private},
      {{0}, 8, DnsGuard::Never},
      {{127}, 8, DnsGuard::Never},
      {{169, 254}, 16, DnsGuard::Never},
      {{192, 0, 0}, 24, DnsGuard::Never},
      {{168, 63, 129, 16}, 32, DnsGuard::Never},
      {{224}, 4, DnsGuard::Never},
      {{240}, 4, DnsGuard::Never},
  };
  static const std::vector<Range> kSix{
      {{0xfc}, 7, DnsGuard::Private},
      {{0x20, 0x02}, 16, DnsGuard::Never},
      {{0x20, 0x01, 0, 0}, 32, DnsGuard::Never},
      {{0x20}, 3, DnsGuard::Public},
      {{}, 0, DnsGuard::Never},
  };
  const auto bit = [](Bytes bytes, std::size_t at) { return bytes[at / 8] >> (7 - at % 8) & 1; };
  for (const auto& range : address.size() == 4 ? kFour : kSix) {
    std::size_t same = 0;
    while (same < range.bits && bit(address, same) == bit(range.prefix, same)) {
      ++same;
    }
    if (same == range.bits) {
      return range.guard;
    }
  }
  return DnsGuard::Public;
}

std::vector<std::uint32_t> match_name(std::span<const DnsPattern> patterns,
                                      const std::string& name) {
  return match_labels(patterns, split(lower(name)));
}

std::vector<std::uint32_t> match_labels(std::span<const DnsPattern> patterns,
                                        const std::vector<std::string>& labels) {
  // Which labels with `*` inside led to a pattern: position from the right, and text.
  using Branch = std::vector<std::pair<std::size_t, std::string>>;
  struct Match {
    std::size_t depth = 0;
    bool exact = false;
    std::uint32_t id = 0;
  };
  std::map<Branch, std::vector<Match>> matches;
  for (const auto& pattern : patterns) {
    Labels want = split(pattern.text);
    const bool subtree = want.front() == "*";
    if (subtree) {
      want.erase(want.begin());
    }
    if (subtree ? labels.size() <= want.size() : labels.size() != want.size()) {
      continue;
    }
    Branch branch;
    bool fitting = true;
    for (std::size_t i = 1; i <= want.size() && fitting; ++i) {
      const std::string& w = want[want.size() - i];
      fitting = fits(w, labels[labels.size() - i]);
      if (w.find('*') != std::string::npos) {
        branch.emplace_back(i, w);
      }
    }
    if (fitting) {
      matches[branch].push_back({want.size(), !subtree, pattern.id});
    }
  }
  // The narrowest `*.` pattern of a branch with at most `depth` labels.
  const auto narrowest_within = [&](const Branch& branch, std::size_t depth) {
    std::optional<Match> best;
    if (const auto it = matches.find(branch); it != matches.end()) {
      for (const auto& m : it->second) {
        if (!m.exact && m.depth <= depth && (!best || m.depth > best->depth)) {
          best = m;
        }
      }
    }
    return best;
  };
  std::set<std::uint32_t> ids;
  std::set<std::uint32_t> covered;
  for (const auto& [branch, list] : matches) {
    // The name itself, on a branch this one leaves from, is narrower than anything here.
    bool hidden = false;
    for (std::size_t k = 0; k < branch.size(); ++k) {
      const auto it = matches.find(Branch(branch.begin(), branch.begin() + static_cast<long>(k)));
      hidden = hidden || (it != matches.end() &&
                          std::ranges::any_of(it->second, [](const Match& m) { return m.exact; }));
    }
    if (hidden) {
      continue;
    }
    const auto best = std::ranges::max_element(
        list, {}, [](const Match& m) { return std::pair(m.depth, m.exact); });
    ids.insert(best->id);
    // The pattern the branch left from is wider than what was found on it.
    for (std::size_t k = branch.size(); k > 0; --k) {
      const Branch from(branch.begin(), branch.begin() + static_cast<long>(k - 1));
      if (const auto wide = narrowest_within(from, branch[k - 1].first - 1)) {
        covered.insert(wide->id);
        break;
      }
    }
  }
  for (const auto id : covered) {
    ids.erase(id);
  }
  return {ids.begin(), ids.end()};
}

}  // namespace egressd::test
