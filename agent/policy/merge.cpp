#include "policy/merge.h"

#include <algorithm>
#include <iterator>

#include "policy/limits.h"

namespace egressd::policy {
namespace {

bool may_carry_dns(const MergedEntry& entry) {
  return (entry.protocol == net::Protocol::Any || entry.protocol == net::Protocol::Tcp ||
          entry.protocol == net::Protocol::Udp) &&
         std::ranges::any_of(kDnsPorts, [&](auto port) { return entry.ports.contains(port); });
}

bool is_wide_allow(const MergedEntry& entry) {
  return entry.action == Action::Allow && entry.ports.first != entry.ports.last;
}

// True if `earlier` decides whatever `later` could match. Between network rules there is the
// exception of the DNS ports, which an allowed range does not open (see evaluate()).
bool shadows(const MergedEntry& earlier, const MergedEntry& later, bool network) {
  if (earlier.protocol != net::Protocol::Any && earlier.protocol != later.protocol) return false;
  if (earlier.ports.first > later.ports.first || later.ports.last > earlier.ports.last)
    return false;
  return !network || !is_wide_allow(earlier) || is_wide_allow(later) || !may_carry_dns(later);
}

template <typename F>
void for_each_entry(const Rule& rule, Action action, std::uint32_t number, F f) {
  for (const net::Protocol protocol : rule.protocols)
    for (const net::PortRange& ports : rule.ports) {
      MergedEntry entry;
      entry.rule = number;
      // Both ICMP versions go by one name.
      entry.protocol = protocol == net::Protocol::Icmpv6 ? net::Protocol::Icmp : protocol;
      entry.ports = ports;
      entry.action = action;
      entry.mode = rule.mode;
      if (!f(entry)) return;
    }
}

// Adds the entry unless an earlier one decides for it. False: no room.
bool append(std::vector<MergedEntry>& list, const MergedEntry& entry, bool network) {
  if (list.size() > kMaxEntries) return false;
  if (std::ranges::any_of(list, [&](const MergedEntry& e) { return shadows(e, entry, network); }))
    return true;
  list.push_back(entry);
  return list.size() <= kMaxEntries;
}

void add_sorted(std::vector<std::uint32_t>& to, std::span<const std::uint32_t> rules) {
  std::vector<std::uint32_t> both;
  both.reserve(to.size() + rules.size());
  std::ranges::set_union(to, rules, std::back_inserter(both));
  to = std::move(both);
}

}  // namespace

std::uint32_t Merger::add(const Rule& rule, Action action) {
  rules_.push_back({&rule, action});
  return static_cast<std::uint32_t>(rules_.size() - 1);
}

template <typename Target>
void Merger::group(std::vector<std::pair<Target, std::uint32_t>>& targets, std::vector<Own>& out) {
  std::ranges::sort(targets, [](const auto& a, const auto& b) {
    const auto order = *a.first <=> *b.first;
    return order != 0 ? order < 0 : a.second < b.second;
  });
  for (std::size_t begin = 0, end = 0; begin < targets.size(); begin = end) {
    const Target target = targets[begin].first;
    while (end < targets.size() && *targets[end].first == *target) ++end;
    Own own{nullptr, nullptr, static_cast<std::uint32_t>(own_rules_.size()), 0, false};
    if constexpr (std::is_same_v<Target, const net::Prefix*>)
      own.prefix = target;
    else
      own.pattern = target;
    std::vector<MergedEntry> list;
    for (std::size_t i = begin; i < end; ++i) {
      const std::uint32_t number = targets[i].second;
      if (i > begin && number == targets[i - 1].second) continue;
      const auto& [rule, action] = rules_[number];
      own.allow_private |= rule->allow_private && action == Action::Allow;
      // A rule without effect among those of the same target has none among more of them.
      const std::size_t before = list.size();
      if (end - begin > 1 && before <= kMaxEntries)
        for_each_entry(*rule, action, number, [&](const MergedEntry& entry) {
          return append(list, entry, own.prefix != nullptr);
        });
      if (end - begin == 1 || list.size() > before) {
        own_rules_.push_back(number);
        ++own.count;
      }
    }
    out.push_back(own);
  }
}

void Merger::finish() {
  std::vector<std::pair<const net::Prefix*, std::uint32_t>> prefixes;
  std::vector<std::pair<const FqdnPattern*, std::uint32_t>> patterns;
  for (std::uint32_t number = 0; number < rules_.size(); ++number) {
    for (const net::Prefix& prefix : rules_[number].rule->prefixes)
      prefixes.emplace_back(&prefix, number);
    for (const FqdnPattern& pattern : rules_[number].rule->fqdns)
      patterns.emplace_back(&pattern, number);
  }
  group(prefixes, prefixes_);
  group(patterns, patterns_);
  for (std::uint32_t i = 0; i < patterns_.size(); ++i) {
    const FqdnPattern& pattern = *patterns_[i].pattern;
    if (pattern.kind() == FqdnPattern::Kind::Subdomains)
      subdomains_.emplace(std::string_view(pattern.text()).substr(2), i);
    else if (pattern.kind() == FqdnPattern::Kind::InLabel)
      (void)in_label_.add(pattern.text(), i, kMaxInLabelSiblings);
  }
}

void Merger::each_prefix(const Visit& visit) const {
  // In this order what is around a prefix comes before it: the open ones are those around.
  std::vector<const Own*> around[2];
  std::vector<std::uint32_t> rules;
  for (const Own& own : prefixes_) {
    auto& open = around[own.prefix->address().is_v4()];
    while (!open.empty() && !open.back()->prefix->contains(*own.prefix)) open.pop_back();
    Destination destination{own.prefix, nullptr, rules_of(own), false};
    if (!open.empty()) {
      rules.assign(destination.rules.begin(), destination.rules.end());
      for (const Own* wider : open) add_sorted(rules, rules_of(*wider));
      destination.rules = rules;
    }
    open.push_back(&own);
    visit(destination);
  }
}

void Merger::each_pattern(const Visit& visit) const {
  std::vector<std::uint32_t> rules;
  for (const Own& own : patterns_) {
    Destination destination{nullptr, own.pattern, rules_of(own), own.allow_private};
    bool alone = true;
    const auto take = [&](std::uint32_t index) {
      const Own& wider = patterns_[index];
      if (&wider == &own) return;
      if (alone) rules.assign(destination.rules.begin(), destination.rules.end());
      alone = false;
      add_sorted(rules, rules_of(wider));
      destination.allow_private |= wider.allow_private;
    };
    // "*.a.b" covers what ends in ".a.b"; for "*.a.b" itself that starts one label up.
    const bool subtree = own.pattern->kind() == FqdnPattern::Kind::Subdomains;
    std::string_view name = own.pattern->text();
    if (subtree) name.remove_prefix(2);
    if (!subdomains_.empty())
      for (auto dot = name.find('.'); dot != std::string_view::npos; dot = name.find('.', dot + 1))
        if (const auto it = subdomains_.find(name.substr(dot + 1)); it != subdomains_.end())
          take(it->second);
    if (!subtree)
      for (const std::uint32_t index : in_label_.covering(name)) take(index);
    if (!alone) destination.rules = rules;
    visit(destination);
  }
}

std::vector<MergedEntry> Merger::join(std::span<const std::uint32_t> rules) const {
  std::vector<MergedEntry> list;
  for (const std::uint32_t number : rules) {
    const auto& [rule, action] = rules_[number];
    bool room = true;
    for_each_entry(*rule, action, number, [&](const MergedEntry& entry) {
      room = append(list, entry, rule->is_network());
      return room;
    });
    if (!room) break;
  }
  return list;
}

}  // namespace egressd::policy
