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

// Who reads DNS answers before the application does: Inline: the kernel; Proxy: the agent, which
// questions are redirected to, as long as it runs.
enum class DnsMode : std::uint8_t { Inline, Proxy };
// Of which questions there is a record.
enum class DnsLog : std::uint8_t { Denied, All };

struct DnsSettings {
  DnsMode mode = DnsMode::Inline;
  DnsLog log = DnsLog::Denied;
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

// What a verdict rests on. to_string() gives the word that records have for it.
enum class Basis : std::uint8_t {
  NetworkRule,
  FqdnRule,
  DenyRule,
  Loopback,        // always allowed
  Kernel,          // likewise: what a host says to its own link before it has an address
  Resolver,        // likewise: port 53 of dns.servers
  DefaultDeny,     // no rule knows the destination
  PortNotAllowed,  // rules know it, but not this port or protocol
  DnsServer        // a DNS port of something that is not among dns.servers
};
const char* to_string(Basis basis);

struct Verdict {
  bool allowed = false;     // what happens to the connection, mode applied
  bool would_deny = false;  // it passes only because of audit mode
  Basis basis = Basis::DefaultDeny;
  std::optional<RuleRef> rule;  // the rule that decided, if one did
  std::string reason;           // one sentence naming collection and rule, or why none matched
};

// The filter in force: what the file says, or what follows from its mode.
DnsFilter effective_filter(const Policy& policy);

// The reference semantics, independent of the kernel programs and checked against them:
//  1. loopback (0.0.0.0 and :: included, which connect() takes for it), DHCP and neighbour
//     discovery on the own link, and port 53 of dns.servers are allowed;
//  2. TCP and UDP to another server's DNS port, unless dns.filter is off: the first network rule
//     that decides is taken, without allow rules for more than exactly that port. If there is none,
//     filter allowlist denies (would-deny in audit mode), and filter audit goes on, but what is
//     allowed below is a would-deny;
//  3. network rules before FQDN rules; within each, collections by priority, then rules in file
//     order; the first match decides;
//  4. nothing matched: deny (would-deny in audit mode).
// A name is judged by FQDN rules only; an address by network rules only (which names an address
// belongs to, which addresses are the host's own and, where the policy has no dns.servers, which
// are those of resolv.conf is known to the running agent alone; the reason says so).
Verdict evaluate(const Policy& policy, const Destination& destination);

}  // namespace egressd::policy
