#include "analysis/judge.h"

#include <algorithm>
#include <vector>

#include "bpf/egressd_abi.h"
#include "net/special.h"

namespace egressd::analysis {
namespace {

constexpr std::size_t kMaxKnown = 65'536;
constexpr std::size_t kMaxNames = 16;  // of one address; more say nothing new

bool allows_private(const policy::Policy& policy, const std::string& name) {
  for (const auto& collection : policy.collections) {
    if (collection.action != policy::Action::Allow) continue;
    for (const auto& rule : collection.rules)
      if (rule.allow_private &&
          std::ranges::any_of(rule.fqdns, [&](const auto& p) { return p.matches(name); }))
        return true;
  }
  return false;
}

bool is_below(const std::string& name, const std::string& domain) {
  return name == domain || (name.ends_with(domain) && name.size() > domain.size() &&
                            name[name.size() - domain.size() - 1] == '.');
}

}  // namespace

const char* to_string(Outcome outcome) {
  switch (outcome) {
    case Outcome::Allowed:
      return "allowed";
    case Outcome::WouldDeny:
      return "would_deny";
    case Outcome::Denied:
      return "denied";
    case Outcome::Uncertain:
      return "uncertain";
  }
  return "unknown";
}

bool is_refused_for(const audit::Record& record, std::uint32_t reason) {
  return record.reason == audit::reason_name(reason);
}

bool is_question(const audit::Record& record) {
  return is_refused_for(record, EGRESSD_DENY_DNS_NAME);
}

bool is_beyond_rules(const audit::Record& record) {
  return is_refused_for(record, EGRESSD_DENY_MALFORMED) ||
         is_refused_for(record, EGRESSD_DENY_FRAGMENT) ||
         is_refused_for(record, EGRESSD_DENY_INTERNAL) ||
         is_refused_for(record, EGRESSD_DENY_DNS_MALFORMED);
}

const Judgement& Judge::judge(const audit::Record& record) {
  const auto& bytes = record.destination.bytes();
  const auto protocol = static_cast<std::uint16_t>(record.protocol);
  std::string key(bytes.begin(), bytes.end());
  for (const int byte :
       {record.port >> 8, record.port & 255, protocol >> 8, protocol & 255, record.denied ? 1 : 0})
    key.push_back(static_cast<char>(byte));
  key += record.reason;
  for (std::size_t i = 0; i < std::min(record.fqdns.size(), kMaxNames); ++i) {
    key += '\0';
    key += record.fqdns[i];
  }
  if (const auto it = known_.find(key); it != known_.end()) return it->second;
  if (known_.size() >= kMaxKnown) known_.clear();
  Judgement judgement;
  if (is_beyond_rules(record)) {
    judgement.outcome = record.denied ? Outcome::Denied : Outcome::WouldDeny;
    judgement.by_policy = false;
    judgement.why = "no policy decides this (" + record.reason + ")";
  } else {
    // Names are asked at the policy's own resolvers; asked elsewhere, it is a matter of addresses.
    const auto& servers = policy_.dns.servers;
    const bool is_resolver =
        servers.empty() || std::ranges::find(servers, record.destination) != servers.end();
    judgement =
        is_question(record) && is_resolver ? judge_question(record) : judge_connection(record);
  }
  return known_.emplace(std::move(key), std::move(judgement)).first->second;
}

Judgement Judge::from(const policy::Verdict& verdict) const {
  Judgement out;
  out.outcome = verdict.would_deny ? Outcome::WouldDeny
                : verdict.allowed  ? Outcome::Allowed
                                   : Outcome::Denied;
  out.by_deny_rule = verdict.basis == policy::Basis::DenyRule;
  if (verdict.rule) {
    const auto& collection = policy_.collections[verdict.rule->collection];
    out.rule = collection.name + "/" + collection.rules[verdict.rule->rule].name;
  }
  out.why = verdict.reason;
  return out;
}

// Which names may be asked does not depend on ports: a rule that allows something for the name is
// enough.
Judgement Judge::judge_question(const audit::Record& record) const {
  Judgement out;
  const auto filter = policy::effective_filter(policy_);
  const auto name = record.fqdns.empty() ? std::unexpected(std::string())
                                         : policy::canonical_fqdn(record.fqdns.front());
  if (filter == policy::DnsFilter::Off) {
    out.outcome = Outcome::Allowed;
    out.why = "dns.filter is off: every name may be asked";
    return out;
  }
  if (name) {
    for (const auto& domain : policy_.dns.search_domains) {
      if (!is_below(*name, domain)) continue;
      out.outcome = Outcome::Allowed;
      out.why = "it is below a domain of dns.searchDomains, where every name may be asked";
      return out;
    }
    for (const auto& collection : policy_.collections) {
      if (collection.action != policy::Action::Allow) continue;
      for (const auto& rule : collection.rules) {
        if (std::ranges::none_of(rule.fqdns, [&](const auto& p) { return p.matches(*name); }))
          continue;
        for (const auto protocol : rule.protocols) {
          for (const auto& ports : rule.ports) {
            const auto verdict = policy::evaluate(
                policy_,
                {.fqdn = *name,
                 .address = {},
                 .port = ports.first,
                 .protocol = protocol == net::Protocol::Any ? net::Protocol::Tcp : protocol});
            // A deny rule before it takes away what it allows.
            if (verdict.basis == policy::Basis::DenyRule) continue;
            out.outcome = Outcome::Allowed;
            out.rule = collection.name + "/" + rule.name;
            out.why = "collection '" + collection.name + "', rule '" + rule.name +
                      "' allows the name, so it may be asked";
            return out;
          }
        }
      }
    }
  }
  out.outcome = filter == policy::DnsFilter::Allowlist ? Outcome::Denied : Outcome::WouldDeny;
  out.why = "no rule allows the name, so it may not be asked";
  return out;
}

Judgement Judge::judge_name(const std::string& name, const audit::Record& record) const {
  const auto canonical = policy::canonical_fqdn(name);
  if (!canonical) {
    Judgement out;
    out.outcome = policy_.mode == policy::Mode::Audit ? Outcome::WouldDeny : Outcome::Denied;
    out.why = "no name a rule could have: " + canonical.error();
    return out;
  }
  Judgement out = from(policy::evaluate(
      policy_,
      {.fqdn = *canonical, .address = {}, .port = record.port, .protocol = record.protocol}));
  if (out.outcome == Outcome::Denied) return out;
  // The agent would not believe a name that leads there.
  const auto* block = net::special_block(record.destination);
  if (block && !out.rule.empty() && !out.by_deny_rule &&
      (block->learnable == net::SpecialBlock::Learnable::Never ||
       !allows_private(policy_, *canonical))) {
    out.outcome = policy_.mode == policy::Mode::Audit ? Outcome::WouldDeny : Outcome::Denied;
    out.why = std::string("a rule allows the name, but the address is ") + block->purpose +
              (block->learnable == net::SpecialBlock::Learnable::Never
                   ? ": only a network rule opens such addresses"
                   : ": the rule needs allowPrivate");
    out.rule.clear();
  }
  return out;
}

Judgement Judge::judge_connection(const audit::Record& record) const {
  const auto verdict = policy::evaluate(policy_, {.fqdn = {},
                                                  .address = record.destination,
                                                  .port = record.port,
                                                  .protocol = record.protocol});
  Judgement by_address = from(verdict);
  const bool decided = verdict.rule || (verdict.allowed && !verdict.would_deny);
  // The name of a question is not one the resolver is known by.
  if (decided || record.fqdns.empty() || is_question(record)) return by_address;

  std::vector<Judgement> by_name;
  for (std::size_t i = 0; i < std::min(record.fqdns.size(), kMaxNames); ++i)
    by_name.push_back(judge_name(record.fqdns[i], record));
  const auto differs = [&](const Judgement& j) { return j.outcome != by_name.front().outcome; };
  const auto other = std::ranges::find_if(by_name, differs);
  if (other == by_name.end()) return std::move(by_name.front());
  Judgement out;
  out.outcome = Outcome::Uncertain;
  const auto said = [&](const Judgement& j) {
    const auto& name = record.fqdns[static_cast<std::size_t>(&j - by_name.data())];
    return name + " is " + to_string(j.outcome) + (j.rule.empty() ? "" : " by " + j.rule);
  };
  out.why = "the address has names that are judged differently: " + said(by_name.front()) + ", " +
            said(*other);
  return out;
}

}  // namespace egressd::analysis
