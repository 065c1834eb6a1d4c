#include "daemon/rule_denials.h"

#include <set>

namespace egressd::daemon {

void RuleDenials::follow(const enforce::RuleSet& rules) {
  std::set<std::uint32_t> refusing;
  for (const enforce::RuleList& list : rules.lists) {
    for (const enforce::RuleEntry& entry : list) {
      if (entry.action == enforce::Action::Deny || entry.audit) refusing.insert(entry.rule_id);
    }
  }
  std::map<Name, Counts> counts;
  for (const std::uint32_t id : refusing) {
    const auto& rule = rules.rule_names.at(id);
    const Name name = counts.size() < kMaxRules ? Name{rule.collection, rule.rule} : Name{};
    const auto before = counts_.find(name);
    counts.emplace(name, before == counts_.end() ? Counts{} : before->second);
  }
  counts_ = std::move(counts);
}

void RuleDenials::count(const enforce::RuleSet::RuleName& rule, bool denied, std::uint64_t times) {
  auto it = counts_.find(Name{rule.collection, rule.rule});
  if (it == counts_.end()) it = counts_.find(Name{});
  if (it == counts_.end()) return;  // a rule that is gone
  (denied ? it->second.denied : it->second.would_deny) += times;
}

}  // namespace egressd::daemon
