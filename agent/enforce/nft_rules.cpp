#include "enforce/nft_rules.h"

#include <netinet/in.h>

#include <algorithm>
#include <utility>

namespace egressd::enforce {
namespace {

using net::Protocol;
using nft::Rule;
using Filter = RuleSet::Dns::Filter;

constexpr std::uint16_t kDns = 53;
constexpr std::uint16_t kDot = 853;
// More flows than that to an address are walked as rules.
constexpr std::size_t kMaxFlows = 8;

using Number = unsigned __int128;

Number number_of(const net::IpAddress& address) {
  Number n = 0;
  for (const std::uint8_t byte : address.bytes()) n = n << 8 | byte;
  return n;
}

net::IpAddress address_of(Number n) {
  net::IpAddress::Bytes bytes{};
  for (auto it = bytes.rbegin(); it != bytes.rend(); ++it, n >>= 8)
    *it = static_cast<std::uint8_t>(n & 0xff);
  return net::IpAddress(bytes);
}

bool has_ports(Protocol protocol) {
  switch (static_cast<int>(protocol)) {
    case IPPROTO_TCP:
    case IPPROTO_UDP:
    case IPPROTO_UDPLITE:
    case IPPROTO_SCTP:
    case IPPROTO_DCCP:
      return true;
    default:
      return false;
  }
}

bool is_icmp(Protocol protocol) {
  return protocol == Protocol::Icmp || protocol == Protocol::Icmpv6;
}

// Whether it can match TCP or UDP to port 53 or 853 at all; `narrow`: as EGRESSD_NARROW has it.
bool concerns_dns(const RuleEntry& entry, bool narrow) {
  if (entry.protocol != Protocol::Any && entry.protocol != Protocol::Tcp &&
      entry.protocol != Protocol::Udp)
    return false;
  if (!entry.ports.contains(kDns) && !entry.ports.contains(kDot)) return false;
  return !narrow || entry.action == Action::Deny || entry.ports.first == entry.ports.last;
}

// The start of a rule: protocol and port of the entry. None if no packet can match it.
std::optional<Rule> match(const RuleEntry& entry) {
  Rule rule;
  const bool all_ports = entry.ports.is_all();
  if (entry.protocol == Protocol::Any) {
    if (all_ports) return rule;
    return std::move(rule).protocol_in("ported").port(entry.ports.first, entry.ports.last);
  }
  if (!has_ports(entry.protocol)) {
    // Packets without ports have port 0.
    if (entry.ports.first != 0) return std::nullopt;
    if (is_icmp(entry.protocol)) return std::move(rule).protocol_in("icmps");
    return std::move(rule).protocol(entry.protocol);
  }
  rule = std::move(rule).protocol(entry.protocol);
  if (all_ports) return rule;
  return std::move(rule).port(entry.ports.first, entry.ports.last);
}

std::string numbered(const char* name, std::uint32_t list) {
  return std::string(name) + std::to_string(list);
}

// None if the list is not that simple.
std::optional<std::vector<std::pair<Protocol, std::uint16_t>>> flows_of(const RuleList& list) {
  std::vector<std::pair<Protocol, std::uint16_t>> flows;
  for (const RuleEntry& entry : list) {
    if (entry.action != Action::Allow || entry.audit || entry.ports.first != entry.ports.last)
      return std::nullopt;
    if (entry.protocol != Protocol::Tcp && entry.protocol != Protocol::Udp) return std::nullopt;
    flows.emplace_back(entry.protocol, entry.ports.first);
  }
  std::ranges::sort(flows);
  const auto repeated = std::ranges::unique(flows);
  flows.erase(repeated.begin(), repeated.end());
  if (flows.size() > kMaxFlows) return std::nullopt;
  return flows;
}

}  // namespace

std::vector<AddressRange> flatten(
    const std::vector<std::pair<net::Prefix, std::uint32_t>>& prefixes, bool v4) {
  struct Block {
    Number first;
    Number last;
    std::uint32_t list;
  };
  std::vector<Block> blocks;
  for (const auto& [prefix, list] : prefixes) {
    if (prefix.address().is_v4() != v4) continue;
    const Number first = number_of(prefix.address());
    const int host_bits = 128 - prefix.mapped_length();
    const Number below = host_bits == 128 ? ~Number{0} : (Number{1} << host_bits) - 1;
    blocks.push_back({first, first | below, list});
  }
  // A block comes before those within it.
  std::ranges::sort(blocks, [](const Block& a, const Block& b) {
    return a.first != b.first ? a.first < b.first : a.last > b.last;
  });

  std::vector<AddressRange> ranges;
  const auto put = [&](Number first, Number last, std::uint32_t list) {
    if (!ranges.empty() && ranges.back().list == list &&
        number_of(ranges.back().last) + 1 == first) {
      ranges.back().last = address_of(last);
      return;
    }
    ranges.push_back({address_of(first), address_of(last), list});
  };
  std::vector<Block> open;  // each within the one before
  Number next = 0;          // what of the innermost one has not been put yet begins here
  const auto close = [&] {
    const Block& inner = open.back();
    const bool anything = next <= inner.last && next >= inner.first;
    if (anything) put(next, inner.last, inner.list);
    const Number last = inner.last;
    open.pop_back();
    if (anything) next = last + 1;  // 0 after the last address of all: nothing is left then
    return last != ~Number{0};
  };
  for (const Block& block : blocks) {
    while (!open.empty() && open.back().last < block.first) close();
    if (!open.empty() && next < block.first) put(next, block.first - 1, open.back().list);
    open.push_back(block);
    next = block.first;
  }
  while (!open.empty() && close()) {
  }
  return ranges;
}

void add_ranges(nft::Batch& batch, const nft::Set& set, const std::vector<AddressRange>& ranges,
                const std::function<std::string(std::uint32_t list)>& chain_of) {
  for (const AddressRange& range : ranges) {
    const std::string chain = chain_of(range.list);
    batch.add_element(set, {.key = nft::KeyBytes::of(range.first).bytes(), .chain = chain});
    const Number behind = number_of(range.last) + 1;
    const net::IpAddress end = address_of(behind);
    // Behind the last address there is nothing to end it.
    if (behind == 0 || end.is_v4() != range.first.is_v4()) continue;
    batch.add_element(set, {.key = nft::KeyBytes::of(end).bytes(), .end = true});
  }
}

NftRules::NftRules(const RuleSet& rules) : rules_(rules) {
  chains_ = {"judge",         "answer",         "kernel",        "rules",     "with_rules",
             "without_rules", "names",          "deny_default",  "deny_port", "deny_expired",
             "deny_dns",      "deny_malformed", "deny_fragment", "refuse",    "questions",
             "question",      "deny_question",  "deny_stranger"};
  if (rules.dns.filter == Filter::Audit) chains_.insert({"pass_network_rule", "pass_fqdn_rule"});
  for (const auto& [prefix, list] : rules.prefixes) network_lists_.insert(list);
  for (const std::uint32_t list : network_lists_) {
    chains_.insert(numbered("network_", list));
    if (rules.dns.filter != Filter::Off) chains_.insert(numbered("network_dns_", list));
  }
  for (const RuleSet::Name& name : rules.names) {
    NameForm form;
    if (auto flows = flows_of(rules.lists[name.list])) {
      form.flows = std::move(*flows);
    } else {
      form.list = name.list;
      listed_.insert(name.list);
    }
    forms_.emplace(name.name_id, std::move(form));
  }
  for (const std::uint32_t list : listed_) {
    chains_.insert(numbered("name_allow_", list));
    chains_.insert(numbered("name_deny_", list));
  }
}

nft::Set NftRules::listed_set(bool v4, std::uint32_t list, std::uint32_t max_learned) {
  nft::Set set = frame::known(v4, max_learned);
  set.name = numbered(v4 ? "listed4_" : "listed6_", list);
  return set;
}

std::string NftRules::prefix(std::uint32_t verdict, std::uint32_t reason,
                             std::uint32_t rule) const {
  return frame::log_prefix(verdict, reason, rule, rules_.generation);
}

void NftRules::add_to(nft::Batch& batch) const {
  add_questions(batch);
  add_judge(batch);
  add_rules(batch);
  for (const std::uint32_t list : network_lists_) add_network_list(batch, list);
  add_names(batch);
  for (const std::uint32_t list : listed_) add_name_list(batch, list);
  add_endings(batch);
  for (const bool v4 : {true, false}) add_networks(batch, v4);
  for (const net::IpAddress& resolver : rules_.dns.resolvers)
    batch.add_element(frame::resolvers(resolver.is_v4()),
                      {.key = nft::KeyBytes::of(resolver).bytes()});
}

// DNS goes to the forwarder (nft/redirect.h), which judges names. What is on its way there has
// another destination by now, but still the interface it was to leave by. What was not led there,
// as when no agent runs, would be neither judged nor learned from.
void NftRules::add_questions(nft::Batch& batch) const {
  if (!rules_.dns.forwarder) return;
  batch.add_rule("questions",
                 Rule().to_prefix4(INADDR_LOOPBACK).redirected().counter("loopback").accept());
  batch.add_rule("questions",
                 Rule().to_prefix6("::1", 16).redirected().counter("loopback").accept());
  if (rules_.dns.filter != Filter::Enforce) return;
  batch.add_rule("questions", Rule().protocol_in("tcpudp").port(kDns, kDns).jump("question"));
  batch.add_rule("question",
                 Rule().mark(rules_.dns.forwarder->mark).user(rules_.dns.forwarder->uid).back());
  frame::each_family("resolvers", [&](bool v4, const std::string& set) {
    batch.add_rule("question", Rule().address_in(v4, false, set).go_to("deny_question"));
  });
}

// What leaves this host, before its rules are looked at.
void NftRules::add_judge(nft::Batch& batch) const {
  // A socket may carry the address of another. Over loopback that would be a question from outside
  // for conntrack, and what is said in the name of another is no answer of ours. The kernel does so
  // itself, to reset a connection in the name of its peer.
  batch.add_rule("judge",
                 Rule().oif_loopback().source_is_local(false).has_user().go_to("deny_stranger"));
  batch.add_rule("judge", Rule().reply_direction().source_is_local(true).jump("answer"));
  batch.add_rule("judge", Rule().has_user().go_to("rules"));
  batch.add_rule("judge", Rule().jump("kernel"));
  batch.add_rule("judge", Rule().go_to("rules"));

  // The other side began. A packet that opens a connection answers nothing, whatever conntrack has
  // seen before.
  batch.add_rule("answer", Rule().opening().back());
  frame::each_family("ours", [&](bool v4, const std::string& set) {
    batch.add_rule("answer", Rule().source_flow_in(v4, set).back());
  });
  batch.add_rule("answer", Rule().counter("inbound").accept());

  // Sockets without a user: RST, ICMP errors, neighbour discovery, IGMP. Also those a process has
  // closed, which are judged like any other.
  batch.add_rule("kernel", Rule().reset().counter("kernel").accept());
  batch.add_rule("kernel", Rule().protocol_in("ported").back());
  batch.add_rule("kernel", Rule().counter("kernel").accept());
}

// The precedence of bpf/decide.h.
void NftRules::add_rules(nft::Batch& batch) const {
  const char* chain = "rules";
  // Conntrack puts fragments together before they get here. No options, no routing headers: they
  // hide the real destination. A mapped address is never on a wire.
  batch.add_rule(chain, Rule().ip_options().go_to("deny_malformed"));
  batch.add_rule(chain, Rule().ip_fragment().go_to("deny_fragment"));
  batch.add_rule(chain, Rule().extension(IPPROTO_ROUTING).go_to("deny_malformed"));
  batch.add_rule(chain, Rule().extension(IPPROTO_FRAGMENT).go_to("deny_fragment"));
  batch.add_rule(chain, Rule().to_prefix6("::ffff:0.0.0.0", 12).go_to("deny_malformed"));

  // 2. link housekeeping
  batch.add_rule(chain, Rule()
                            .to_prefix4(0xffffffff)
                            .protocol(Protocol::Udp)
                            .port(67, 67)
                            .counter("kernel")
                            .accept());
  batch.add_rule(
      chain, Rule().to_prefix6("ff02::", 2).protocol(Protocol::Icmpv6).counter("kernel").accept());
  batch.add_rule(chain, Rule()
                            .to_prefix6("ff02::", 2)
                            .protocol(Protocol::Udp)
                            .port(547, 547)
                            .counter("kernel")
                            .accept());
  // 3. port 53 of a trusted resolver
  frame::each_family("resolvers", [&](bool v4, const std::string& set) {
    batch.add_rule(chain, Rule()
                              .protocol_in("tcpudp")
                              .port(kDns, kDns)
                              .address_in(v4, false, set)
                              .counter("resolver")
                              .accept());
  });
  // 4., 5. network rules: each range goes to the chain of its list
  frame::each_family("networks", [&](bool v4, const std::string& map) {
    batch.add_rule(chain, Rule().to_chain_of(v4, map));
  });
  batch.add_rule(chain, Rule().go_to("without_rules"));

  // No network rule knows the address.
  if (rules_.dns.filter == Filter::Enforce)
    batch.add_rule("without_rules",
                   Rule().protocol_in("tcpudp").port_in("dns_ports").go_to("deny_dns"));
  batch.add_rule("without_rules", Rule().jump("names"));
  frame::each_family("known", [&](bool v4, const std::string& set) {
    batch.add_rule("without_rules",
                   Rule().protocol_in("tcpudp").address_in(v4, false, set).go_to("deny_port"));
  });
  frame::each_family("seen", [&](bool v4, const std::string& set) {
    batch.add_rule("without_rules",
                   Rule().protocol_in("tcpudp").address_in(v4, false, set).go_to("deny_expired"));
  });
  batch.add_rule("without_rules", Rule().go_to("deny_default"));

  // One does, but not the port.
  batch.add_rule("with_rules", Rule().jump("names"));
  batch.add_rule("with_rules", Rule().go_to("deny_port"));
}

// 6. what names grant: TCP and UDP. If any name allows it, it is allowed; else one may refuse it.
void NftRules::add_names(nft::Batch& batch) const {
  batch.add_rule("names", Rule().protocol_in("tcpudp", true).back());
  frame::each_family("allow", [&](bool v4, const std::string& set) {
    Rule rule = Rule().flow_in(v4, set);
    batch.add_rule("names", rules_.dns.filter == Filter::Audit
                                ? std::move(rule).go_to("pass_fqdn_rule")
                                : std::move(rule).counter("fqdn_rule").accept());
  });
  for (const char* chain : {"name_allow_", "name_deny_"}) {
    for (const std::uint32_t list : listed_) {
      for (const bool v4 : {true, false})
        batch.add_rule(
            "names",
            Rule().address_in(v4, false, listed_set(v4, list, 0).name).jump(numbered(chain, list)));
    }
  }
  if (rules_.dns.filter == Filter::Audit)
    batch.add_rule("names", Rule().port_in("dns_ports").go_to("deny_dns"));
}

void NftRules::add_entry(nft::Batch& batch, const std::string& chain, const RuleEntry& entry,
                         std::uint32_t allow_reason, bool narrow) const {
  auto rule = match(entry);
  if (!rule) return;
  if (entry.action == Action::Deny) {
    if (entry.audit)
      batch.add_rule(chain, std::move(*rule)
                                .counter("audit")
                                .log(prefix(EGRESSD_ACTION_ALLOW, EGRESSD_DENY_RULE, entry.rule_id),
                                     frame::kLogGroup, frame::kSnaplen)
                                .accept());
    else
      batch.add_rule(chain, std::move(*rule)
                                .counter("deny_rule")
                                .log(prefix(EGRESSD_ACTION_DENY, EGRESSD_DENY_RULE, entry.rule_id),
                                     frame::kLogGroup, frame::kSnaplen)
                                .go_to("refuse"));
    return;
  }
  const char* counter = frame::counter_name(allow_reason);
  if (entry.audit) {
    // As if the rule were not there: that is what auditing an allow rule shows.
    batch.add_rule(chain,
                   std::move(*rule)
                       .counter(counter)
                       .log(prefix(EGRESSD_ACTION_ALLOW, EGRESSD_DENY_DEFAULT, entry.rule_id),
                            frame::kLogGroup, frame::kSnaplen)
                       .accept());
  } else if (rules_.dns.filter == Filter::Audit && !narrow) {
    batch.add_rule(chain, std::move(*rule).go_to(std::string("pass_") + counter));
  } else {
    batch.add_rule(chain, std::move(*rule).counter(counter).accept());
  }
}

void NftRules::add_network_list(nft::Batch& batch, std::uint32_t list) const {
  const std::string chain = numbered("network_", list);
  if (rules_.dns.filter != Filter::Off) {
    // Port 53 and 853 of no resolver: only rules for exactly that port count, and refusals.
    const std::string dns = numbered("network_dns_", list);
    Rule rule = Rule().protocol_in("tcpudp").port_in("dns_ports");
    batch.add_rule(chain, rules_.dns.filter == Filter::Enforce ? std::move(rule).go_to(dns)
                                                               : std::move(rule).jump(dns));
    for (const RuleEntry& entry : rules_.lists[list]) {
      if (concerns_dns(entry, true)) add_entry(batch, dns, entry, EGRESSD_ALLOW_NETWORK_RULE, true);
    }
    if (rules_.dns.filter == Filter::Enforce) batch.add_rule(dns, Rule().go_to("deny_dns"));
  }
  for (const RuleEntry& entry : rules_.lists[list])
    add_entry(batch, chain, entry, EGRESSD_ALLOW_NETWORK_RULE, false);
  batch.add_rule(chain, Rule().go_to("with_rules"));
}

// The first entry that matches decides; what it refuses waits until no other name allows it.
void NftRules::add_name_list(nft::Batch& batch, std::uint32_t list) const {
  for (const RuleEntry& entry : rules_.lists[list]) {
    if (entry.action == Action::Allow) {
      add_entry(batch, numbered("name_allow_", list), entry, EGRESSD_ALLOW_FQDN_RULE, false);
    } else {
      if (auto rule = match(entry))
        batch.add_rule(numbered("name_allow_", list), std::move(*rule).back());
      add_entry(batch, numbered("name_deny_", list), entry, EGRESSD_ALLOW_FQDN_RULE, false);
    }
  }
}

void NftRules::add_denial(nft::Batch& batch, const char* chain, std::uint32_t reason, bool enforce,
                          bool answer) const {
  // What cannot be read has no ports to be known by.
  if (reason != EGRESSD_DENY_MALFORMED && reason != EGRESSD_DENY_FRAGMENT)
    frame::each_family("accepted", [&](bool v4, const std::string& set) {
      batch.add_rule(chain, Rule().source_flow_in(v4, set).counter("inbound").accept());
    });
  if (enforce) {
    Rule rule = Rule()
                    .counter(frame::counter_name(reason))
                    .log(prefix(EGRESSD_ACTION_DENY, reason), frame::kLogGroup, frame::kSnaplen);
    batch.add_rule(chain, answer ? std::move(rule).go_to("refuse") : std::move(rule).drop());
  } else {
    batch.add_rule(chain,
                   Rule()
                       .counter("audit")
                       .log(prefix(EGRESSD_ACTION_ALLOW, reason), frame::kLogGroup, frame::kSnaplen)
                       .accept());
  }
}

void NftRules::add_endings(nft::Batch& batch) const {
  if (rules_.dns.filter == Filter::Audit) {
    for (const char* counter : {"network_rule", "fqdn_rule"}) {
      const std::string chain = std::string("pass_") + counter;
      batch.add_rule(chain, Rule()
                                .protocol_in("tcpudp")
                                .port_in("dns_ports")
                                .counter(counter)
                                .log(prefix(EGRESSD_ACTION_ALLOW, EGRESSD_DENY_DNS_SERVER),
                                     frame::kLogGroup, frame::kSnaplen)
                                .accept());
      batch.add_rule(chain, Rule().counter(counter).accept());
    }
  }
  add_denial(batch, "deny_default", EGRESSD_DENY_DEFAULT, rules_.enforce);
  // A reset would go to the address of the stranger: out, with ports of the sender's choice.
  add_denial(batch, "deny_stranger", EGRESSD_DENY_DEFAULT, rules_.enforce, false);
  add_denial(batch, "deny_port", EGRESSD_DENY_PORT, rules_.enforce);
  add_denial(batch, "deny_expired", EGRESSD_DENY_EXPIRED, rules_.enforce);
  add_denial(batch, "deny_dns", EGRESSD_DENY_DNS_SERVER, rules_.enforce);
  add_denial(batch, "deny_question", EGRESSD_DENY_DNS_NAME, true);
  add_denial(batch, "deny_malformed", EGRESSD_DENY_MALFORMED, true);
  add_denial(batch, "deny_fragment", EGRESSD_DENY_FRAGMENT, true);

  // connect() comes back at once with ECONNREFUSED; a SYN that is dropped is sent again and again.
  // Anything else that is dropped on its way out makes its system call fail with EPERM, while an
  // ICMP error would come after it has succeeded. What is forwarded has no call to fail.
  batch.add_rule("refuse", Rule().reject_tcp_reset());
  batch.add_rule("refuse", Rule().from_outside().reject_prohibited());
  batch.add_rule("refuse", Rule().drop());
}

void NftRules::add_networks(nft::Batch& batch, bool v4) const {
  add_ranges(batch, frame::networks(v4), flatten(rules_.prefixes, v4),
             [](std::uint32_t list) { return numbered("network_", list); });
}

}  // namespace egressd::enforce
