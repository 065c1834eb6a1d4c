#include <gmock/gmock.h>

#include "policy/parser.h"

namespace egressd::policy {
namespace {

using testing::HasSubstr;

Policy policy(const std::string& text) {
  auto parsed = parse_policy("version: 1\n" + text, "t.yaml", TagCatalog::builtin());
  if (!parsed) {
    for (const Diagnostic& d : parsed.error()) ADD_FAILURE() << d.to_string();
    return {};
  }
  return parsed->policy;
}

Destination name(std::string fqdn, std::uint16_t port,
                 net::Protocol protocol = net::Protocol::Tcp) {
  return {std::move(fqdn), std::nullopt, port, protocol};
}

Destination address(std::string_view text, std::uint16_t port,
                    net::Protocol protocol = net::Protocol::Tcp) {
  return {"", net::IpAddress::parse(text), port, protocol};
}

const char kRules[] =
    "collections:\n"
    "  - name: wide\n"
    "    priority: 300\n"
    "    action: allow\n"
    "    rules:\n"
    "      - {name: sub, fqdns: ['*.contoso.com'], ports: [443, '8000-8010']}\n"
    "      - {name: lan, addresses: [10.0.0.0/8, '2001:db8::/32'], ports: ['*'], protocols: [tcp, "
    "icmp]}\n"
    "      - {name: esp, addresses: [192.0.2.0/24], protocols: [50]}\n"
    "      - {name: any, addresses: [198.51.100.0/24], protocols: [any]}\n"
    "  - name: narrow\n"
    "    priority: 200\n"
    "    action: deny\n"
    "    rules:\n"
    "      - {name: bad, fqdns: [bad.contoso.com], ports: ['*'], protocols: [any]}\n"
    "      - {name: host, addresses: [10.1.2.3], ports: [22], protocols: [tcp]}\n";

TEST(Evaluate, UnknownNamesAndAddressesAreDenied) {
  const Policy p = policy(std::string("mode: enforce\n") + kRules);
  Verdict v = evaluate(p, name("example.org", 443));
  EXPECT_FALSE(v.allowed);
  EXPECT_FALSE(v.would_deny);
  EXPECT_FALSE(v.rule);
  EXPECT_THAT(v.reason, HasSubstr("denied by default"));
  v = evaluate(p, address("203.0.113.1", 443));
  EXPECT_FALSE(v.allowed);
  EXPECT_THAT(v.reason, HasSubstr("running agent"));
  Policy empty;
  empty.mode = Mode::Enforce;
  EXPECT_FALSE(evaluate(empty, name("a.b", 1)).allowed);
}

TEST(Evaluate, LowerPriorityNumberDecidesWhateverTheFileOrder) {
  const Policy p = policy(std::string("mode: enforce\n") + kRules);
  EXPECT_TRUE(evaluate(p, name("good.contoso.com", 443)).allowed);
  const Verdict denied = evaluate(p, name("bad.contoso.com", 443));
  EXPECT_FALSE(denied.allowed);
  ASSERT_TRUE(denied.rule);
  EXPECT_EQ(p.collections[denied.rule->collection].name, "narrow");
  EXPECT_THAT(denied.reason, testing::AllOf(HasSubstr("'narrow'"), HasSubstr("'bad'")));
  EXPECT_FALSE(evaluate(p, address("10.1.2.3", 22)).allowed);
  EXPECT_TRUE(evaluate(p, address("10.1.2.3", 23)).allowed);
}

TEST(Evaluate, PortAndProtocolMustMatchToo) {
  const Policy p = policy(std::string("mode: enforce\n") + kRules);
  EXPECT_TRUE(evaluate(p, name("a.contoso.com", 8010)).allowed);
  const Verdict v = evaluate(p, name("a.contoso.com", 8011));
  EXPECT_FALSE(v.allowed);
  EXPECT_THAT(v.reason, HasSubstr("but not this port"));
  EXPECT_FALSE(evaluate(p, name("a.contoso.com", 443, net::Protocol::Udp)).allowed);
  EXPECT_FALSE(evaluate(p, address("10.0.0.1", 443, net::Protocol::Udp)).allowed);
}

TEST(Evaluate, ProtocolsWithoutPortsNeedNoPort) {
  const Policy p = policy(std::string("mode: enforce\n") + kRules);
  EXPECT_TRUE(evaluate(p, address("10.0.0.1", 0, net::Protocol::Icmp)).allowed);
  EXPECT_TRUE(evaluate(p, address("2001:db8::1", 0, net::Protocol::Icmpv6)).allowed);
  EXPECT_TRUE(evaluate(p, address("192.0.2.9", 0, net::Protocol{50})).allowed);
  EXPECT_FALSE(evaluate(p, address("192.0.2.9", 0, net::Protocol{51})).allowed);
  EXPECT_FALSE(evaluate(p, address("192.0.2.9", 443)).allowed);
  EXPECT_TRUE(evaluate(p, address("198.51.100.1", 0, net::Protocol{47})).allowed);
  EXPECT_TRUE(evaluate(p, address("198.51.100.1", 54, net::Protocol::Udp)).allowed);
}

TEST(Evaluate, NamesAreNotJudgedByNetworkRulesNorAddressesByNames) {
  const Policy p = policy(
      "mode: enforce\ncollections:\n  - {name: a, priority: 100, action: deny, rules: [{name: all, "
      "addresses: [0.0.0.0/0], ports: '*', protocols: any}]}\n"
      "  - {name: b, priority: 200, action: allow, rules: [{name: n, fqdns: [a.example], ports: "
      "443}]}\n");
  EXPECT_TRUE(evaluate(p, name("a.example", 443)).allowed);
  EXPECT_FALSE(evaluate(p, address("192.0.2.1", 443)).allowed);
}

TEST(Evaluate, AuditModeLetsPassAndSaysSo) {
  const Policy p = policy(std::string("mode: audit\n") + kRules);
  Verdict v = evaluate(p, name("example.org", 443));
  EXPECT_TRUE(v.allowed);
  EXPECT_TRUE(v.would_deny);
  // A deny rule inherits it, an allow rule does not become a would-be denial.
  v = evaluate(p, name("bad.contoso.com", 443));
  EXPECT_TRUE(v.allowed);
  EXPECT_TRUE(v.would_deny);
  v = evaluate(p, name("good.contoso.com", 443));
  EXPECT_TRUE(v.allowed);
  EXPECT_FALSE(v.would_deny);
}

TEST(Evaluate, ModeOfRuleGoesBeforeCollectionBeforePolicy) {
  const Policy p = policy(
      "mode: audit\ncollections:\n"
      "  - name: a\n    priority: 100\n    action: deny\n    mode: enforce\n    rules:\n"
      "      - {name: hard, fqdns: [hard.example], ports: '*'}\n"
      "      - {name: soft, fqdns: [soft.example], ports: '*', mode: audit}\n"
      "  - name: b\n    priority: 200\n    action: allow\n    mode: audit\n    rules:\n"
      "      - {name: trial, fqdns: [trial.example], ports: '*'}\n"
      "      - {name: kept, fqdns: [kept.example], ports: '*', mode: enforce}\n");
  EXPECT_FALSE(evaluate(p, name("hard.example", 1)).allowed);
  EXPECT_TRUE(evaluate(p, name("soft.example", 1)).would_deny);
  const Verdict trial = evaluate(p, name("trial.example", 1));
  EXPECT_TRUE(trial.allowed);
  EXPECT_TRUE(trial.would_deny);
  EXPECT_FALSE(evaluate(p, name("kept.example", 1)).would_deny);
}

TEST(Evaluate, UserDenyGoesBeforeTags) {
  const Policy p = policy(
      "mode: enforce\ntags: [AzureMachineLearning-2020]\ncollections:\n"
      "  - {name: no, priority: 64999, action: deny, rules: [{name: x, fqdns: [ml.azure.com], "
      "ports: '*', protocols: any}]}\n");
  EXPECT_FALSE(evaluate(p, name("ml.azure.com", 443)).allowed);
  EXPECT_TRUE(evaluate(p, name("w.workspace.eastus.api.azureml.ms", 443)).allowed);
  EXPECT_TRUE(evaluate(p, name("files.pythonhosted.org", 443)).allowed);
  EXPECT_TRUE(evaluate(p, name("azurecr.io", 5000, net::Protocol::Udp)).allowed);
  EXPECT_FALSE(evaluate(p, name("evilazurecr.io", 443)).allowed);
  EXPECT_FALSE(evaluate(p, name("azureml.ms", 443)).allowed);
}

TEST(Evaluate, LoopbackAndTheOwnLinkAreAlwaysAllowed) {
  const Policy p = policy(
      "mode: enforce\ncollections:\n  - {name: a, priority: 100, action: deny, rules: [{name: all, "
      "addresses: [0.0.0.0/0, '::/0'], ports: '*', protocols: any}]}\n");
  for (const char* text : {"127.0.0.1", "127.255.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::"})
    for (const std::uint16_t port : std::vector<std::uint16_t>{80, 53, 853}) {
      const Verdict v = evaluate(p, address(text, port));
      EXPECT_TRUE(v.allowed) << text;
      EXPECT_FALSE(v.would_deny) << text;
      EXPECT_EQ(v.basis, Basis::Loopback) << text;
      EXPECT_THAT(v.reason, HasSubstr("loopback")) << text;
    }
  EXPECT_FALSE(evaluate(p, address("126.0.0.1", 80)).allowed);
  EXPECT_FALSE(evaluate(p, address("::2", 80)).allowed);
  EXPECT_TRUE(evaluate(p, address("127.0.0.1", 0, net::Protocol::Icmp)).allowed);

  EXPECT_EQ(evaluate(p, address("255.255.255.255", 67, net::Protocol::Udp)).basis, Basis::Kernel);
  EXPECT_FALSE(evaluate(p, address("255.255.255.255", 68, net::Protocol::Udp)).allowed);
  EXPECT_FALSE(evaluate(p, address("255.255.255.254", 67, net::Protocol::Udp)).allowed);
  EXPECT_TRUE(evaluate(p, address("ff02::1:2", 547, net::Protocol::Udp)).allowed);
  EXPECT_TRUE(evaluate(p, address("ff02::1", 0, net::Protocol::Icmpv6)).allowed);
  EXPECT_FALSE(evaluate(p, address("ff05::1", 0, net::Protocol::Icmpv6)).allowed);
}

TEST(Evaluate, Port53OfTheServersIsAlwaysAllowed) {
  const Policy p = policy("mode: enforce\ntags: [UbuntuUpdates]\ndns: {servers: [10.0.0.10]}\n");
  for (const auto protocol : {net::Protocol::Udp, net::Protocol::Tcp}) {
    const Verdict v = evaluate(p, address("10.0.0.10", 53, protocol));
    EXPECT_TRUE(v.allowed);
    EXPECT_EQ(v.basis, Basis::Resolver);
    EXPECT_THAT(v.reason, HasSubstr("dns.servers"));
  }
  EXPECT_FALSE(evaluate(p, address("10.0.0.10", 853)).allowed);
  EXPECT_FALSE(evaluate(p, address("10.0.0.10", 54)).allowed);
  EXPECT_FALSE(evaluate(p, address("10.0.0.10", 53, net::Protocol::Sctp)).allowed);
  EXPECT_FALSE(evaluate(p, address("10.0.0.11", 53)).allowed);
}

const char kDnsRules[] =
    "collections:\n"
    "  - name: c\n"
    "    priority: 100\n"
    "    action: allow\n"
    "    rules:\n"
    "      - {name: wide, addresses: [10.0.0.0/8], ports: ['*'], protocols: [any]}\n"
    "      - {name: range, addresses: [192.0.2.0/24], ports: [50-60, 850-860], protocols: [tcp, "
    "udp]}\n"
    "      - {name: exact, addresses: [10.0.0.5, 192.0.2.5], ports: [52, 53, 54], protocols: "
    "[udp]}\n"
    "      - {name: dot, addresses: [10.0.0.6], ports: ['*', 853], protocols: [tcp]}\n"
    "      - {name: names, fqdns: [dns.example], ports: ['*'], protocols: any}\n"
    "  - name: d\n"
    "    priority: 200\n"
    "    action: deny\n"
    "    rules:\n"
    "      - {name: late, addresses: [10.0.0.7], ports: ['*'], protocols: [any]}\n"
    "      - {name: tried, addresses: [10.0.0.8], ports: ['*'], protocols: [any], mode: audit}\n";

TEST(Evaluate, DnsElsewhereNeedsANetworkRuleForExactlyThatPort) {
  const Policy p = policy(std::string("mode: enforce\n") + kDnsRules);
  const auto udp = net::Protocol::Udp;
  for (const char* text : {"10.0.0.1", "192.0.2.1", "203.0.113.1"})
    for (const std::uint16_t port : std::vector<std::uint16_t>{53, 853}) {
      const Verdict v = evaluate(p, address(text, port, udp));
      EXPECT_FALSE(v.allowed) << text;
      EXPECT_EQ(v.basis, Basis::DnsServer) << text;
      EXPECT_FALSE(v.rule) << text;
      EXPECT_THAT(v.reason, HasSubstr("exactly this port")) << text;
    }
  EXPECT_TRUE(evaluate(p, address("10.0.0.1", 54, udp)).allowed);
  EXPECT_TRUE(evaluate(p, address("10.0.0.1", 53, net::Protocol::Sctp)).allowed);
  EXPECT_TRUE(evaluate(p, address("10.0.0.5", 53, udp)).allowed);
  EXPECT_TRUE(evaluate(p, address("192.0.2.5", 53, udp)).allowed);
  EXPECT_FALSE(evaluate(p, address("10.0.0.5", 53)).allowed);
  EXPECT_FALSE(evaluate(p, address("10.0.0.5", 853, udp)).allowed);
  EXPECT_TRUE(evaluate(p, address("10.0.0.6", 853)).allowed);
  const Verdict name_verdict = evaluate(p, name("dns.example", 853));
  EXPECT_FALSE(name_verdict.allowed);
  EXPECT_EQ(name_verdict.basis, Basis::DnsServer);
  EXPECT_TRUE(evaluate(p, name("dns.example", 443)).allowed);
  // The wide allow rule in front does not count, so the deny rule behind it does.
  EXPECT_EQ(evaluate(p, address("10.0.0.7", 53, udp)).basis, Basis::DenyRule);
  EXPECT_TRUE(evaluate(p, address("10.0.0.7", 80)).allowed);
  const Verdict tried = evaluate(p, address("10.0.0.8", 53, udp));
  EXPECT_TRUE(tried.allowed);
  EXPECT_TRUE(tried.would_deny);
}

TEST(Evaluate, DnsElsewhereFollowsTheFilter) {
  const auto udp = net::Protocol::Udp;
  const Policy audited = policy(std::string("mode: enforce\ndns: {filter: audit}\n") + kDnsRules);
  Verdict v = evaluate(audited, address("10.0.0.1", 53, udp));
  EXPECT_TRUE(v.allowed);
  EXPECT_TRUE(v.would_deny);
  ASSERT_TRUE(v.rule);
  EXPECT_THAT(v.reason, HasSubstr("dns.filter audit lets it pass"));
  v = evaluate(audited, address("10.0.0.5", 53, udp));
  EXPECT_TRUE(v.allowed);
  EXPECT_FALSE(v.would_deny);
  v = evaluate(audited, name("dns.example", 853));
  EXPECT_TRUE(v.allowed);
  EXPECT_TRUE(v.would_deny);
  v = evaluate(audited, address("203.0.113.1", 53, udp));
  EXPECT_FALSE(v.allowed);
  EXPECT_EQ(v.basis, Basis::DnsServer);

  const Policy off = policy(std::string("mode: enforce\ndns: {filter: off}\n") + kDnsRules);
  v = evaluate(off, address("10.0.0.1", 53, udp));
  EXPECT_TRUE(v.allowed);
  EXPECT_FALSE(v.would_deny);
  EXPECT_TRUE(evaluate(off, name("dns.example", 853)).allowed);
  EXPECT_EQ(evaluate(off, address("203.0.113.1", 53, udp)).basis, Basis::DefaultDeny);

  // Filter allowlist under mode audit: nothing is refused.
  const Policy tried = policy(std::string("mode: audit\ndns: {filter: allowlist}\n") + kDnsRules);
  v = evaluate(tried, address("10.0.0.1", 53, udp));
  EXPECT_TRUE(v.allowed);
  EXPECT_TRUE(v.would_deny);
  EXPECT_EQ(v.basis, Basis::DnsServer);
}

}  // namespace
}  // namespace egressd::policy
