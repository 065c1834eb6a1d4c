#include "policy/parser.h"

#include <gmock/gmock.h>
#include <stdlib.h>
#include <unistd.h>

#include <chrono>
#include <ctime>
#include <fstream>

namespace egressd::policy {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

const TagCatalog& tags() { return TagCatalog::builtin(); }

std::vector<std::string> lines(const std::vector<Diagnostic>& diagnostics) {
  std::vector<std::string> out;
  for (const Diagnostic& d : diagnostics) out.push_back(d.to_string());
  return out;
}

std::vector<std::string> errors(std::string_view text) {
  const auto parsed = parse_policy(text, "t.yaml", tags());
  return parsed ? std::vector<std::string>{"accepted"} : lines(parsed.error());
}

std::vector<std::string> warnings(std::string_view text) {
  const auto parsed = parse_policy(text, "t.yaml", tags());
  if (!parsed) return lines(parsed.error());
  return lines(parsed->warnings);
}

// A policy around the lines of one rule, which begin at line 8 behind eight spaces.
std::string with_rule(const std::string& rule, const std::string& action = "allow") {
  return "version: 1\nmode: enforce\ncollections:\n  - name: c\n    priority: 100\n    action: " +
         action + "\n    rules:\n      - name: r\n" + rule;
}

TEST(ParsePolicy, ReadsAWholePolicy) {
  const auto parsed = parse_policy(
      "version: 1\n"
      "mode: audit\n"
      "dns: {servers: [10.0.0.10, '2001:db8::53'], resolve: [A.contoso.com.], grace: 2h}\n"
      "addressGroups: {corp: [10.0.0.0/8, 192.0.2.1]}\n"
      "collections:\n"
      "  - name: late\n    priority: 300\n    action: deny\n    rules:\n"
      "      - {name: lan, addresses: [10.0.0.0/8, '2001:db8::/32'], addressGroups: [corp], ports: "
      "'*', protocols: [TCP, icmp, 50]}\n"
      "  - name: early\n    priority: 200\n    action: allow\n    rules:\n"
      "      - {name: api, fqdns: '*.contoso.com', ports: [8000-8010, 443, 443], protocols: any, "
      "allowPrivate: true}\n",
      "t.yaml", tags());
  ASSERT_TRUE(parsed) << parsed.error().front().to_string();
  EXPECT_THAT(parsed->warnings, IsEmpty());
  const Policy& p = parsed->policy;
  EXPECT_EQ(p.mode, Mode::Audit);
  EXPECT_EQ(p.dns.grace, std::chrono::hours(2));
  EXPECT_EQ(p.dns.servers.size(), 2u);
  EXPECT_THAT(p.dns.resolve, ElementsAre("a.contoso.com"));
  ASSERT_EQ(p.collections.size(), 2u);
  const Rule& api = p.collections[0].rules.at(0);
  EXPECT_EQ(p.collections[0].name, "early");
  EXPECT_THAT(api.ports, ElementsAre(net::PortRange{443, 443}, net::PortRange{8000, 8010}));
  EXPECT_THAT(api.protocols, ElementsAre(net::Protocol::Tcp, net::Protocol::Udp));
  EXPECT_TRUE(api.allow_private);
  EXPECT_EQ(api.mode, Mode::Enforce);
  const Rule& lan = p.collections[1].rules.at(0);
  EXPECT_EQ(lan.mode, Mode::Audit);
  EXPECT_EQ(lan.prefixes.size(), 3u);  // 10.0.0.0/8 once
  EXPECT_THAT(lan.ports, ElementsAre(net::PortRange{}));
}

TEST(ParsePolicy, ExampleHasNoErrors) {
  const auto parsed = load_policy(EGRESSD_EXAMPLE_POLICY, tags());
  ASSERT_TRUE(parsed) << lines(parsed.error()).front();
  EXPECT_GE(parsed->policy.collections.size(), 6u);
}

TEST(ParsePolicy, ReportsEveryErrorInFileOrder) {
  EXPECT_THAT(
      errors("version: 1\n"
             "mode: enforc\n"
             "tags: [AzureMachinLearning]\n"
             "parameters: {regoin: eastus}\n"
             "collections:\n"
             "  - name: a\n"
             "    priority: 99\n"
             "    action: permit\n"
             "    rules:\n"
             "      - name: r\n"
             "        fqdns: ['*contoso.com', 10.0.0.1]\n"
             "        ports: [0, 65536, 9-8, http]\n"
             "      - name: r\n"
             "        addresses: [10.1.2.3/8, ml.azure.com]\n"
             "        prots: [1]\n"
             "        protocols: [icmp]\n"),
      ElementsAre(StartsWith("t.yaml:2:7: error: unknown mode 'enforc'; did you mean 'enforce'?"),
                  StartsWith("t.yaml:3:8: error: unknown tag 'AzureMachinLearning'; did you mean "
                             "'AzureMachineLearning'?"),
                  StartsWith("t.yaml:4:14: error: no tag has a parameter 'regoin'; did you mean "
                             "'region'?"),
                  StartsWith("t.yaml:7:15: error: priority '99'"),
                  StartsWith("t.yaml:8:13: error: unknown action 'permit'"),
                  StartsWith("t.yaml:11:17: error: '*contoso.com' would also match"),
                  StartsWith("t.yaml:11:33: error: '10.0.0.1' is an address"),
                  StartsWith("t.yaml:12:17: error: port 0"),
                  StartsWith("t.yaml:12:20: error: port 65536"),
                  StartsWith("t.yaml:12:27: error: port range '9-8' is reversed; write \"8-9\""),
                  StartsWith("t.yaml:12:32: error: 'http' is not a port"),
                  StartsWith("t.yaml:13:15: error: a rule named 'r' exists already"),
                  StartsWith("t.yaml:14:21: error: '10.1.2.3/8' has bits set"),
                  StartsWith("t.yaml:14:33: error: 'ml.azure.com' is a host name"),
                  StartsWith("t.yaml:15:9: error: unknown key 'prots' in a rule; did you mean "
                             "'ports'?")));
}

TEST(ParsePolicy, OpenPlaceholderNamesTheParameterAndTheLineToAdd) {
  EXPECT_THAT(
      errors("version: 1\nmode: enforce\ntags:\n  - AzureKubernetesServiceExtensions\n"),
      ElementsAre(AllOf(StartsWith("t.yaml:4:5: error: tag AzureKubernetesServiceExtensions needs"),
                        HasSubstr("parameter 'region'"), HasSubstr("region: VALUE"))));
}

TEST(ParsePolicy, RefusesBadParameters) {
  for (const char* value : {"'*'", "a.b", "'<x>'", "''", "-a", "{a: b}", "[]", "例。え"})
    EXPECT_THAT(
        errors("version: 1\nmode: enforce\ntags: [AzureKubernetesServiceExtensions]\nparameters: "
               "{region: " +
               std::string(value) + "}\n"),
        ElementsAre(StartsWith("t.yaml:4:22: error: ")))
        << value;
}

TEST(ParsePolicy, RequiresTheTopLevelKeys) {
  EXPECT_THAT(errors(""), ElementsAre(HasSubstr("the file is empty")));
  EXPECT_THAT(errors("# nothing\n"), ElementsAre(HasSubstr("the file is empty")));
  EXPECT_THAT(errors("tags: [AzurePlatform]\n"),
              ElementsAre(HasSubstr("no 'version'"), HasSubstr("no 'mode'")));
  EXPECT_THAT(errors("version: 2\nmode: audit\n"),
              ElementsAre(HasSubstr("neither 'tags' nor"), HasSubstr("version '2'")));
  EXPECT_THAT(errors("[1, 2]\n"), ElementsAre(HasSubstr("must be a map")));
  EXPECT_THAT(errors("version: 1\nmode: audit\ncollections: []\n"),
              ElementsAre(StartsWith("t.yaml:3:14: error: 'collections' is an empty list")));
  EXPECT_THAT(errors("version: 1\nmode: audit\ntags: AzurePlatform\nmode: audit\n"),
              ElementsAre(StartsWith("t.yaml:4:1: error: key 'mode' is given twice")));
}

TEST(ParsePolicy, RefusesDuplicateCollections) {
  const std::string one =
      "  - {name: a, priority: 100, action: allow, rules: [{name: r, fqdns: a.example, ports: "
      "1}]}\n";
  EXPECT_THAT(errors("version: 1\nmode: audit\ncollections:\n" + one + one),
              ElementsAre(StartsWith("t.yaml:5:12: error: a collection named 'a'"),
                          StartsWith("t.yaml:5:25: error: priority 100 is used")));
}

TEST(ParsePolicy, ARuleIsOfOneKind) {
  EXPECT_THAT(errors(with_rule("        fqdns: [a.example]\n        addresses: [10.0.0.1]\n"
                               "        ports: [1]\n")),
              ElementsAre(StartsWith("t.yaml:8:9: error: a rule is made of")));
  EXPECT_THAT(errors(with_rule("        ports: [1]\n")), ElementsAre(HasSubstr("has neither")));
  EXPECT_THAT(errors(with_rule("        fqdns: [a.example]\n")),
              ElementsAre(HasSubstr("has no 'ports'")));
  EXPECT_THAT(errors(with_rule("        addresses: [10.0.0.1]\n        ports: [1]\n")),
              ElementsAre(HasSubstr("has no 'protocols'")));
  EXPECT_THAT(errors(with_rule(
                  "        fqdns: [a.example]\n        ports: [1]\n        protocols: [icmp]\n")),
              ElementsAre(AllOf(StartsWith("t.yaml:11:21: error:"), HasSubstr("network rule"))));
  EXPECT_THAT(errors(with_rule("        addresses: [10.0.0.1]\n        ports: [1]\n        "
                               "protocols: [tcp, icmp]\n")),
              ElementsAre(HasSubstr("icmp has no ports")));
  EXPECT_THAT(errors(with_rule("        tags: [AzurePlatform]\n        ports: [1]\n")),
              ElementsAre(HasSubstr("remove 'ports'")));
  EXPECT_THAT(errors(with_rule("        addresses: [10.0.0.1]\n        ports: [1]\n        "
                               "protocols: [tcp]\n        allowPrivate: true\n")),
              ElementsAre(HasSubstr("'allowPrivate' is for rules with names")));
}

TEST(ParsePolicy, RefusesWrongShapes) {
  EXPECT_THAT(errors(with_rule("        fqdns: {a: b}\n        ports: [1]\n")),
              ElementsAre(StartsWith("t.yaml:9:16: error: 'fqdns' must be a value or a list")));
  EXPECT_THAT(errors(with_rule("        fqdns: [[a.example]]\n        ports: [1]\n")),
              ElementsAre(StartsWith("t.yaml:9:17: error: a host name must be a single value")));
  EXPECT_THAT(errors(with_rule("        fqdns: []\n        ports:\n")),
              ElementsAre(HasSubstr("'fqdns' is an empty list"), HasSubstr("'ports' is empty")));
  EXPECT_THAT(errors("version: 1\nmode: audit\ncollections: [x]\n"),
              ElementsAre(HasSubstr("a collection must be a map")));
  EXPECT_THAT(errors(with_rule("        addressGroups: [corp]\n        protocols: [icmp]\n")),
              ElementsAre(HasSubstr("no address group is named 'corp'")));
}

TEST(ParsePolicy, ATagRuleTakesModeAndAllowPrivate) {
  const auto parsed = parse_policy(
      with_rule(
          "        tags: [PythonPackages]\n        allowPrivate: true\n        mode: audit\n"),
      "t.yaml", tags());
  ASSERT_TRUE(parsed) << lines(parsed.error()).front();
  const auto& rules = parsed->policy.collections.at(0).rules;
  ASSERT_GT(rules.size(), 3u);
  for (const Rule& rule : rules) {
    EXPECT_THAT(rule.name, StartsWith("r/PythonPackages:"));
    EXPECT_TRUE(rule.allow_private);
    EXPECT_EQ(rule.mode, Mode::Audit);
    EXPECT_EQ(rule.tag, "PythonPackages");
  }
}

TEST(ParsePolicy, GraceHasUnitsAndBounds) {
  for (const char* good : {"0", "86400", "30s", "5m", "24h"})
    EXPECT_THAT(warnings("version: 1\nmode: audit\ntags: [UbuntuUpdates]\ndns: {grace: " +
                         std::string(good) + "}\n"),
                IsEmpty())
        << good;
  for (const char* bad : {"86401", "25h", "-1", "5d", "m", "1e9", "99999999999999999999s", "''"})
    EXPECT_THAT(errors("version: 1\nmode: audit\ntags: [UbuntuUpdates]\ndns: {grace: " +
                       std::string(bad) + "}\n"),
                ElementsAre(StartsWith("t.yaml:4:14: error: grace")))
        << bad;
}

TEST(ParsePolicy, DnsModeAndLogAreOneOfTwo) {
  const std::string head = "version: 1\nmode: audit\ntags: [UbuntuUpdates]\n";
  const auto plain = parse_policy(head, "t.yaml", TagCatalog::builtin());
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->policy.dns.mode, DnsMode::Inline);
  EXPECT_EQ(plain->policy.dns.log, DnsLog::Denied);
  const auto both =
      parse_policy(head + "dns: {mode: proxy, log: all}\n", "t.yaml", TagCatalog::builtin());
  ASSERT_TRUE(both);
  EXPECT_EQ(both->policy.dns.mode, DnsMode::Proxy);
  EXPECT_EQ(both->policy.dns.log, DnsLog::All);
  EXPECT_THAT(errors(head + "dns: {mode: Proxy}\n"),
              ElementsAre(AllOf(StartsWith("t.yaml:4:13: error: mode 'Proxy' is not one of"),
                                HasSubstr("inline"))));
  EXPECT_THAT(errors(head + "dns: {log: none}\n"),
              ElementsAre(StartsWith("t.yaml:4:12: error: log 'none' is not one of denied")));
}

TEST(ParsePolicy, SearchDomainsAreNobodysPublicSuffix) {
  const auto search = [](const std::string& domain) {
    return "version: 1\nmode: audit\ntags: [UbuntuUpdates]\ndns: {searchDomains: [" + domain +
           "]}\n";
  };
  for (const char* good : {"corp.contoso.com", "contoso.co.uk", "cluster.local", "local", "corp",
                           "svc.cluster.local", "internal"})
    EXPECT_THAT(warnings(search(good)), IsEmpty()) << good;
  for (const char* bad : {"com", "COM.", "co.uk", "io", "net", "xn--p1ai"})
    EXPECT_THAT(errors(search(bad)),
                ElementsAre(AllOf(StartsWith("t.yaml:4:23: error: '" + std::string(bad) +
                                             "' cannot be a search domain: all names below"),
                                  HasSubstr("anyone registers under ."), HasSubstr("contoso."))))
        << bad;
  EXPECT_THAT(warnings(search("blob.core.windows.net")),
              ElementsAre(AllOf(StartsWith("t.yaml:4:23: warning:"), HasSubstr("customers of"))));
}

TEST(ParsePolicy, SaysHowToQuoteAStar) {
  EXPECT_THAT(errors(with_rule("        fqdns: [*.azureml.ms]\n")),
              ElementsAre(AllOf(StartsWith("t.yaml:9:17: error:"), HasSubstr("\"*.azureml.ms\""))));
  EXPECT_THAT(errors(with_rule("        ports: *\n")),
              ElementsAre(AllOf(StartsWith("t.yaml:9:"), HasSubstr("put it in quotes"))));
}

TEST(ParsePolicy, TurnsYamlErrorsIntoDiagnostics) {
  EXPECT_THAT(errors("version: 1\n\tmode: audit\n"), ElementsAre(StartsWith("t.yaml:2:")));
  EXPECT_THAT(errors("version: [1\nmode: audit\n"), ElementsAre(HasSubstr("not valid YAML")));
  EXPECT_THAT(errors("version: 1\n---\nversion: 1\n"),
              ElementsAre(AllOf(StartsWith("t.yaml:3:1"), HasSubstr("second YAML document"))));
  EXPECT_THAT(errors(std::string_view("version: 1\nmo\0de: a\n", 20)),
              ElementsAre(StartsWith("t.yaml:2:3: error: NUL")));
  EXPECT_THAT(errors("version: 1\nmode: \xff\n"),
              ElementsAre(StartsWith("t.yaml:2:7: error: not valid UTF-8")));
  EXPECT_THAT(errors("a: \xc0\xaf\n"), ElementsAre(HasSubstr("not valid UTF-8")));
  EXPECT_THAT(errors("a: \xed\xa0\x80\n"), ElementsAre(HasSubstr("not valid UTF-8")));
}

TEST(ParsePolicy, BoundsAnchorsDepthAndSize) {
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 20; ++i) {
    const std::string before = "*a" + std::to_string(i - 1);
    bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + before;
    for (int k = 1; k < 10; ++k) bomb += ", " + before;
    bomb += "]\n";
  }
  EXPECT_THAT(errors(bomb), ElementsAre(HasSubstr("after aliases are expanded")));
  EXPECT_THAT(errors("a: &a [*a]\n"), ElementsAre(HasSubstr("contains it")));
  const std::string deep = std::string(33, '[') + std::string(33, ']');
  EXPECT_THAT(errors(deep), ElementsAre(HasSubstr("nested more than 32")));
  EXPECT_THAT(errors(std::string(100'000, '[')), ElementsAre(HasSubstr("nested more than 32")));
  EXPECT_THAT(errors(std::string(kMaxPolicyBytes + 1, ' ')), ElementsAre(HasSubstr("at most")));
  // Depth hidden behind aliases counts as well.
  std::string chain = "a0: &a0 [x]\n";
  for (int i = 1; i < 40; ++i)
    chain += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [*a" + std::to_string(i - 1) +
             "]\n";
  EXPECT_THAT(errors(chain), ElementsAre(HasSubstr("nested more than 32")));
}

TEST(ParsePolicy, AliasesWorkWithinTheBounds) {
  EXPECT_THAT(warnings("version: 1\nmode: enforce\ncollections:\n  - name: c\n    priority: 100\n"
                       "    action: allow\n    rules:\n"
                       "      - {name: a, fqdns: [a.example], ports: &p [443]}\n"
                       "      - {name: b, fqdns: [b.example], ports: *p}\n"),
              IsEmpty());
}

TEST(ParsePolicy, BoundsWhatGroupsAndTagsExpandTo) {
  std::string text = "version: 1\nmode: enforce\naddressGroups:\n  big:\n";
  for (int i = 0; i < 2000; ++i)
    text += "    - 10." + std::to_string(i / 250) + "." + std::to_string(i % 250) + ".0/24\n";
  text += "collections:\n  - name: c\n    priority: 100\n    action: deny\n    rules:\n";
  for (int i = 0; i < 1000; ++i)
    text += "      - {name: r" + std::to_string(i) + ", addressGroups: [big], protocols: [icmp]}\n";
  EXPECT_THAT(errors(text), ElementsAre(HasSubstr("the policy has more than")));
}

TEST(ParsePolicy, WarnsOfWhatIsProbablyNotMeant) {
  EXPECT_THAT(
      warnings(with_rule("        fqdns: ['*.blob.core.windows.net']\n        ports: [1]\n")),
      ElementsAre(AllOf(StartsWith("t.yaml:9:17: warning:"), HasSubstr("way out"))));
  EXPECT_THAT(warnings(with_rule("        addresses: [0.0.0.0/0]\n        protocols: [any]\n")),
              ElementsAre(HasSubstr("every IPv4 address")));
  EXPECT_THAT(
      warnings(with_rule("        addresses: [0.0.0.0/0]\n        protocols: [any]\n", "deny")),
      IsEmpty());
  EXPECT_THAT(warnings(with_rule("        fqdns: [a.example, A.example.]\n        ports: [1]\n")),
              ElementsAre(HasSubstr("listed twice")));
}

TEST(ParsePolicy, WarnsOfNamesForDns) {
  const std::string rule = "        fqdns: [dns.contoso.com]\n        ports: [443, 853]\n";
  EXPECT_THAT(warnings(with_rule(rule)),
              ElementsAre(AllOf(StartsWith("t.yaml:10:16: warning: port 853 is DNS"),
                                HasSubstr("'dns: servers'"))));
  EXPECT_THAT(warnings(with_rule(rule) + "dns: {filter: off}\n"), IsEmpty());
  EXPECT_THAT(warnings(with_rule(rule, "deny")), IsEmpty());
}

TEST(ParsePolicy, WarnsOfRulesThatNeverMatch) {
  const std::string text = with_rule(
      "        fqdns: ['*.contoso.com']\n        ports: ['1-100']\n"
      "      - {name: below, fqdns: [a.b.contoso.com, '*.b.contoso.com'], ports: [80]}\n"
      "      - {name: other-port, fqdns: [a.b.contoso.com], ports: [443]}\n"
      "      - {name: apex, fqdns: [contoso.com], ports: [80]}\n"
      "      - {name: net, addresses: [10.0.0.0/8], ports: '*', protocols: any}\n"
      "      - {name: inside, addresses: [10.1.0.0/16], ports: [1], protocols: tcp}\n"
      "      - {name: dns, addresses: [10.1.0.53], ports: [53], protocols: udp}\n"
      "      - {name: outside, addresses: [11.0.0.0/8], ports: [1], protocols: tcp}\n");
  EXPECT_THAT(warnings(text),
              ElementsAre(HasSubstr("rule 'below' never matches: rule 'r' of collection 'c'"),
                          HasSubstr("rule 'inside' never matches: rule 'net'")));
}

TEST(ParsePolicy, RefusesCrossingPatternsOfDifferentActions) {
  const auto two = [](const std::string& allow, const std::string& deny) {
    return "version: 1\nmode: enforce\ncollections:\n"
           "  - {name: a, priority: 100, action: allow, rules: [{name: x, fqdns: ['" +
           allow +
           "'], ports: 1}]}\n"
           "  - {name: d, priority: 200, action: deny, rules: [{name: y, fqdns: ['" +
           deny + "'], ports: 1}]}\n";
  };
  EXPECT_THAT(errors(two("a*.contoso.com", "*b.contoso.com")),
              ElementsAre(AllOf(StartsWith("t.yaml:5:"), HasSubstr("neither is the more specific"),
                                HasSubstr("of rule 'x' (allow)"))));
  EXPECT_THAT(errors(two("*.a1.contoso.com", "x.a*.contoso.com")),
              ElementsAre(HasSubstr("neither is the more specific")));
  EXPECT_THAT(errors(two("a*.contoso.com", "ab*.contoso.com")), ElementsAre("accepted"));
  EXPECT_THAT(errors(two("*.contoso.com", "ab*.contoso.com")), ElementsAre("accepted"));
  EXPECT_THAT(errors(two("a*.contoso.com", "b*.contoso.com")), ElementsAre("accepted"));
}

std::string list(int count, int first, int step) {
  std::string out;
  for (int i = 0; i < count; ++i) out += (i ? ", " : "") + std::to_string(first + i * step);
  return out;
}

TEST(ParsePolicy, NeighbouringPortsAreOneRangeButDnsPortsStayAlone) {
  const auto ports = [](const std::string& text) {
    const auto parsed = parse_policy(
        with_rule("        fqdns: a.example\n        ports: [" + text + "]\n"), "t.yaml", tags());
    std::vector<std::string> out;
    if (parsed)
      for (const net::PortRange& r : parsed->policy.collections.at(0).rules.at(0).ports)
        out.push_back(r.to_string());
    return out;
  };
  EXPECT_THAT(ports("443, 445, 444, 8000-8010, 8005-8020, 8021"),
              ElementsAre("443-445", "8000-8021"));
  EXPECT_THAT(ports("443, 446"), ElementsAre("443", "446"));
  EXPECT_THAT(ports("1-65535, 65535"), ElementsAre("1-65535"));
  EXPECT_THAT(ports("'*', 443"), ElementsAre("*"));
  EXPECT_THAT(ports("52, 53, 54, 853, 53"), ElementsAre("52", "53", "54", "853"));
  EXPECT_THAT(ports("'*', 853, 50-60, 53"), ElementsAre("*", "53", "853"));
}

TEST(ParsePolicy, ARuleHasRoomFor128PairsOfProtocolAndPortRange) {
  const auto rule = [](int ports, const std::string& protocols) {
    return with_rule("        fqdns: ['*.contoso.com']\n        protocols: " + protocols +
                     "\n        ports: [" + list(ports, 1000, 2) + "]\n");
  };
  EXPECT_THAT(warnings(rule(64, "any")), IsEmpty());
  EXPECT_THAT(warnings(rule(128, "tcp")), IsEmpty());
  EXPECT_THAT(errors(rule(66, "[tcp, udp]")),
              ElementsAre(AllOf(StartsWith("t.yaml:11:16: error: rule 'r' has 132 pairs"),
                                HasSubstr("room for 128; write ranges"),
                                HasSubstr("\"1000-1130\", or keep one of the protocols"))));
  EXPECT_THAT(errors(rule(129, "tcp")), ElementsAre(HasSubstr("has 129 pairs")));
  // 200 ports in a row are one range.
  EXPECT_THAT(warnings(with_rule("        fqdns: a.example\n        ports: [" + list(200, 1000, 1) +
                                 "]\n")),
              IsEmpty());
  EXPECT_THAT(errors(with_rule("        addresses: [192.0.2.1]\n        protocols: [" +
                               list(129, 100, 1) + "]\n        ports: '*'\n")),
              ElementsAre(AllOf(StartsWith("t.yaml:10:20: error:"), HasSubstr("[any]"))));
}

TEST(ParsePolicy, ADestinationHasRoomFor128PairsOfAllItsRules) {
  const std::string text =
      "version: 1\nmode: enforce\ncollections:\n"
      "  - name: c\n    priority: 100\n    action: allow\n    rules:\n"
      "      - {name: a, fqdns: ['*.contoso.com'], ports: [" +
      list(100, 1000, 2) +
      "]}\n"
      "      - {name: b, addresses: [10.0.0.0/8], protocols: udp, ports: [" +
      list(100, 1000, 2) +
      "]}\n"
      "      - {name: same, fqdns: ['*.a.contoso.com'], ports: [" +
      list(100, 1000, 2) + "]}\n";
  EXPECT_THAT(warnings(text), testing::SizeIs(1));  // 'same' never matches
  const std::string more = list(29, 3000, 2);
  EXPECT_THAT(
      errors(text + "      - {name: c, fqdns: [x.b.contoso.com, y.contoso.com], ports: [" + more +
             "]}\n      - {name: d, addresses: [10.1.0.0/16], protocols: udp, ports: [" + more +
             "]}\n      - {name: e, fqdns: ['x*.contoso.com'], ports: [" + more + "]}\n"),
      ElementsAre(AllOf(StartsWith("t.yaml:11:9: error: 'x.b.contoso.com' is subject to rule 'c' "),
                        HasSubstr("and to 'a'")),
                  StartsWith("t.yaml:12:9: error: '10.1.0.0/16' is subject to rule 'd' and to 'b'"),
                  StartsWith("t.yaml:13:9: error: 'x*.contoso.com' is subject to rule 'e'")));
  EXPECT_THAT(warnings(text + "      - {name: c, fqdns: [contoso.com], ports: [" + more +
                       "]}\n      - {name: d, addresses: [11.0.0.0/8], protocols: udp, ports: [" +
                       more + "]}\n      - {name: e, fqdns: ['*.contoso.com'], ports: [" +
                       list(28, 3000, 2) + "]}\n"),
              testing::SizeIs(1));
}

TEST(ParsePolicy, AParentHasRoomFor16PatternsWithAStarInTheLabel) {
  const auto patterns = [](int count, const std::string& behind) {
    std::string out;
    for (int i = 1; i <= count; ++i)
      out += "          - 'a" + std::to_string(i) + "-*" + behind + "'\n";
    return with_rule("        ports: [443]\n        fqdns:\n" + out);
  };
  EXPECT_THAT(warnings(patterns(16, ".contoso.com")), IsEmpty());
  EXPECT_THAT(
      errors(patterns(40, ".contoso.com")),
      ElementsAre(AllOf(StartsWith("t.yaml:27:13: error: 'a17-*.contoso.com' is one too many: the "
                                   "kernel has room for 16"),
                        HasSubstr("write \"*.contoso.com\""))));
  EXPECT_THAT(errors(patterns(17, ".b*.contoso.com")),
              ElementsAre(HasSubstr("in front of 'b*.contoso.com'")));
  // The same pattern in another rule, and another parent, take no room.
  EXPECT_THAT(warnings(patterns(16, ".contoso.com") +
                       "      - {name: s, ports: [80], fqdns: ['a1-*.contoso.com', "
                       "'a1-*.x.contoso.com', 'x.a2-*.contoso.com']}\n"),
              IsEmpty());
}

TEST(ParsePolicy, BoundsTheServers) {
  const auto servers = [](int count) {
    std::string out;
    for (int i = 0; i < count; ++i)
      out += (i ? ", 10.0." : "10.0.") + std::to_string(i / 250) + "." + std::to_string(i % 250);
    return "version: 1\nmode: audit\ntags: [UbuntuUpdates]\ndns:\n  servers: [10.0.0.0, " + out +
           "]\n";
  };
  EXPECT_THAT(warnings(servers(128)), IsEmpty());
  EXPECT_THAT(errors(servers(300)),
              ElementsAre(AllOf(StartsWith("t.yaml:5:"), HasSubstr("more than 128 DNS servers"))));
}

// Quadratic work over what these hold would take minutes; sanitizers are within this. CPU time: how
// busy the machine is does not count.
class Quick {
 public:
  ~Quick() { EXPECT_LT(static_cast<double>(std::clock() - start_) / CLOCKS_PER_SEC, 40.0); }

 private:
  std::clock_t start_ = std::clock();
};

TEST(ParsePolicy, LongListsAreRefusedInNoTime) {
  const std::string head = "version: 1\nmode: audit\ntags: [AzureKubernetesServiceExtensions]\n";
  const auto items = [](int count, const std::string& prefix, const std::string& suffix) {
    std::string out = "[";
    for (int i = 0; i < count; ++i) out += prefix + std::to_string(i) + suffix + ", ";
    return out + "]";
  };
  const Quick quick;
  EXPECT_THAT(warnings(head + "parameters: {region: " + items(1000, "r", "") +
                       "}\ndns: {searchDomains: " + items(1000, "d", ".example") + "}\n"),
              IsEmpty());
  EXPECT_THAT(
      errors(head + "parameters: {region: " + items(200'000, "r", "") + "}\n"),
      ElementsAre(AllOf(StartsWith("t.yaml:4:"), HasSubstr("'region' has more than 1000 values"))));
  EXPECT_THAT(
      errors(head + "parameters: {region: a}\ndns: {searchDomains: " +
             items(200'000, "d", ".example") + "}\n"),
      ElementsAre(AllOf(StartsWith("t.yaml:5:"), HasSubstr("more than 1000 search domains"))));
  EXPECT_THAT(errors(head + "parameters: {region: a}\ndns: {servers: " +
                     items(50'000, "'2001:db8::", "'") + "}\n"),
              ElementsAre(HasSubstr("more than 128 DNS servers")));
}

TEST(ParsePolicy, ManyMistakesTakeNoTime) {
  const Quick quick;
  // Each of them would be held against a thousand names of groups.
  std::string text = "version: 1\nmode: enforce\naddressGroups:\n";
  for (int i = 0; i < 1000; ++i)
    text +=
        "  some-rather-long-name-of-a-group-of-addresses-" + std::to_string(i) + ": [192.0.2.1]\n";
  text +=
      "collections:\n  - name: c\n    priority: 100\n    action: deny\n    rules:\n"
      "      - name: r\n        protocols: [icmp]\n        addressGroups:\n";
  for (int i = 0; i < 100'000; ++i)
    text += "          - another-rather-long-name-of-addresses-" + std::to_string(i) + "\n";
  EXPECT_THAT(errors(text), testing::SizeIs(10'000));
  // Names to resolve, held against patterns.
  text = "version: 1\nmode: enforce\ndns:\n  resolve:\n";
  for (int i = 0; i < 100'000; ++i) text += "    - n" + std::to_string(i) + ".a.example\n";
  text +=
      "collections:\n  - name: c\n    priority: 100\n    action: allow\n    rules:\n"
      "      - name: r\n        ports: [1]\n        fqdns:\n";
  for (int i = 0; i < 20'000; ++i)
    text += "          - 'x*.h" + std::to_string(i) + ".contoso.com'\n";
  EXPECT_THAT(warnings(text), testing::SizeIs(10'000));
}

TEST(ParsePolicy, RulesThatMakeEachOtherPointlessTakeNoTime) {
  const Quick quick;
  std::string text =
      "version: 1\nmode: enforce\ncollections:\n  - name: c\n    priority: 100\n"
      "    action: allow\n    rules:\n";
  for (int i = 0; i < 30'000; ++i)
    text += "      - {name: r" + std::to_string(i) + ", fqdns: ['*.contoso.com', h" +
            std::to_string(i) + ".contoso.com], ports: [443]}\n";
  EXPECT_TRUE(parse_policy(text, "t.yaml", tags()));
}

TEST(ParsePolicy, TenThousandRulesTakeNoTime) {
  std::string text =
      "version: 1\nmode: enforce\ncollections:\n  - name: c\n    priority: 100\n"
      "    action: allow\n    rules:\n";
  for (int i = 0; i < 10'000; ++i)
    text += "      - name: r" + std::to_string(i) + "\n        fqdns: [h" + std::to_string(i) +
            ".contoso.com, '*.d" + std::to_string(i) + ".fabrikam.com']\n        ports: [443]\n";
  const Quick quick;
  const auto parsed = parse_policy(text, "t.yaml", tags());
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->policy.collections.at(0).rules.size(), 10'000u);
}

TEST(LoadPolicy, NamesTheFileItCannotRead) {
  const auto parsed = load_policy("/nonexistent/policy.yaml", tags());
  ASSERT_FALSE(parsed);
  EXPECT_EQ(parsed.error().front().to_string(),
            "/nonexistent/policy.yaml: error: cannot open: No such file or directory");
  EXPECT_FALSE(load_policy("/", tags()));
}

TEST(LoadPolicy, RefusesAFileOverTheLimit) {
  char path[] = "/tmp/egressd-policy-XXXXXX";
  const int fd = ::mkstemp(path);
  ASSERT_GE(fd, 0);
  const int rc = ::ftruncate(fd, static_cast<off_t>(kMaxPolicyBytes) + 100);
  ::close(fd);
  const auto parsed = load_policy(path, tags());
  ::unlink(path);
  ASSERT_EQ(rc, 0);
  ASSERT_FALSE(parsed);
  EXPECT_THAT(parsed.error().front().message, HasSubstr("at most"));
}

}  // namespace
}  // namespace egressd::policy
