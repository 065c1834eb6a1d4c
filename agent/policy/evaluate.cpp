#include <algorithm>

#include "policy/policy.h"

namespace egressd::policy {
namespace {

bool has_ports(net::Protocol protocol) {
  return protocol == net::Protocol::Tcp || protocol == net::Protocol::Udp ||
         protocol == net::Protocol::Sctp;
}

bool protocol_matches(net::Protocol rule, const Destination& destination) {
  if (rule == net::Protocol::Any || rule == destination.protocol) return true;
  const bool asked_icmp =
      destination.protocol == net::Protocol::Icmp || destination.protocol == net::Protocol::Icmpv6;
  // "icmp" means the ICMP of the address's family, on either side.
  if (rule == net::Protocol::Icmp) return asked_icmp;
  if (rule == net::Protocol::Icmpv6)
    return asked_icmp && destination.address && !destination.address->is_v4();
  return false;
}

bool endpoint_matches(const Rule& rule, const Destination& destination) {
  const std::uint16_t port = has_ports(destination.protocol) ? destination.port : 0;
  return std::ranges::any_of(rule.protocols,
                             [&](net::Protocol p) { return protocol_matches(p, destination); }) &&
         std::ranges::any_of(rule.ports, [&](const net::PortRange& r) { return r.contains(port); });
}

// What of the rule matched, for the reason; "" if nothing did.
std::string target_match(const Rule& rule, const Destination& destination) {
  if (destination.address) {
    const net::Prefix* best = nullptr;
    for (const net::Prefix& prefix : rule.prefixes)
      if (prefix.contains(*destination.address) && (!best || prefix.length() > best->length()))
        best = &prefix;
    return best ? best->to_string() : "";
  }
  for (const FqdnPattern& pattern : rule.fqdns)
    if (pattern.matches(destination.fqdn)) return pattern.text();
  return "";
}

std::string describe(const Destination& destination) {
  std::string out = destination.address ? destination.address->to_string() : destination.fqdn;
  if (has_ports(destination.protocol)) out += " port " + std::to_string(destination.port);
  return out + "/" + net::to_string(destination.protocol);
}

}  // namespace

Verdict evaluate(const Policy& policy, const Destination& destination) {
  // An address is judged by network rules only and a name by FQDN rules only, so the order
  // "network before FQDN" is the choice of the list to walk. First rule that knows the
  // destination but not its port: worth saying when nothing matches.
  std::string near_miss;
  for (std::size_t c = 0; c < policy.collections.size(); ++c) {
    const Collection& collection = policy.collections[c];
    for (std::size_t r = 0; r < collection.rules.size(); ++r) {
      const Rule& rule = collection.rules[r];
      if (rule.is_network() != destination.address.has_value()) continue;
      const std::string target = target_match(rule, destination);
      if (target.empty()) continue;
      const std::string where = "collection '" + collection.name + "' (priority " +
                                std::to_string(collection.priority) + "), rule '" + rule.name + "'";
      if (!endpoint_matches(rule, destination)) {
        if (near_miss.empty())
          near_miss = "; " + where + " knows " + target + ", but not this port and protocol";
        continue;
      }
      Verdict verdict;
      verdict.rule = RuleRef{c, r};
      const bool allow = collection.action == Action::Allow;
      const bool audit = rule.mode == Mode::Audit;
      verdict.allowed = allow || audit;
      verdict.would_deny = audit;
      verdict.reason = where + (allow ? " allows " : " denies ") + target;
      if (audit)
        verdict.reason += allow ? "; the rule is in audit mode: it passes, and is recorded as what "
                                  "would be denied without the rule"
                                : "; the rule is in audit mode: it passes and is recorded";
      return verdict;
    }
  }
  Verdict verdict;
  const bool audit = policy.mode == Mode::Audit;
  verdict.allowed = audit;
  verdict.would_deny = audit;
  verdict.reason = "no rule matches " + describe(destination) + near_miss;
  if (destination.address)
    verdict.reason +=
        "; only network rules judge an address: which names it belongs to is known to the running "
        "agent alone";
  verdict.reason += audit ? "; mode audit lets it pass and records it" : "; denied by default";
  return verdict;
}

}  // namespace egressd::policy
