#include "analysis/learn.h"

#include <gmock/gmock.h>

#include "records.h"

namespace egressd::analysis {
namespace {

using testing::AnyOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

Learned learn(const std::vector<audit::Record>& records, LearnOptions options = {}) {
  Learner learner(std::move(options));
  for (const auto& record : records) learner.add(record);
  return learner.finish();
}

// "api.example.com 443 tcp": the rules as its own parser reads them.
std::vector<std::string> rules_of(const Learned& learned) {
  std::vector<std::string> out;
  for (const auto& collection : policy_of(learned.yaml).collections) {
    for (const auto& rule : collection.rules) {
      std::string text;
      for (const auto& f : rule.fqdns) text += f.text() + " ";
      for (const auto& p : rule.prefixes) text += p.to_string() + " ";
      for (const auto& p : rule.ports) text += p.to_string() + " ";
      for (const auto& p : rule.protocols) text += net::to_string(p) + " ";
      if (rule.allow_private) text += "private ";
      text.pop_back();
      out.push_back(text);
    }
  }
  return out;
}

// What is to be true of everything learned: it is valid, and allows what was denied.
void expect_allows(const Learned& learned, const std::vector<audit::Record>& records) {
  const auto policy = policy_of(learned.yaml);
  Judge judge(policy);
  for (const auto& record : records)
    EXPECT_EQ(judge.judge(record).outcome, Outcome::Allowed) << record.to_json() << learned.yaml;
}

TEST(Learn, NamesWithThePortsSeen) {
  const std::vector records = {
      connection("203.0.113.1", 443, {"api.example.com"}),
      connection("203.0.113.1", 80, {"api.example.com"}),
      connection("203.0.113.1", 443, {"api.example.com"}, net::Protocol::Udp)};
  const auto learned = learn(records);
  EXPECT_THAT(rules_of(learned),
              ElementsAre("api.example.com 80 tcp", "api.example.com 443 tcp udp"));
  expect_allows(learned, records);
  EXPECT_THAT(learned.warnings, IsEmpty());
}

TEST(Learn, AddressesByPortAndProtocol) {
  const std::vector records = {
      connection("203.0.113.2", 22),
      connection("203.0.113.1", 22),
      connection("203.0.113.1", 53000, {}, net::Protocol::Udp),
      connection("2001:db8::1", 0, {}, net::Protocol::Icmpv6),
      connection("203.0.113.1", 0, {}, static_cast<net::Protocol>(47)),
      connection("203.0.113.9", 9, {"sctp.example.com"}, net::Protocol::Sctp)};
  const auto learned = learn(records);
  EXPECT_THAT(rules_of(learned), ElementsAre("203.0.113.1/32 203.0.113.2/32 22 tcp",
                                             "203.0.113.1/32 53000 udp", "203.0.113.1/32 * 47",
                                             "2001:db8::1/128 * icmp", "203.0.113.9/32 9 sctp"));
  expect_allows(learned, records);
}

TEST(Learn, AskedNamesGetAGuessedPortAndSaySo) {
  const auto learned = learn({question("api.example.com")});
  EXPECT_THAT(rules_of(learned), ElementsAre("api.example.com 443 tcp"));
  EXPECT_THAT(learned.yaml, HasSubstr("# No connection of it was seen: port 443 is a guess."));
  expect_allows(learned, {question("api.example.com")});
  EXPECT_THAT(rules_of(learn({question("api.example.com")}, {.asked_ports = {80, 8443}})),
              ElementsAre("api.example.com 80 8443 tcp"));
}

TEST(Learn, ConnectionsOfTheNameGiveThePort) {
  const auto learned =
      learn({question("db.example.com"), connection("203.0.113.1", 5432, {"db.example.com"})});
  EXPECT_THAT(rules_of(learned), ElementsAre("db.example.com 5432 tcp"));
  EXPECT_THAT(learned.yaml, Not(HasSubstr("guess")));
}

TEST(Learn, TheAskersNextConnectionGivesThePort) {
  auto asked = question("db.example.com");
  auto went = connection("203.0.113.1", 5432);
  asked.pid = went.pid = 42;
  went.time += std::chrono::milliseconds(1);
  for (const auto& records : {std::vector{asked, went}, std::vector{went, asked}}) {
    const auto learned = learn(records);
    EXPECT_THAT(rules_of(learned),
                ElementsAre("db.example.com 5432 tcp", "203.0.113.1/32 5432 tcp"));
    EXPECT_THAT(learned.yaml, HasSubstr("asked just before by the same process: db.example.com"));
  }
  went.pid = 43;
  EXPECT_THAT(rules_of(learn({asked, went})),
              ElementsAre("db.example.com 443 tcp", "203.0.113.1/32 5432 tcp"));
  went.pid = 42;
  went.time += std::chrono::minutes(1);
  EXPECT_THAT(rules_of(learn({asked, went})),
              ElementsAre("db.example.com 443 tcp", "203.0.113.1/32 5432 tcp"));
}

TEST(Learn, WildcardsDoNotSpreadPorts) {
  const std::vector records = {connection("203.0.113.1", 443, {"a.example.com"}),
                               connection("203.0.113.1", 443, {"b.example.com"}),
                               connection("203.0.113.1", 443, {"c.example.com"}),
                               connection("203.0.113.1", 22, {"c.example.com"})};
  const auto learned = learn(records);
  EXPECT_THAT(rules_of(learned), ElementsAre("*.example.com 443 tcp", "c.example.com 22 tcp"));
  EXPECT_THAT(learned.yaml, HasSubstr("# Seen: a.example.com, b.example.com, c.example.com"));
  expect_allows(learned, records);
}

TEST(Learn, SharedPlatformsKeepTheirNames) {
  const std::vector records = {connection("203.0.113.1", 443, {"a.blob.core.windows.net"}),
                               connection("203.0.113.1", 443, {"b.blob.core.windows.net"}),
                               connection("203.0.113.1", 443, {"c.blob.core.windows.net"})};
  const auto learned = learn(records);
  EXPECT_EQ(rules_of(learned).size(), 3u);
  ASSERT_EQ(learned.warnings.size(), 1u);
  EXPECT_THAT(learned.warnings[0], HasSubstr("blob.core.windows.net is a shared platform"));
  EXPECT_THAT(learned.yaml, HasSubstr("# WARNING: 3 names below blob.core.windows.net"));
}

TEST(Learn, PrivateAddressesOfNames) {
  const std::vector records = {connection("10.1.2.3", 443, {"a.example.com"}),
                               connection("203.0.113.1", 443, {"b.example.com"})};
  const auto learned = learn(records);
  EXPECT_THAT(rules_of(learned),
              ElementsAre("a.example.com 443 tcp private", "b.example.com 443 tcp"));
  EXPECT_THAT(learned.yaml, HasSubstr("# allowPrivate: it leads to private addresses"));
  expect_allows(learned, records);
  // The resolver's address says nothing of the name.
  auto asked = question("c.example.com");
  asked.destination = *net::IpAddress::parse("10.0.0.53");
  EXPECT_THAT(rules_of(learn({asked})), ElementsAre("c.example.com 443 tcp"));
}

TEST(Learn, PrivateNamesMakeNoWildcardForOthers) {
  std::vector<audit::Record> records;
  for (const char* name : {"a.example.com", "b.example.com", "c.example.com"})
    records.push_back(connection("203.0.113.1", 443, {name}));
  for (const char* name : {"x.example.com", "y.example.com", "z.example.com"})
    records.push_back(connection("10.0.0.1", 443, {name}));
  const auto learned = learn(records);
  EXPECT_THAT(rules_of(learned),
              ElementsAre("*.example.com 443 tcp private", "a.example.com 443 tcp",
                          "b.example.com 443 tcp", "c.example.com 443 tcp"));
}

class NeverOpened : public testing::TestWithParam<const char*> {};

TEST_P(NeverOpened, IsCommentedOut) {
  for (const bool named : {false, true}) {
    const auto learned = learn(
        {connection(GetParam(), 80,
                    named ? std::vector<std::string>{"x.example.com"} : std::vector<std::string>{}),
         connection("203.0.113.1", 443)});
    EXPECT_THAT(rules_of(learned), ElementsAre("203.0.113.1/32 443 tcp"));
    ASSERT_EQ(learned.warnings.size(), 1u);
    EXPECT_THAT(learned.warnings[0], HasSubstr(GetParam()));
    EXPECT_THAT(learned.yaml, HasSubstr("# NOT ALLOWED"));
    EXPECT_THAT(learned.yaml, HasSubstr("      #     - \"" + std::string(GetParam()) + "\""));
  }
}

INSTANTIATE_TEST_SUITE_P(All, NeverOpened,
                         testing::Values("127.0.0.1", "::1", "169.254.169.254", "169.254.1.1",
                                         "168.63.129.16", "fe80::1", "100.100.100.200",
                                         "fd00:ec2::254", "224.0.0.251", "64:ff9b::a9fe:a9fe"));

TEST(Learn, DnsBesideTheResolversIsCommentedOut) {
  auto dns = connection("203.0.113.53", 53, {}, net::Protocol::Udp);
  dns.reason = "dns_server_not_allowed";
  const auto learned = learn({dns, connection("203.0.113.1", 853, {"dot.example.com"})});
  EXPECT_EQ(learned.rules, 0u);
  EXPECT_EQ(learned.warnings.size(), 2u);
  EXPECT_THAT(learned.yaml, HasSubstr("#     - \"203.0.113.53\""));
  EXPECT_THAT(learned.yaml, HasSubstr("name: dot.example.com"));
}

TEST(Learn, DenyRulesStay) {
  auto refused = connection("203.0.113.1", 443, {"bad.example.com"});
  refused.reason = "deny_rule";
  const auto learned = learn({refused, connection("203.0.113.2", 443)});
  EXPECT_THAT(rules_of(learned), ElementsAre("203.0.113.2/32 443 tcp"));
  EXPECT_THAT(learned.yaml, HasSubstr("# No rule for 1 denial: refused by a deny rule"));
  EXPECT_THAT(learned.yaml, HasSubstr("#   bad.example.com port 443/tcp (1)"));
}

TEST(Learn, WhatTheGivenPolicyAllowsOrDeniesIsLeftOut) {
  const auto existing = policy_of(
      "version: 1\nmode: enforce\ncollections:\n"
      "  - {name: no, priority: 999, action: deny, rules: [{name: r, fqdns: [bad.example.com], "
      "ports: [443]}]}\n"
      "  - {name: c, priority: 1000, action: allow, rules: [{name: r, fqdns: [a.example.com], "
      "ports: [443]}]}\n");
  const auto learned =
      learn({connection("203.0.113.1", 443, {"a.example.com"}),
             connection("203.0.113.1", 80, {"a.example.com"}), question("a.example.com"),
             connection("203.0.113.1", 443, {"bad.example.com"})},
            {.existing = &existing});
  EXPECT_THAT(rules_of(learned), ElementsAre("a.example.com 80 tcp"));
  EXPECT_EQ(policy_of(learned.yaml).mode, policy::Mode::Enforce);
  EXPECT_EQ(policy_of(learned.yaml).collections[0].priority, 1001u);
  EXPECT_THAT(learned.yaml, HasSubstr("deny rule of the given policy"));
}

TEST(Learn, NothingToLearnIsNoPolicy) {
  EXPECT_EQ(learn({}).rules, 0u);
  EXPECT_THAT(learn({}).yaml, HasSubstr("this is no policy"));
}

TEST(Learn, HostileTextsStayInComments) {
  auto record = connection("203.0.113.1", 443, {"api.example.com", "x\n  - name: evil"});
  record.comm = "a\nmode: audit\n\x1b[31m";
  record.reason = "malformed";
  auto odd = connection("203.0.113.1", 443, {"bad name\n      - name: evil"});
  odd.comm = record.comm;
  auto fine = connection("203.0.113.3", 443, {"api.example.com", "x\n  - name: evil"});
  fine.exe = "/tmp/\n# \xff\"";
  const auto learned = learn({record, odd, fine});
  EXPECT_THAT(rules_of(learned), ElementsAre("api.example.com 443 tcp", "203.0.113.1/32 443 tcp"));
  for (const char c : learned.yaml)
    EXPECT_THAT(c, AnyOf('\n', testing::AllOf(testing::Ge(' '), testing::Le('~'))));
  EXPECT_THAT(learned.yaml, Not(HasSubstr("\n  - name: evil")));
  EXPECT_THAT(learned.yaml, HasSubstr("a\\x0amode: audit\\x0a"));
}

// More ports than the kernel's list of one destination takes: the rest is left out and said.
TEST(Learn, ManyPortsStayWithinTheLimits) {
  std::vector<audit::Record> records;
  for (std::uint16_t port = 1; port < 1000; port += 2) {
    if (port == 53 || port == 853) continue;
    records.push_back(connection("203.0.113.1", port, {"a.example.com"}));
    records.push_back(connection("203.0.113.2", port));
    for (const char* name : {"x", "y", "z"})
      records.push_back(connection("203.0.113.3",
                                   static_cast<std::uint16_t>(port + 10'000 * (name[0] - 'w')),
                                   {std::string(name) + ".example.net"}));
  }
  const auto learned = learn(records);
  EXPECT_GT(policy_of(learned.yaml).collections.size(), 0u);
  ASSERT_EQ(learned.warnings.size(), 1u);
  EXPECT_THAT(learned.warnings[0], HasSubstr("left out"));
}

TEST(Learn, ManyNamesAndAddressesStayWithinTheLimits) {
  Learner learner({});
  for (std::uint32_t i = 0; i < 60'000; ++i) {
    auto record = connection("203.0.113.1", 443);
    record.destination = net::IpAddress::v4(0x0b000000 + i);
    learner.add(record);
    record.fqdns = {"a.d" + std::to_string(i) + ".example"};
    learner.add(record);
  }
  const auto learned = learner.finish();
  EXPECT_EQ(learned.rules, Learner::kMaxNames + 1);
  EXPECT_EQ(policy_of(learned.yaml).collections.size(), 1u);
  ASSERT_EQ(learned.warnings.size(), 1u);
  EXPECT_THAT(learned.warnings[0], HasSubstr("60000 denials left out"));
}

TEST(Learn, LongNamesHaveShortRuleNames) {
  const std::string label(60, 'a');
  const std::string domain = label + "." + label + "." + label + ".example.com";
  const std::vector records = {connection("203.0.113.1", 443, {"x." + domain}),
                               connection("203.0.113.1", 80, {"x." + domain}, net::Protocol::Udp),
                               connection("203.0.113.1", 443, {"y." + domain})};
  const auto learned = learn(records);
  EXPECT_EQ(rules_of(learned).size(), 3u);
  expect_allows(learned, records);
}

}  // namespace
}  // namespace egressd::analysis
