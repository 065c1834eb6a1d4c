#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "net/endpoint.h"
#include "net/ip_address.h"
#include "net/prefix.h"
#include "policy/pattern.h"

namespace egressd::policy {

// Audit: what would be denied passes and is recorded. Enforce: it is denied and recorded.
enum class Mode : std::uint8_t { Audit, Enforce };
enum class Action : std::uint8_t { Allow, Deny };

// One rule: an FQDN rule (fqdns) or a network rule (prefixes), never both.
struct Rule {
  std::string name;
  std::vector<FqdnPattern> fqdns;
  std::vector<net::Prefix> prefixes;     // addresses and addressGroups, expanded, deduplicated
  std::vector<net::Protocol> protocols;  // FQDN rules: Tcp, Udp; network rules: any of them
  std::vector<net::PortRange> ports;     // never empty; {0,65535} for protocols without ports
  // Effective mode. Audit: whatever this rule matches passes and is recorded as would-deny, be it
  // an allow or a deny rule: a deny rule is tried before it bites, and an allow rule before it is
  // taken away. A deny rule inherits collection, then policy. An allow rule is Audit only where
  // the rule or its collection says so itself: what it allows is no denial under `mode: audit`.
  Mode mode = Mode::Enforce;
  // Rebinding guard opt-out: names of this rule may resolve to loopback, link-local, private,
  // ULA, CGNAT, multicast and metadata addresses (private endpoints need it).
  bool allow_private = false;
  std::string tag;  // name of the FQDN tag this rule was expanded from, else empty

  [[nodiscard]] bool is_network() const { return fqdns.empty(); }
};

struct Collection {
  std::string name;
  std::uint32_t priority = 0;  // 100..65000, lower is judged first, unique in a policy
  Action action = Action::Allow;
  std::vector<Rule> rules;
};

// Names are asked there, in the clear and over TLS: over TCP and UDP, an allowed name or range of
// ports does not open these ports (see evaluate()).
inline constexpr std::array<std::uint16_t, 2> kDnsPorts = {53, 853};

// What becomes of a DNS question for a name that no rule allows: Off: it leaves; Audit: it leaves
// and is recorded; Allowlist: it does not leave (the sender gets EPERM).
enum class DnsFilter : std::uint8_t { Off, Audit, Allowlist };

struct DnsSettings {
  std::vector<net::IpAddress> servers;  // empty: those of resolv.conf
  // Names to resolve ahead of use though only a wildcard covers them.
  std::vector<std::string> resolve;
  std::chrono::seconds grace{300};  // a learned address outlives its TTL by this much
  // Absent: Allowlist where the policy's mode is enforce, Audit where it is audit.
  std::optional<DnsFilter> filter;
  // Names below these may be asked (resolvers of pods append them to every name), but their
  // answers make nothing reachable. Those of resolv.conf are added by the agent.
  std::vector<std::string> search_domains;
};

// A validated policy. Collections are sorted by priority; everything refers to nothing outside.
struct Policy {
  int version = 1;
  Mode mode = Mode::Audit;
  DnsSettings dns;
  std::vector<Collection> collections;
};

// Address of one rule inside a Policy.
struct RuleRef {
  std::size_t collection = 0;
  std::size_t rule = 0;
  auto operator<=>(const RuleRef&) const = default;
};

// What a person asks about: a name or an address, with port and protocol.
struct Destination {
  std::string fqdn;  // canonical; empty if `address` is set
  std::optional<net::IpAddress> address;
  std::uint16_t port = 0;  // host byte order; 0 for protocols without ports
  net::Protocol protocol = net::Protocol::Tcp;
};

struct Verdict {
  bool allowed = false;         // what happens to the connection, mode applied
  bool would_deny = false;      // it passes only because of audit mode
  std::optional<RuleRef> rule;  // absent: no rule matched (default deny)
  std::string reason;           // one sentence naming collection and rule, or why none matched
};

// The reference semantics, independent of the kernel programs and checked against them:
//  1. network rules before FQDN rules; within each, collections by priority, then rules in file
//     order; the first match decides;
//  2. nothing matched: deny (would-deny in audit mode).
// A name is judged by FQDN rules only; an address by network rules only (which names an address
// belongs to is known to the running agent alone, and the reason says so).
Verdict evaluate(const Policy& policy, const Destination& destination);

}  // namespace egressd::policy
