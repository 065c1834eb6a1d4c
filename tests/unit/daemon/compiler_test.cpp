#include "daemon/compiler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <random>

#include "policy/parser.h"

namespace egressd::daemon {
namespace {

using ::testing::ElementsAre;
using ::testing::UnorderedElementsAre;

class CompilerTest : public ::testing::Test {
 protected:
  CompilerTest() {
    char dir[] = "/tmp/egressd-compiler-XXXXXX";
    dir_ = ::mkdtemp(dir);
    ids_ = std::make_unique<NameIds>(*NameIds::load(dir_ + "/names", "1"));
  }
  ~CompilerTest() override { std::filesystem::remove_all(dir_); }

  Compiled compile_text(const std::string& collections, const std::string& head = "") {
    const auto parsed =
        policy::parse_policy("version: 1\nmode: enforce\n" + head + "collections:\n" + collections,
                             "test.yaml", policy::TagCatalog::builtin());
    if (!parsed) {
      for (const auto& d : parsed.error()) ADD_FAILURE() << d.to_string();
      return {};
    }
    auto compiled = compile(parsed->policy, 7,
                            {{*net::IpAddress::parse("10.0.0.53")}, {"corp.example"}}, *ids_);
    if (!compiled) {
      ADD_FAILURE() << compiled.error().message;
      return {};
    }
    return std::move(*compiled);
  }

  // "rule:proto/ports" of each entry of the prefix's list, in order; "!" in front of a deny.
  static std::vector<std::string> describe(const Compiled& c, std::uint32_t list) {
    std::vector<std::string> out;
    for (const auto& e : c.rules.lists[list])
      out.push_back((e.action == enforce::Action::Deny ? "!" : "") +
                    c.rules.rule_names[e.rule_id].rule + ":" + net::to_string(e.protocol) + "/" +
                    e.ports.to_string() + (e.audit ? " audit" : ""));
    return out;
  }
  static std::vector<std::string> rules_of_prefix(const Compiled& c, const std::string& prefix) {
    for (const auto& [p, list] : c.rules.prefixes) {
      if (p.to_string() == prefix) return describe(c, list);
    }
    return {"no such prefix"};
  }
  static std::vector<std::string> rules_of_name(const Compiled& c, const std::string& pattern) {
    for (const auto& name : c.rules.names) {
      if (name.pattern == pattern) return describe(c, name.list);
    }
    return {"no such pattern"};
  }
  static std::vector<std::string> match(const Compiled& c, const std::string& name) {
    std::vector<std::string> out;
    for (const auto* e : c.names.match(name)) out.push_back(e->pattern.text());
    return out;
  }

  std::string dir_;
  std::unique_ptr<NameIds> ids_;
};

TEST_F(CompilerTest, NarrowPrefixCarriesTheRulesOfTheWideOnesInOrderOfPriority) {
  const auto c = compile_text(R"(
  - {name: b, priority: 300, action: allow, rules: [{name: wide, addresses: [10.0.0.0/8], ports: ["*"], protocols: [tcp]}]}
  - {name: a, priority: 200, action: deny, rules: [{name: narrow, addresses: [10.1.0.0/16], ports: [22], protocols: [tcp]}]}
  - {name: c, priority: 400, action: allow, rules: [{name: host, addresses: [10.1.2.3], ports: [53], protocols: [udp]}]}
)");
  EXPECT_THAT(rules_of_prefix(c, "10.0.0.0/8"), ElementsAre("wide:tcp/*"));
  EXPECT_THAT(rules_of_prefix(c, "10.1.0.0/16"), ElementsAre("!narrow:tcp/22", "wide:tcp/*"));
  EXPECT_THAT(rules_of_prefix(c, "10.1.2.3/32"),
              ElementsAre("!narrow:tcp/22", "wide:tcp/*", "host:udp/53"));
}

TEST_F(CompilerTest, FamiliesDoNotLendEachOtherRules) {
  const auto c = compile_text(R"(
  - {name: a, priority: 200, action: allow, rules: [{name: all6, addresses: ["::/0"], ports: ["*"], protocols: [any]}]}
  - {name: b, priority: 300, action: deny, rules: [{name: v4, addresses: [10.0.0.0/8], ports: ["*"], protocols: [any]}]}
)");
  EXPECT_THAT(rules_of_prefix(c, "10.0.0.0/8"), ElementsAre("!v4:any/*"));
}

TEST_F(CompilerTest, EntriesThatCanNeverDecideAreLeftOut) {
  const auto c = compile_text(R"(
  - {name: a, priority: 200, action: allow, rules: [{name: all, addresses: [10.0.0.0/8], ports: ["*"], protocols: [any]}]}
  - {name: b, priority: 300, action: deny, rules: [{name: late, addresses: [10.1.0.0/16], ports: [22], protocols: [tcp]}]}
)");
  EXPECT_THAT(rules_of_prefix(c, "10.1.0.0/16"), ElementsAre("all:any/*"));
}

TEST_F(CompilerTest, SpecificPatternCarriesTheRulesOfWildcardsAboveIt) {
  const auto c = compile_text(R"(
  - name: deny
    priority: 100
    action: deny
    rules: [{name: bad, fqdns: [evil.blob.example.net], ports: ["*"], protocols: [any]}]
  - name: allow
    priority: 200
    action: allow
    rules:
      - {name: blob, fqdns: ["*.blob.example.net"], ports: [443]}
      - {name: all, fqdns: ["*.example.net"], ports: [80]}
      - {name: disks, fqdns: ["md-*.blob.example.net"], ports: [8443]}
)");
  EXPECT_THAT(rules_of_name(c, "evil.blob.example.net"), ElementsAre("!bad:tcp/*", "!bad:udp/*"));
  EXPECT_THAT(rules_of_name(c, "*.blob.example.net"), ElementsAre("blob:tcp/443", "all:tcp/80"));
  EXPECT_THAT(rules_of_name(c, "md-*.blob.example.net"),
              ElementsAre("blob:tcp/443", "all:tcp/80", "disks:tcp/8443"));
  EXPECT_THAT(rules_of_name(c, "*.example.net"), ElementsAre("all:tcp/80"));

  EXPECT_THAT(match(c, "evil.blob.example.net"), ElementsAre("evil.blob.example.net"));
  EXPECT_THAT(match(c, "md-1.blob.example.net"), ElementsAre("md-*.blob.example.net"));
  EXPECT_THAT(match(c, "a.md-1.blob.example.net"), ElementsAre("*.blob.example.net"));
  EXPECT_THAT(match(c, "x.example.net"), ElementsAre("*.example.net"));
  EXPECT_THAT(match(c, "example.net"), ElementsAre());
  EXPECT_THAT(match(c, "evilexample.net"), ElementsAre());
}

TEST_F(CompilerTest, CrossingInLabelPatternsBothCount) {
  const auto c = compile_text(R"(
  - name: allow
    priority: 200
    action: allow
    rules:
      - {name: front, fqdns: ["a*.example.net"], ports: [443]}
      - {name: back, fqdns: ["*z.example.net"], ports: [80]}
)");
  EXPECT_THAT(match(c, "abz.example.net"),
              UnorderedElementsAre("a*.example.net", "*z.example.net"));
  EXPECT_THAT(match(c, "abc.example.net"), ElementsAre("a*.example.net"));
}

TEST_F(CompilerTest, OnlyAllowedExactNamesAreResolvedAhead) {
  const auto c = compile_text(R"(
  - {name: d, priority: 100, action: deny, rules: [{name: x, fqdns: [denied.example.net], ports: ["*"]}]}
  - {name: a, priority: 200, action: allow, rules: [{name: y, fqdns: [one.example.net, "*.example.org"], ports: [443]}]}
)",
                              "dns: {resolve: [api.example.org]}\n");
  EXPECT_THAT(c.resolve, UnorderedElementsAre("one.example.net", "api.example.org"));
}

TEST_F(CompilerTest, NamesWithNothingAllowedAreMarked) {
  const auto c = compile_text(R"(
  - name: d
    priority: 100
    action: deny
    rules:
      - {name: all, fqdns: [evil.example.net], ports: ["*"], protocols: [any]}
      - {name: one, fqdns: [half.example.net], ports: [22]}
  - {name: a, priority: 200, action: allow, rules: [{name: y, fqdns: ["*.example.net"], ports: [443], allowPrivate: true}]}
)");
  const auto find = [&](const std::string& pattern) {
    for (const auto& n : c.rules.names) {
      if (n.pattern == pattern) return n;
    }
    return enforce::RuleSet::Name{};
  };
  EXPECT_FALSE(find("evil.example.net").allows);
  EXPECT_FALSE(find("evil.example.net").allow_private);
  EXPECT_TRUE(find("half.example.net").allows);
  EXPECT_TRUE(find("half.example.net").allow_private);
  EXPECT_TRUE(find("*.example.net").allows);
}

TEST_F(CompilerTest, DnsFilterFollowsTheModeUnlessSaid) {
  using Filter = enforce::RuleSet::Dns::Filter;
  const std::string rules =
      "  - {name: a, priority: 200, action: allow, rules: [{name: y, fqdns: [a.example], ports: "
      "[1]}]}\n";
  const auto by_mode = compile_text(rules);
  EXPECT_EQ(by_mode.rules.dns.filter, Filter::Enforce);
  EXPECT_THAT(by_mode.rules.dns.ask_only, ElementsAre("corp.example"));
  EXPECT_EQ(by_mode.rules.dns.resolvers.size(), 1u);
  const auto off =
      compile_text(rules, "dns: {filter: off, searchDomains: [svc.cluster.local], grace: 1m}\n");
  EXPECT_EQ(off.rules.dns.filter, Filter::Off);
  EXPECT_EQ(off.rules.dns.grace, std::chrono::seconds(60));
  EXPECT_THAT(off.rules.dns.ask_only, ElementsAre("corp.example", "svc.cluster.local"));
  EXPECT_EQ(compile_text(rules, "dns: {filter: audit}\n").rules.dns.filter, Filter::Audit);
}

TEST_F(CompilerTest, AuditFollowsTheRuleNotTheWholeForAllowRules) {
  const auto c = compile_text(R"(
  - {name: d, priority: 100, action: deny, mode: audit, rules: [{name: tried, addresses: [10.0.0.0/8], ports: ["*"], protocols: [tcp]}]}
  - {name: a, priority: 200, action: allow, rules: [{name: leaving, mode: audit, addresses: [192.0.2.0/24], ports: ["*"], protocols: [tcp]}, {name: plain, addresses: [198.51.100.0/24], ports: ["*"], protocols: [tcp]}]}
)");
  EXPECT_THAT(rules_of_prefix(c, "10.0.0.0/8"), ElementsAre("!tried:tcp/* audit"));
  EXPECT_THAT(rules_of_prefix(c, "192.0.2.0/24"), ElementsAre("leaving:tcp/* audit"));
  EXPECT_THAT(rules_of_prefix(c, "198.51.100.0/24"), ElementsAre("plain:tcp/*"));
}

TEST_F(CompilerTest, TooManyPortRangesOnOneDestinationAreRefusedByName) {
  // The reader of the file would have refused it, with its place.
  policy::Rule rule;
  rule.name = "r";
  rule.prefixes = {*net::Prefix::parse("192.0.2.9")};
  rule.protocols = {net::Protocol::Tcp};
  for (int i = 0; i < 200; ++i) {
    const auto port = static_cast<std::uint16_t>(1000 + 2 * i);
    rule.ports.push_back({port, port});
  }
  policy::Policy policy;
  policy.collections = {{"a", 100, policy::Action::Allow, {rule}}};
  const auto compiled = compile(policy, 1, {}, *ids_);
  ASSERT_FALSE(compiled);
  EXPECT_NE(compiled.error().message.find("192.0.2.9/32"), std::string::npos)
      << compiled.error().message;
}

TEST_F(CompilerTest, ARuleForADnsPortIsNotLostBehindARangeThatDoesNotOpenIt) {
  const auto c = compile_text(R"(
  - name: a
    priority: 200
    action: allow
    rules:
      - {name: all, addresses: [10.0.0.0/8], ports: ["*"], protocols: [any]}
      - {name: dns, addresses: [10.1.0.0/16], ports: [53, 54], protocols: [udp]}
      - {name: range, addresses: [10.1.0.0/16], ports: ["50-60"], protocols: [udp]}
)");
  EXPECT_THAT(rules_of_prefix(c, "10.1.0.0/16"), ElementsAre("all:any/*", "dns:udp/53"));
}

TEST_F(CompilerTest, WhatTheReaderAcceptsFits) {
  const auto ports = [](int count) {
    std::string out;
    for (int i = 0; i < count; ++i) out += (i ? ", " : "") + std::to_string(1000 + 2 * i);
    return out;
  };
  // The rules of a pattern that another one makes pointless take no room.
  std::string text = "  - {name: a, priority: 200, action: allow, rules: [";
  for (int i = 0; i < 40; ++i)
    text += "{name: r" + std::to_string(i) + ", fqdns: ['*.example.net', n" + std::to_string(i) +
            ".example.net], ports: [" + ports(64) + "], protocols: any}, ";
  const auto c = compile_text(text + "]}\n");
  EXPECT_EQ(rules_of_name(c, "n39.example.net").size(), 128u);
  EXPECT_EQ(c.rules.names.size(), 41u);
}

// What bpf/decide.h makes of an address that has no name.
policy::Verdict judge(const Compiled& c, const policy::Destination& destination) {
  using Filter = enforce::RuleSet::Dns::Filter;
  policy::Verdict verdict;
  const enforce::RuleList* list = nullptr;
  int longest = -1;
  for (const auto& [prefix, index] : c.rules.prefixes)
    if (prefix.contains(*destination.address) && prefix.length() > longest) {
      longest = prefix.length();
      list = &c.rules.lists[index];
    }
  const auto walk = [&](bool narrow) {
    for (const auto& entry : list ? *list : enforce::RuleList{}) {
      const bool allow = entry.action == enforce::Action::Allow;
      if (entry.protocol != net::Protocol::Any && entry.protocol != destination.protocol) continue;
      if (!entry.ports.contains(destination.port)) continue;
      if (narrow && allow && entry.ports.first != entry.ports.last) continue;
      verdict.allowed = allow || entry.audit;
      verdict.would_deny = entry.audit;
      verdict.rule = policy::RuleRef{0, entry.rule_id};
      return true;
    }
    return false;
  };
  const bool foreign = destination.port == 53 && c.rules.dns.filter != Filter::Off;
  if (foreign && walk(true)) return verdict;
  if (!(foreign && c.rules.dns.filter == Filter::Enforce) && walk(false)) {
    verdict.would_deny = verdict.would_deny || (foreign && verdict.allowed);
    return verdict;
  }
  verdict.allowed = verdict.would_deny = !c.rules.enforce;
  return verdict;
}

TEST_F(CompilerTest, TheListsMeanWhatTheReferenceSays) {
  std::mt19937 random(1);
  const auto pick = [&](const auto& from) { return from[random() % std::size(from)]; };
  const std::string prefixes[] = {"10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "10.1.1.1"};
  const std::string ports[] = {"'*'", "53", "'50-60'", "80", "53, 54, 80", "'*', 53"};
  const std::string protocols[] = {"any", "tcp", "udp", "[tcp, udp]"};
  const std::string heads[] = {"", "dns: {filter: audit}\n", "dns: {filter: off}\n"};
  int rules_taken = 0;
  for (int round = 0; round < 300; ++round) {
    std::string text = "version: 1\nmode: " + std::string(round % 5 ? "enforce" : "audit") + "\n" +
                       pick(heads) + "collections:\n";
    for (int n = 0; n < 6; ++n)
      text += "  - {name: c" + std::to_string(n) + ", priority: " + std::to_string(100 + n) +
              ", action: " + (random() % 3 ? "allow" : "deny") +
              ", rules: [{name: r, addresses: [" + pick(prefixes) + "], ports: [" + pick(ports) +
              "], protocols: " + pick(protocols) + (random() % 5 ? "" : ", mode: audit") + "}]}\n";
    const auto parsed = policy::parse_policy(text, "t.yaml", policy::TagCatalog::builtin());
    ASSERT_TRUE(parsed) << parsed.error().front().to_string();
    const auto compiled = compile(parsed->policy, 1, {}, *ids_);
    ASSERT_TRUE(compiled) << compiled.error().message;
    for (const char* address : {"10.9.9.9", "10.1.9.9", "10.1.1.9", "10.1.1.1"})
      for (const std::uint16_t port : std::vector<std::uint16_t>{53, 54, 80, 443})
        for (const auto protocol : {net::Protocol::Tcp, net::Protocol::Udp}) {
          const policy::Destination destination{"", net::IpAddress::parse(address), port, protocol};
          const auto is = judge(*compiled, destination);
          const auto should = policy::evaluate(parsed->policy, destination);
          SCOPED_TRACE(text + address + ":" + std::to_string(port) + "/" +
                       net::to_string(protocol) + ": " + should.reason);
          ASSERT_EQ(is.allowed, should.allowed);
          ASSERT_EQ(is.would_deny, should.would_deny);
          ASSERT_EQ(is.rule.has_value(), should.rule.has_value());
          if (!is.rule) continue;
          // One rule a collection: its number is the collection's.
          ASSERT_EQ(is.rule->rule, should.rule->collection);
          ++rules_taken;
        }
  }
  EXPECT_GT(rules_taken, 3000);
}

TEST_F(CompilerTest, NumbersOfPatternsStayAcrossCompilations) {
  const std::string text =
      "  - {name: a, priority: 200, action: allow, rules: [{name: y, fqdns: [b.example, "
      "a.example], ports: [1]}]}\n";
  const auto first = compile_text(text);
  const auto other = compile_text(
      "  - {name: a, priority: 200, action: allow, rules: [{name: y, fqdns: [c.example, "
      "a.example], ports: [1]}]}\n");
  const auto id = [](const Compiled& c, const std::string& pattern) -> std::uint32_t {
    for (const auto& n : c.rules.names) {
      if (n.pattern == pattern) return n.name_id;
    }
    return 0;
  };
  EXPECT_NE(id(first, "a.example"), 0u);
  EXPECT_EQ(id(first, "a.example"), id(other, "a.example"));
  EXPECT_NE(id(first, "b.example"), id(other, "c.example"));
}

}  // namespace
}  // namespace egressd::daemon
