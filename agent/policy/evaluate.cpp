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

bool endpoint_matches(const Rule& rule, const Destination& destination, bool this_port_only) {
  const std::uint16_t port = has_ports(destination.protocol) ? destination.port : 0;
  return std::ranges::any_of(rule.protocols,
                             [&](net::Protocol p) { return protocol_matches(p, destination); }) &&
         std::ranges::any_of(rule.ports, [&](const net::PortRange& r) {
           return r.contains(port) && (!this_port_only || r.first == r.last);
         });
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

// 127.0.0.0/8, ::1 and the unspecified addresses.
bool reaches_loopback(const net::IpAddress& address) {
  if (address.is_loopback() || address == net::IpAddress{}) return true;
  return address == net::IpAddress::v4(0);
}

// To 255.255.255.255 and ff02::/16, which no router passes on.
bool is_housekeeping(const Destination& destination) {
  const net::IpAddress& address = *destination.address;
  const bool udp = destination.protocol == net::Protocol::Udp;
  if (address.is_v4())
    return udp && destination.port == 67 && address == net::IpAddress::v4(0xffffffff);
  const auto& bytes = address.bytes();
  if (bytes[0] != 0xff || bytes[1] != 0x02) return false;
  return destination.protocol == net::Protocol::Icmp ||
         destination.protocol == net::Protocol::Icmpv6 || (udp && destination.port == 547);
}

bool is_dns_port(const Destination& destination) {
  return (destination.protocol == net::Protocol::Tcp ||
          destination.protocol == net::Protocol::Udp) &&
         std::ranges::find(kDnsPorts, destination.port) != kDnsPorts.end();
}

std::optional<Verdict> always_allowed(const Policy& policy, const Destination& destination) {
  if (!destination.address) return std::nullopt;
  Verdict verdict;
  verdict.allowed = true;
  if (reaches_loopback(*destination.address)) {
    verdict.basis = Basis::Loopback;
    verdict.reason = "loopback is always allowed";
  } else if (is_housekeeping(destination)) {
    verdict.basis = Basis::Kernel;
    verdict.reason = "DHCP and neighbour discovery on the own link are always allowed";
  } else if (is_dns_port(destination) && destination.port == 53 &&
             std::ranges::find(policy.dns.servers, *destination.address) !=
                 policy.dns.servers.end()) {
    verdict.basis = Basis::Resolver;
    verdict.reason =
        "port 53 of a server in dns.servers is always allowed; which names may be asked there is "
        "for dns.filter to say";
  } else {
    return std::nullopt;
  }
  return verdict;
}

// Which rules are looked at: an allow rule for more than one port is not meant for DNS.
enum class Rules : std::uint8_t { All, MeantForDns };

// The verdict of the first rule that matches. `near_miss` gets the first rule that knows the
// destination, but not its port: worth saying when nothing matches.
std::optional<Verdict> first_match(const Policy& policy, const Destination& destination,
                                   Rules rules, std::string& near_miss) {
  // An address is judged by network rules only and a name by FQDN rules only, so the order
  // "network before FQDN" is the choice of the list to walk.
  for (std::size_t c = 0; c < policy.collections.size(); ++c) {
    const Collection& collection = policy.collections[c];
    const bool allow = collection.action == Action::Allow;
    for (std::size_t r = 0; r < collection.rules.size(); ++r) {
      const Rule& rule = collection.rules[r];
      if (rule.is_network() != destination.address.has_value()) continue;
      const std::string target = target_match(rule, destination);
      if (target.empty()) continue;
      const std::string where = "collection '" + collection.name + "' (priority " +
                                std::to_string(collection.priority) + "), rule '" + rule.name + "'";
      if (!endpoint_matches(rule, destination, allow && rules == Rules::MeantForDns)) {
        if (near_miss.empty())
          near_miss = "; " + where + " knows " + target + ", but not this port and protocol";
        continue;
      }
      Verdict verdict;
      verdict.rule = RuleRef{c, r};
      const bool audit = rule.mode == Mode::Audit;
      verdict.allowed = allow || audit;
      verdict.would_deny = audit;
      verdict.basis = !allow              ? Basis::DenyRule
                      : rule.is_network() ? Basis::NetworkRule
                                          : Basis::FqdnRule;
      verdict.reason = where + (allow ? " allows " : " denies ") + target;
      if (audit)
        verdict.reason += allow ? "; the rule is in audit mode: it passes, and is recorded as what "
                                  "would be denied without the rule"
                                : "; the rule is in audit mode: it passes and is recorded";
      return verdict;
    }
  }
  return std::nullopt;
}

std::string foreign_dns(const Policy& policy, const Destination& destination) {
  std::string out = describe(destination) +
                    " is DNS to something that is not in dns.servers; only a network rule for "
                    "exactly this port allows it, not a range, \"*\" or a rule for names";
  if (policy.dns.servers.empty() && destination.port == 53)
    out += "; the servers of /etc/resolv.conf are known to the running agent alone";
  return out;
}

// No rule decided.
Verdict denied(const Policy& policy, Basis basis, std::string reason) {
  Verdict verdict;
  const bool audit = policy.mode == Mode::Audit;
  verdict.allowed = audit;
  verdict.would_deny = audit;
  verdict.basis = basis;
  verdict.reason = std::move(reason);
  verdict.reason += audit                       ? "; mode audit lets it pass and records it"
                    : basis == Basis::DnsServer ? "; denied"
                                                : "; denied by default";
  return verdict;
}

}  // namespace

const char* to_string(Basis basis) {
  switch (basis) {
    case Basis::NetworkRule:
      return "network_rule";
    case Basis::FqdnRule:
      return "fqdn_rule";
    case Basis::DenyRule:
      return "deny_rule";
    case Basis::Loopback:
      return "loopback";
    case Basis::Kernel:
      return "kernel";
    case Basis::Resolver:
      return "resolver";
    case Basis::DefaultDeny:
      return "default_deny";
    case Basis::PortNotAllowed:
      return "port_not_allowed";
    case Basis::DnsServer:
      return "dns_server_not_allowed";
  }
  return "unknown";
}

DnsFilter effective_filter(const Policy& policy) {
  return policy.dns.filter.value_or(policy.mode == Mode::Enforce ? DnsFilter::Allowlist
                                                                 : DnsFilter::Audit);
}

Verdict evaluate(const Policy& policy, const Destination& destination) {
  if (auto verdict = always_allowed(policy, destination)) return std::move(*verdict);

  std::string near_miss;
  const DnsFilter filter = effective_filter(policy);
  const bool foreign = is_dns_port(destination) && filter != DnsFilter::Off;
  if (foreign) {
    if (destination.address)
      if (auto verdict = first_match(policy, destination, Rules::MeantForDns, near_miss))
        return std::move(*verdict);
    if (filter == DnsFilter::Allowlist)
      return denied(policy, Basis::DnsServer, foreign_dns(policy, destination));
  }
  near_miss.clear();
  if (auto verdict = first_match(policy, destination, Rules::All, near_miss)) {
    if (foreign && verdict->allowed) {
      verdict->would_deny = true;
      verdict->reason += "; but " + foreign_dns(policy, destination) +
                         "; dns.filter audit lets it pass and records it";
    }
    return std::move(*verdict);
  }
  if (foreign) return denied(policy, Basis::DnsServer, foreign_dns(policy, destination));
  std::string reason = "no rule matches " + describe(destination) + near_miss;
  if (destination.address)
    reason +=
        "; only network rules judge an address: which names it belongs to, and whether it is the "
        "host's own, is known to the running agent alone";
  return denied(policy, near_miss.empty() ? Basis::DefaultDeny : Basis::PortNotAllowed,
                std::move(reason));
}

}  // namespace egressd::policy
