#include "enforce/nft_frame.h"

#include <algorithm>
#include <array>

namespace egressd::enforce::frame {
namespace {

using nft::Key;
using nft::Set;

constexpr std::array<std::pair<std::uint32_t, const char*>, 15> kCounters{{
    {EGRESSD_ALLOW_NETWORK_RULE, "network_rule"},
    {EGRESSD_ALLOW_FQDN_RULE, "fqdn_rule"},
    {EGRESSD_ALLOW_LOOPBACK, "loopback"},
    {EGRESSD_ALLOW_RESOLVER, "resolver"},
    {EGRESSD_ALLOW_INBOUND, "inbound"},
    {EGRESSD_ALLOW_KERNEL, "kernel"},
    {EGRESSD_ALLOW_AUDIT, "audit"},
    {EGRESSD_DENY_DEFAULT, "default_deny"},
    {EGRESSD_DENY_PORT, "port_not_allowed"},
    {EGRESSD_DENY_RULE, "deny_rule"},
    {EGRESSD_DENY_EXPIRED, "expired"},
    {EGRESSD_DENY_MALFORMED, "malformed"},
    {EGRESSD_DENY_FRAGMENT, "fragment"},
    {EGRESSD_DENY_DNS_NAME, "dns_name_not_allowed"},
    {EGRESSD_DENY_DNS_SERVER, "dns_server_not_allowed"},
}};

// Connections that were there before; conntrack forgets its own after five days.
constexpr std::uint32_t kOldConnections = 65536;
// An address can be allowed by several protocols and ports.
constexpr std::uint32_t kFlowsPerAddress = 4;

Key address_key(bool v4) { return v4 ? Key::Ipv4 : Key::Ipv6; }
Key flow_key(bool v4) { return v4 ? Key::Flow4 : Key::Flow6; }
std::string of_family(const char* name, bool v4) { return std::string(name) + (v4 ? "4" : "6"); }

void add_members(nft::Batch& batch, const Set& set, std::initializer_list<nft::KeyBytes> keys) {
  batch.add_set(set);
  for (const nft::KeyBytes& key : keys) batch.add_element(set, {.key = key.bytes()});
}

}  // namespace

std::span<const std::pair<std::uint32_t, const char*>> counters() { return kCounters; }

const char* counter_name(std::uint32_t reason) {
  const auto* it =
      std::ranges::find(kCounters, reason, &std::pair<std::uint32_t, const char*>::first);
  return it == kCounters.end() ? "default_deny" : it->second;
}

Set local(bool v4) {
  return {.name = of_family("local", v4), .key = address_key(v4), .interval = true};
}
Set resolvers(bool v4) { return {.name = of_family("resolvers", v4), .key = address_key(v4)}; }
Set networks(bool v4) {
  return {.name = of_family("networks", v4),
          .key = address_key(v4),
          .interval = true,
          .verdicts = true};
}
Set accepted(bool v4) {
  return {.name = of_family("accepted", v4),
          .key = flow_key(v4),
          .timeout = true,
          .size = kOldConnections};
}
Set ours(bool v4) {
  return {
      .name = of_family("ours", v4), .key = flow_key(v4), .timeout = true, .size = kOldConnections};
}
Set allow(bool v4, std::uint32_t max_learned) {
  return {.name = of_family("allow", v4),
          .key = flow_key(v4),
          .timeout = true,
          .size = max_learned * kFlowsPerAddress};
}
Set known(bool v4, std::uint32_t max_learned) {
  return {
      .name = of_family("known", v4), .key = address_key(v4), .timeout = true, .size = max_learned};
}
Set seen(bool v4, std::uint32_t max_learned) {
  return {.name = of_family("seen", v4), .key = address_key(v4), .size = max_learned};
}
Set uplinks() { return {.name = "uplinks", .key = Key::Interface}; }
Set generation() { return {.name = "generation", .key = Key::Mark}; }
Set names() { return {.name = "names", .key = Key::Mark}; }

std::string log_prefix(std::uint32_t verdict, std::uint32_t reason, std::uint32_t rule,
                       std::uint32_t generation) {
  return std::string(generation == 0 ? "egressd-boot:" : "egressd:") + std::to_string(verdict) +
         ":" + std::to_string(reason) + ":" +
         (rule == EGRESSD_NO_RULE ? "" : std::to_string(rule)) + ":" + std::to_string(generation) +
         ":";
}

void add_table(nft::Batch& batch, std::uint32_t max_learned) {
  using net::Protocol;
  using nft::KeyBytes;
  batch.add_table();
  for (const auto& [reason, name] : kCounters) batch.add_counter(name);
  // Those whose first four bytes are two ports.
  add_members(batch, {.name = "ported", .key = Key::Protocol},
              {KeyBytes::of(Protocol::Tcp), KeyBytes::of(Protocol::Udp), KeyBytes::of(Protocol{33}),
               KeyBytes::of(Protocol::Sctp), KeyBytes::of(Protocol{136})});
  add_members(batch, {.name = "tcpudp", .key = Key::Protocol},
              {KeyBytes::of(Protocol::Tcp), KeyBytes::of(Protocol::Udp)});
  add_members(batch, {.name = "icmps", .key = Key::Protocol},
              {KeyBytes::of(Protocol::Icmp), KeyBytes::of(Protocol::Icmpv6)});
  add_members(batch, {.name = "dns_ports", .key = Key::Port},
              {KeyBytes::port(53), KeyBytes::port(853)});
  batch.add_set(uplinks());
  batch.add_set(generation());
  batch.add_set(names());
  for (const bool v4 : {true, false}) {
    for (const Set& set : {local(v4), resolvers(v4), networks(v4), accepted(v4), ours(v4),
                           allow(v4, max_learned), known(v4, max_learned), seen(v4, max_learned)})
      batch.add_set(set);
  }
}

void add_hooks(nft::Batch& batch, const Scope& scope) {
  using Hook = nft::Chain::Hook;
  batch.add_chain({.name = kOutput, .hook = Hook::Output, .drop = scope.whole_host});
  if (scope.whole_host) batch.add_chain({.name = kForward, .hook = Hook::Forward, .drop = true});
}

void add_hook_rules(nft::Batch& batch, const Scope& scope) {
  using nft::Rule;
  // DNS before loopback: a resolver on this host asks others.
  batch.add_rule(kOutput, scope.whole_host
                              ? Rule().jump("questions")
                              : Rule().cgroup(scope.level, scope.cgroup_id).jump("questions"));
  // From the host to itself. The source counts as well: a socket may carry any.
  each_family("local", [&](bool v4, const std::string& set) {
    batch.add_rule(kOutput, Rule()
                                .oif_loopback()
                                .address_in(v4, true, set)
                                .address_in(v4, false, set)
                                .counter("loopback")
                                .accept());
  });
  if (scope.whole_host) {
    batch.add_rule(kOutput, Rule().jump("judge"));
    // What comes in is nobody's egress. It cannot be sent from a pod: that comes in by the pod's
    // interface.
    batch.add_rule(kForward, Rule().came_in_by(uplinks().name).counter("inbound").accept());
    batch.add_rule(kForward, Rule().reply_direction().source_is_that_way().jump("answer"));
    batch.add_rule(kForward, Rule().jump("rules"));
    return;
  }
  batch.add_rule(kOutput, Rule().cgroup(scope.level, scope.cgroup_id).jump("judge"));
  // Nothing comes back from there but what met a change of the rules half way.
  batch.add_rule(kOutput, Rule().cgroup(scope.level, scope.cgroup_id).drop());
}

}  // namespace egressd::enforce::frame
