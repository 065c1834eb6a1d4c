#include "daemon/compiler.h"

#include <algorithm>
#include <map>
#include <set>
#include <span>

#include "bpf/egressd_abi.h"
#include "net/special.h"
#include "policy/limits.h"
#include "policy/merge.h"

namespace egressd::daemon {
namespace {

using enforce::RuleEntry;
using enforce::RuleList;
using policy::FqdnPattern;

// The reader of the file promises that what it accepts can be put in force.
static_assert(policy::kMaxEntries == EGRESSD_MAX_LIST);
static_assert(policy::kMaxInLabelSiblings == EGRESSD_DNS_MAX_GLOBS);

RuleEntry to_entry(const policy::MergedEntry& merged) {
  RuleEntry entry;
  entry.rule_id = merged.rule;
  entry.protocol = merged.protocol;
  entry.ports = merged.ports;
  entry.action =
      merged.action == policy::Action::Deny ? enforce::Action::Deny : enforce::Action::Allow;
  entry.audit = merged.mode == policy::Mode::Audit;
  return entry;
}

// Hands out one index per distinct list.
class ListPool {
 public:
  ListPool(const policy::Merger& merger, std::vector<RuleList>& lists)
      : merger_(merger), lists_(lists) {}

  // The list of these rules. Destinations with the same rules are many, and rules with different
  // numbers that come to the same list are few.
  Result<std::uint32_t> index_of(const policy::Merger::Destination& destination) {
    std::uint32_t& index = by_rules(destination.rules);
    if (index != kNone) return index;
    RuleList list;
    for (const policy::MergedEntry& entry : merger_.join(destination.rules))
      list.push_back(to_entry(entry));
    if (list.size() > EGRESSD_MAX_LIST)
      return std::unexpected(
          Error::of((destination.prefix != nullptr ? destination.prefix->to_string()
                                                   : destination.pattern->text()) +
                    " is subject to more than " + std::to_string(EGRESSD_MAX_LIST) +
                    " pairs of protocol and port range: write neighbouring ports as ranges, or "
                    "use fewer overlapping rules"));
    lists_.push_back(std::move(list));
    const auto [known, added] = by_content_.insert(static_cast<std::uint32_t>(lists_.size() - 1));
    if (!added) lists_.pop_back();
    return index = *known;
  }

 private:
  static constexpr std::uint32_t kNone = ~std::uint32_t{0};

  std::uint32_t& by_rules(std::span<const std::uint32_t> rules) {
    if (rules.size() != 1)
      return by_rules_.try_emplace({rules.begin(), rules.end()}, kNone).first->second;
    // Most destinations have one.
    if (rules[0] >= by_rule_.size()) by_rule_.resize(rules[0] + 1, kNone);
    return by_rule_[rules[0]];
  }

  struct Before {
    const std::vector<RuleList>* lists;
    bool operator()(std::uint32_t a, std::uint32_t b) const { return (*lists)[a] < (*lists)[b]; }
  };

  const policy::Merger& merger_;
  std::vector<RuleList>& lists_;
  std::map<std::vector<std::uint32_t>, std::uint32_t> by_rules_;
  std::vector<std::uint32_t> by_rule_;
  std::set<std::uint32_t, Before> by_content_{Before{&lists_}};
};

// Calls visit("b.c"), visit("c") for "a.b.c".
template <typename Visit>
void for_each_parent(std::string_view name, Visit visit) {
  for (auto dot = name.find('.'); dot != std::string_view::npos; dot = name.find('.', dot + 1))
    visit(name.substr(dot + 1));
}

enforce::RuleSet::Dns::Filter filter_of(const policy::Policy& policy) {
  using Filter = enforce::RuleSet::Dns::Filter;
  switch (policy::effective_filter(policy)) {
    case policy::DnsFilter::Allowlist:
      return Filter::Enforce;
    case policy::DnsFilter::Audit:
      return Filter::Audit;
    case policy::DnsFilter::Off:
      break;
  }
  return Filter::Off;
}

}  // namespace

void NameMatcher::add(Entry entry) {
  const std::size_t index = entries_.size();
  switch (entry.pattern.kind()) {
    case FqdnPattern::Kind::Exact:
      exact_.emplace(entry.pattern.text(), index);
      break;
    case FqdnPattern::Kind::Subdomains:
      subdomains_.emplace(entry.pattern.text().substr(2), index);
      break;
    case FqdnPattern::Kind::InLabel:
      in_label_.add(entry.pattern.text(), static_cast<std::uint32_t>(index),
                    policy::kMaxInLabelSiblings);
      break;
  }
  entries_.push_back(std::move(entry));
}

std::vector<const NameMatcher::Entry*> NameMatcher::match(std::string_view name) const {
  if (const auto it = exact_.find(std::string(name)); it != exact_.end())
    return {&entries_[it->second]};
  std::vector<const Entry*> found;
  for (const std::uint32_t index : in_label_.covering(name)) found.push_back(&entries_[index]);
  const Entry* longest = nullptr;
  for_each_parent(name, [&](std::string_view parent) {
    if (longest != nullptr) return;
    if (const auto it = subdomains_.find(std::string(parent)); it != subdomains_.end())
      longest = &entries_[it->second];
  });
  if (longest != nullptr) found.push_back(longest);
  const std::vector<const Entry*> all = found;
  std::erase_if(found, [&](const Entry* e) {
    return std::ranges::any_of(
        all, [&](const Entry* other) { return other != e && e->pattern.covers(other->pattern); });
  });
  return found;
}

bool may_grant(const NameMatcher::Entry& entry, const net::IpAddress& address) {
  if (!entry.allows) return false;
  const net::SpecialBlock* block = net::special_block(address);
  return block == nullptr ||
         (block->learnable == net::SpecialBlock::Learnable::IfPrivateIsAllowed &&
          entry.allow_private);
}

Result<Compiled> compile(const policy::Policy& policy, std::uint32_t generation, DnsServers servers,
                         NameIds& ids) {
  Compiled out;
  out.rules.generation = generation;
  out.rules.enforce = policy.mode == policy::Mode::Enforce;
  out.rules.dns.resolvers = std::move(servers.addresses);
  out.rules.dns.grace = policy.dns.grace;
  out.rules.dns.filter = filter_of(policy);
  std::set<std::string> ask_only(policy.dns.search_domains.begin(),
                                 policy.dns.search_domains.end());
  ask_only.insert(servers.search_domains.begin(), servers.search_domains.end());
  out.rules.dns.ask_only.assign(ask_only.begin(), ask_only.end());

  policy::Merger merger;
  for (const policy::Collection& collection : policy.collections) {
    for (const policy::Rule& rule : collection.rules) {
      merger.add(rule, collection.action);
      out.rules.rule_names.push_back({collection.name, rule.name});
    }
  }
  merger.finish();

  ListPool pool(merger, out.rules.lists);
  Result<void> result;
  merger.each_prefix([&](const policy::Merger::Destination& destination) {
    if (!result) return;
    const auto list = pool.index_of(destination);
    if (!list)
      result = std::unexpected(list.error());
    else
      out.rules.prefixes.emplace_back(*destination.prefix, *list);
  });
  merger.each_pattern([&](const policy::Merger::Destination& destination) {
    if (!result) return;
    const auto list = pool.index_of(destination);
    if (!list) {
      result = std::unexpected(list.error());
      return;
    }
    const std::string& text = destination.pattern->text();
    NameMatcher::Entry matcher{*destination.pattern, ids.id_of(text), false, false, false};
    // What an allow rule says counts only where no deny rule above it takes everything away.
    matcher.allows = std::ranges::any_of(out.rules.lists[*list], [](const RuleEntry& e) {
      return e.action == enforce::Action::Allow;
    });
    matcher.refuses = std::ranges::any_of(out.rules.lists[*list], [](const RuleEntry& e) {
      return e.action == enforce::Action::Deny;
    });
    matcher.allow_private = matcher.allows && destination.allow_private;
    out.rules.names.push_back(
        {matcher.name_id, *list, text, matcher.allows, matcher.allow_private});
    out.names.add(std::move(matcher));
  });
  if (!result) return std::unexpected(result.error());

  std::set<std::string> resolve(policy.dns.resolve.begin(), policy.dns.resolve.end());
  for (const NameMatcher::Entry& entry : out.names.entries()) {
    if (entry.allows && entry.pattern.kind() == FqdnPattern::Kind::Exact)
      resolve.insert(entry.pattern.text());
  }
  out.resolve.assign(resolve.begin(), resolve.end());
  return out;
}

}  // namespace egressd::daemon
