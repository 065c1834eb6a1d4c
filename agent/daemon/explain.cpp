#include "daemon/explain.h"

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

#include "net/endpoint.h"

namespace egressd::daemon {
namespace {

bool is_decided(policy::Basis basis) {
  return basis != policy::Basis::DefaultDeny && basis != policy::Basis::PortNotAllowed;
}

std::string describe(const policy::Destination& d) {
  return d.address ? d.address->to_string() : d.fqdn;
}

// One entry of a collection's `rules`, as deploy/policy.md has it.
std::string rule_for(const policy::Destination& d) {
  const std::string what = describe(d);
  std::string name = what;
  std::ranges::replace_if(
      name, [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; }, '-');
  const std::string key = d.address ? "addresses" : "fqdns";
  std::string rule = "- {name: \"" + name + "\", " + key + ": [\"" + what + "\"]";
  if (d.port != 0) rule += ", ports: [" + std::to_string(d.port) + "]";
  return rule + ", protocols: [" + net::to_string(d.protocol) + "]}";
}

}  // namespace

Explanation explain(const policy::Policy& policy, const policy::Destination& destination,
                    const std::vector<KnownName>& names) {
  Explanation e;
  e.by = describe(destination);
  e.verdict = policy::evaluate(policy, destination);
  policy::Destination wanted = destination;
  if (destination.address && !is_decided(e.verdict.basis)) {
    for (const KnownName& name : names) {
      policy::Destination named = destination;
      named.address.reset();
      named.fqdn = name.fqdn;
      const auto verdict = policy::evaluate(policy, named);
      const bool better = verdict.allowed && !verdict.would_deny;
      if (!better && e.by != describe(destination)) continue;
      e.verdict = verdict;
      if (const auto at = e.verdict.reason.find(name.fqdn); at != std::string::npos)
        e.verdict.reason.replace(at, name.fqdn.size(), name.shown);
      e.by = name.shown;
      wanted = named;
      wanted.fqdn = name.shown;
      if (better) break;
    }
  }
  if (e.verdict.rule) {
    const auto& collection = policy.collections[e.verdict.rule->collection];
    e.collection = collection.name;
    e.rule = collection.rules[e.verdict.rule->rule].name;
  }
  if (!e.verdict.allowed || e.verdict.would_deny) e.to_allow = rule_for(wanted);
  return e;
}

std::string to_json(const Explanation& e) {
  nlohmann::ordered_json j;
  j["allowed"] = e.verdict.allowed;
  j["would_deny"] = e.verdict.would_deny;
  j["by"] = e.by;
  j["basis"] = policy::to_string(e.verdict.basis);
  j["reason"] = e.verdict.reason;
  if (!e.collection.empty()) j["collection"] = e.collection;
  if (!e.rule.empty()) j["rule"] = e.rule;
  j["grants"] = nlohmann::ordered_json::array();
  for (const ListEntry& entry : e.grants)
    j["grants"].push_back(nlohmann::ordered_json::parse(to_json(entry)));
  j["denied"] = nlohmann::ordered_json::array();
  for (const audit::Record& record : e.denied)
    j["denied"].push_back(nlohmann::ordered_json::parse(record.to_json()));
  if (!e.to_allow.empty()) j["to_allow"] = e.to_allow;
  return j.dump(-1, ' ', true, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace egressd::daemon
