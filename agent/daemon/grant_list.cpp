#include "daemon/grant_list.h"

#include <chrono>
#include <utility>

namespace egressd::daemon {

GrantList::GrantList(Sources sources, std::vector<enforce::LearnedAddress> grants,
                     bool network_rules)
    : sources_(std::move(sources)), grants_(std::move(grants)) {
  for (const auto& name : sources_.compiled.rules.names) list_of_name_[name.name_id] = name.list;
  if (!network_rules) return;
  for (const auto& [prefix, list] : sources_.compiled.rules.prefixes) {
    const auto rule = rule_of(list);
    ListEntry entry;
    entry.address = prefix.is_host() ? prefix.address().to_string() : prefix.to_string();
    entry.collection = rule.collection;
    entry.rule = rule.rule;
    entry.source = "policy";
    fixed_.push_back(std::move(entry));
  }
}

enforce::RuleSet::RuleName GrantList::rule_of(std::uint32_t list) const {
  const enforce::RuleSet& rules = sources_.compiled.rules;
  if (list >= rules.lists.size() || rules.lists[list].empty()) return {};
  return rules.rule_names[rules.lists[list].front().rule_id];
}

void GrantList::add(const enforce::LearnedAddress& grant) {
  const BootTime now = sources_.clock.now();
  const auto list = list_of_name_.find(grant.name_id);
  // Expired, or of a pattern the policy no longer has: not in force.
  if (grant.expires <= now || list == list_of_name_.end()) return;
  const auto rule = rule_of(list->second);
  ListEntry entry;
  entry.address = grant.address.to_string();
  entry.pattern = sources_.ids.pattern_of(grant.name_id);
  entry.collection = rule.collection;
  entry.rule = rule.rule;
  entry.source = "earlier run";
  entry.expires_in = std::chrono::duration_cast<std::chrono::seconds>(grant.expires - now);
  const auto origins = sources_.names.origins(grant.address, grant.name_id);
  if (origins.empty()) ready_.push_back(entry);
  for (const LearnedNames::Origin& origin : origins) {
    entry.fqdn = origin.fqdn;
    entry.cname_chain = origin.cname_chain;
    entry.source = origin.source == dns::Answer::Source::Resolver ? "resolver"
                   : origin.source == dns::Answer::Source::Kernel ? "kernel"
                                                                  : "proxy";
    if (origin.heard != BootTime{0})
      entry.heard_ago = std::chrono::duration_cast<std::chrono::seconds>(now - origin.heard);
    entry.server = origin.server;
    if (origin.source == dns::Answer::Source::Kernel)
      entry.asked_by = sources_.asked_by(origin.asker);
    ready_.push_back(entry);
  }
}

bool GrantList::next(ListEntry& entry) {
  while (ready_.empty()) {
    if (next_fixed_ < fixed_.size())
      ready_.push_back(fixed_[next_fixed_++]);
    else if (next_grant_ < grants_.size())
      add(grants_[next_grant_++]);
    else
      return false;
  }
  entry = std::move(ready_.front());
  ready_.pop_front();
  return true;
}

}  // namespace egressd::daemon
