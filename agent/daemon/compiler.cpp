#include "daemon/compiler.h"

#include <algorithm>
#include <map>
#include <set>

#include "bpf/egressd_abi.h"
#include "net/special.h"

namespace egressd::daemon {
namespace {

using enforce::RuleEntry;
using enforce::RuleList;
using policy::FqdnPattern;

// One rule in order of judgement, with the entries it turns into.
struct FlatRule {
  const policy::Rule* rule = nullptr;
  bool allow = false;
  RuleList entries;
};

RuleList expand(const policy::Rule& rule, policy::Action action, std::uint32_t rule_id) {
  RuleList list;
  for (const net::Protocol protocol : rule.protocols) {
    for (const net::PortRange& ports : rule.ports) {
      RuleEntry entry;
      entry.rule_id = rule_id;
      // Both ICMP versions go by one name.
      entry.protocol = protocol == net::Protocol::Icmpv6 ? net::Protocol::Icmp : protocol;
      entry.ports = ports;
      entry.action =
          action == policy::Action::Deny ? enforce::Action::Deny : enforce::Action::Allow;
      entry.audit = rule.mode == policy::Mode::Audit;
      if (std::ranges::find(list, entry) == list.end()) list.push_back(entry);
    }
  }
  return list;
}

bool matches_everything(const RuleEntry& entry) {
  return entry.protocol == net::Protocol::Any && entry.ports.is_all();
}

// True if `earlier` decides whatever `later` could match.
bool shadows(const RuleEntry& earlier, const RuleEntry& later) {
  return (earlier.protocol == net::Protocol::Any || earlier.protocol == later.protocol) &&
         earlier.ports.first <= later.ports.first && later.ports.last <= earlier.ports.last;
}

// Joins the entries of the given rules (indices, ascending = order of judgement).
RuleList join(const std::vector<FlatRule>& rules, const std::set<std::size_t>& indices) {
  RuleList list;
  for (const std::size_t index : indices) {
    for (const RuleEntry& entry : rules[index].entries) {
      if (std::ranges::none_of(list, [&](const RuleEntry& e) { return shadows(e, entry); }))
        list.push_back(entry);
    }
    if (!list.empty() && matches_everything(list.back())) break;
  }
  return list;
}

// Hands out one index per distinct list.
class ListPool {
 public:
  explicit ListPool(std::vector<RuleList>& lists) : lists_(lists) {}

  Result<std::uint32_t> index_of(RuleList list, const std::string& destination) {
    if (list.size() > EGRESSD_MAX_LIST)
      return std::unexpected(
          Error::of(destination + " is subject to " + std::to_string(list.size()) +
                    " port ranges in all; the limit is " + std::to_string(EGRESSD_MAX_LIST) +
                    ": merge neighbouring ports into ranges, or use fewer overlapping rules"));
    const auto [it, added] = known_.try_emplace(std::move(list), lists_.size());
    if (added) lists_.push_back(it->first);
    return static_cast<std::uint32_t>(it->second);
  }

 private:
  std::vector<RuleList>& lists_;
  std::map<RuleList, std::size_t> known_;
};

// Every prefix gets the rules of all prefixes around it: the kernel finds the narrowest only.
Result<void> compile_prefixes(const std::vector<FlatRule>& rules, ListPool& pool,
                              enforce::RuleSet& out) {
  std::map<net::Prefix, std::set<std::size_t>> own;
  for (std::size_t i = 0; i < rules.size(); ++i) {
    for (const net::Prefix& prefix : rules[i].rule->prefixes) own[prefix].insert(i);
  }
  std::set<int> lengths[2];  // in use, by family
  for (const auto& [prefix, indices] : own)
    lengths[prefix.address().is_v4()].insert(prefix.length());

  // Prefixes with the same rules share one list; most policies have few.
  std::map<std::set<std::size_t>, std::uint32_t> joined;
  for (const auto& [prefix, indices] : own) {
    std::set<std::size_t> all = indices;
    for (const int length : lengths[prefix.address().is_v4()]) {
      if (length >= prefix.length()) break;
      const auto wider = own.find(prefix.widened(length));
      if (wider != own.end()) all.insert(wider->second.begin(), wider->second.end());
    }
    auto known = joined.find(all);
    if (known == joined.end()) {
      const auto list = pool.index_of(join(rules, all), prefix.to_string());
      if (!list) return std::unexpected(list.error());
      known = joined.emplace(std::move(all), *list).first;
    }
    out.prefixes.emplace_back(prefix, known->second);
  }
  return {};
}

// Calls visit("b.c"), visit("c") for "a.b.c".
template <typename Visit>
void for_each_parent(std::string_view name, Visit visit) {
  for (auto dot = name.find('.'); dot != std::string_view::npos; dot = name.find('.', dot + 1))
    visit(name.substr(dot + 1));
}

// Every pattern gets the rules of all patterns that cover it: a name is judged by its most
// specific pattern only.
Result<void> compile_names(const std::vector<FlatRule>& rules, NameIds& ids, ListPool& pool,
                           Compiled& out) {
  std::map<std::string, std::pair<const FqdnPattern*, std::set<std::size_t>>> own;
  std::vector<std::string> in_label;
  for (std::size_t i = 0; i < rules.size(); ++i) {
    for (const FqdnPattern& pattern : rules[i].rule->fqdns) {
      auto& entry = own[pattern.text()];
      if (entry.first == nullptr && pattern.kind() == FqdnPattern::Kind::InLabel)
        in_label.push_back(pattern.text());
      entry.first = &pattern;
      entry.second.insert(i);
    }
  }
  for (const auto& [text, entry] : own) {
    const FqdnPattern& pattern = *entry.first;
    std::set<std::size_t> all = entry.second;
    const auto take = [&](const std::string& covering) {
      const auto it = own.find(covering);
      if (it != own.end()) all.insert(it->second.second.begin(), it->second.second.end());
    };
    // "*.a.b" covers what ends in ".a.b"; for "*.a.b" itself that starts one label up.
    for_each_parent(
        text.starts_with("*.") ? std::string_view(text).substr(2) : std::string_view(text),
        [&](std::string_view parent) { take("*." + std::string(parent)); });
    for (const std::string& other : in_label) {
      if (own.at(other).first->covers(pattern)) take(other);
    }
    RuleList joined = join(rules, all);
    NameMatcher::Entry matcher{pattern, ids.id_of(text), false, false};
    // What an allow rule says counts only where no deny rule above it takes everything away.
    matcher.allows = std::ranges::any_of(
        joined, [](const RuleEntry& e) { return e.action == enforce::Action::Allow; });
    for (const std::size_t i : all)
      matcher.allow_private |= matcher.allows && rules[i].allow && rules[i].rule->allow_private;
    const auto list = pool.index_of(std::move(joined), text);
    if (!list) return std::unexpected(list.error());
    out.rules.names.push_back(
        {matcher.name_id, *list, text, matcher.allows, matcher.allow_private});
    out.names.add(std::move(matcher));
  }
  return {};
}

enforce::RuleSet::Dns::Filter filter_of(const policy::Policy& policy) {
  using Filter = enforce::RuleSet::Dns::Filter;
  const auto chosen =
      policy.dns.filter.value_or(policy.mode == policy::Mode::Enforce ? policy::DnsFilter::Allowlist
                                                                      : policy::DnsFilter::Audit);
  switch (chosen) {
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
      in_label_.push_back(index);
      break;
  }
  entries_.push_back(std::move(entry));
}

std::vector<const NameMatcher::Entry*> NameMatcher::match(std::string_view name) const {
  if (const auto it = exact_.find(std::string(name)); it != exact_.end())
    return {&entries_[it->second]};
  std::vector<const Entry*> found;
  for (const std::size_t index : in_label_) {
    if (entries_[index].pattern.matches(name)) found.push_back(&entries_[index]);
  }
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

  std::vector<FlatRule> network;
  std::vector<FlatRule> fqdn;
  for (const policy::Collection& collection : policy.collections) {
    for (const policy::Rule& rule : collection.rules) {
      const auto rule_id = static_cast<std::uint32_t>(out.rules.rule_names.size());
      out.rules.rule_names.push_back({collection.name, rule.name});
      FlatRule flat{&rule, collection.action == policy::Action::Allow,
                    expand(rule, collection.action, rule_id)};
      (rule.is_network() ? network : fqdn).push_back(std::move(flat));
    }
  }

  ListPool pool(out.rules.lists);
  if (auto r = compile_prefixes(network, pool, out.rules); !r) return std::unexpected(r.error());
  if (auto r = compile_names(fqdn, ids, pool, out); !r) return std::unexpected(r.error());

  std::set<std::string> resolve(policy.dns.resolve.begin(), policy.dns.resolve.end());
  for (const NameMatcher::Entry& entry : out.names.entries()) {
    if (entry.allows && entry.pattern.kind() == FqdnPattern::Kind::Exact)
      resolve.insert(entry.pattern.text());
  }
  out.resolve.assign(resolve.begin(), resolve.end());
  return out;
}

}  // namespace egressd::daemon
