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
  EXPECT_TRUE(evaluate(p, address("198.51.100.1", 53, net::Protocol::Udp)).allowed);
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

}  // namespace
}  // namespace egressd::policy
