#include <algorithm>
#include <string>

#include "dns/ask.h"
#include "doctor/checks.h"
#include "policy/parser.h"

namespace egressd::doctor {
namespace {

constexpr std::chrono::milliseconds kAnswerWithin{1000};

struct Probe {
  std::string name;
  std::uint16_t type;
};

// One that the policy lets be asked: doctor may itself be judged. Without any, the root.
Probe question_for(const policy::Policy& policy) {
  if (!policy.dns.resolve.empty()) return {policy.dns.resolve.front(), dns::kTypeA};
  const policy::FqdnPattern* wildcard = nullptr;
  for (const auto& collection : policy.collections) {
    if (collection.action != policy::Action::Allow) continue;
    for (const auto& rule : collection.rules) {
      for (const auto& pattern : rule.fqdns) {
        if (pattern.kind() == policy::FqdnPattern::Kind::Exact)
          return {pattern.text(), dns::kTypeA};
        if (wildcard == nullptr) wildcard = &pattern;
      }
    }
  }
  if (wildcard == nullptr) return {".", dns::kTypeNs};
  std::string name = wildcard->text();
  for (auto star = name.find('*'); star != std::string::npos; star = name.find('*'))
    name.replace(star, 1, "x");
  return {std::move(name), dns::kTypeA};
}

}  // namespace

std::optional<policy::Policy> check_policy(Findings& findings, const std::string& path) {
  auto parsed = policy::load_policy(path, policy::TagCatalog::builtin());
  if (!parsed) {
    const auto& errors = parsed.error();
    add(findings, "policy", State::Broken,
        errors.empty() ? path + " cannot be used" : errors.front().to_string(),
        "`egressctl check " + path + "` lists all that is wrong; another file: --policy");
    return std::nullopt;
  }
  const bool enforce = parsed->policy.mode == policy::Mode::Enforce;
  add(findings, "policy", State::Ok,
      path + " is valid, mode " + (enforce ? "enforce" : "audit") +
          (parsed->warnings.empty() ? ""
                                    : ", with " + std::to_string(parsed->warnings.size()) +
                                          " warnings (`egressctl check` shows them)"));
  return std::move(parsed->policy);
}

void check_name_servers(Findings& findings, const policy::Policy& policy,
                        const daemon::ResolvConfPaths& paths) {
  const auto servers = daemon::find_name_servers(policy, paths);
  if (!servers) {
    add(findings, "resolver", State::Broken, servers.error().message,
        "name a DNS server there, or in the policy under dns.servers");
    return;
  }
  const Probe probe = question_for(policy);
  Findings found;
  bool any = false;
  for (const net::IpAddress& address : servers->dns.addresses) {
    const std::string server = "DNS server " + address.to_string();
    const auto answer = dns::ask_once(address, probe.name, probe.type, kAnswerWithin);
    if (answer && (*answer == "NOERROR" || *answer == "NXDOMAIN")) {
      any = true;
      add(found, "resolver", State::Ok, server + " answers (" + probe.name + ": " + *answer + ")");
      continue;
    }
    add(found, "resolver", State::Broken,
        server + " asked for " + probe.name + ": " +
            (answer ? "says " + *answer : answer.error().message),
        "is it right, up, and reachable on port 53? It comes from " +
            std::string(policy.dns.servers.empty() ? paths.conf : "dns.servers of the policy"));
  }
  for (Finding& finding : found) {
    // As long as one answers, names get resolved, late.
    if (any && finding.state == State::Broken) finding.state = State::Degraded;
    findings.push_back(std::move(finding));
  }
  if (servers->stub_alone)
    add(findings, "resolver", State::Degraded,
        paths.conf + " names only a stub on this machine, and " + paths.upstream +
            " does not say whom that asks: its own questions are refused if it runs in the judged "
            "cgroup",
        "name its servers too in the policy, under dns.servers");
}

}  // namespace egressd::doctor
