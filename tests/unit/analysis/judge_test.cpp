#include "analysis/judge.h"

#include <gmock/gmock.h>

#include "records.h"

namespace egressd::analysis {
namespace {

using testing::HasSubstr;

constexpr char kPolicy[] = R"(
version: 1
mode: enforce
dns: {servers: [192.0.2.53], searchDomains: [svc.example]}
collections:
  - name: deny
    priority: 100
    action: deny
    rules:
      - {name: bad, fqdns: [bad.example.com], ports: ["*"], protocols: [any]}
      - {name: host, addresses: [203.0.113.66], ports: ["*"], protocols: [tcp]}
  - name: allow
    priority: 200
    action: allow
    rules:
      - {name: api, fqdns: [api.example.com, bad.example.com], ports: [443]}
      - {name: inner, fqdns: [inner.example.com], ports: [443], allowPrivate: true}
      - {name: net, addresses: [198.51.100.0/24], ports: [22], protocols: [tcp]}
)";

class JudgeTest : public testing::Test {
 protected:
  Judgement judge(const audit::Record& record) { return judge_.judge(record); }
  const policy::Policy policy_ = policy_of(kPolicy);
  Judge judge_{policy_};
};

TEST_F(JudgeTest, ByNameAndByAddress) {
  EXPECT_EQ(judge(connection("203.0.113.1", 443, {"api.example.com"})).outcome, Outcome::Allowed);
  EXPECT_EQ(judge(connection("203.0.113.1", 443, {"api.example.com"})).rule, "allow/api");
  EXPECT_EQ(judge(connection("203.0.113.1", 80, {"api.example.com"})).outcome, Outcome::Denied);
  EXPECT_EQ(judge(connection("203.0.113.1", 443)).outcome, Outcome::Denied);
  EXPECT_EQ(judge(connection("198.51.100.9", 22)).rule, "allow/net");
}

TEST_F(JudgeTest, NetworkRulesComeFirst) {
  EXPECT_EQ(judge(connection("203.0.113.66", 443, {"api.example.com"})).rule, "deny/host");
  EXPECT_EQ(judge(connection("198.51.100.9", 22, {"bad.example.com"})).rule, "allow/net");
}

TEST_F(JudgeTest, NamesThatDisagreeAreUncertain) {
  const auto j = judge(connection("203.0.113.1", 443, {"api.example.com", "other.example.com"}));
  EXPECT_EQ(j.outcome, Outcome::Uncertain);
  EXPECT_THAT(j.why, HasSubstr("api.example.com is allowed by allow/api"));
  EXPECT_THAT(j.why, HasSubstr("other.example.com is denied"));
  EXPECT_EQ(judge(connection("203.0.113.1", 80, {"api.example.com", "other.example.com"})).outcome,
            Outcome::Denied);
}

TEST_F(JudgeTest, DenyRulesAreTold) {
  const auto j = judge(connection("203.0.113.1", 443, {"bad.example.com"}));
  EXPECT_TRUE(j.by_deny_rule);
  EXPECT_EQ(j.rule, "deny/bad");
}

TEST_F(JudgeTest, PrivateAddressesNeedAllowPrivate) {
  EXPECT_EQ(judge(connection("10.0.0.1", 443, {"api.example.com"})).outcome, Outcome::Denied);
  EXPECT_THAT(judge(connection("10.0.0.1", 443, {"api.example.com"})).why,
              HasSubstr("allowPrivate"));
  EXPECT_EQ(judge(connection("10.0.0.1", 443, {"inner.example.com"})).outcome, Outcome::Allowed);
  EXPECT_EQ(judge(connection("169.254.169.254", 443, {"inner.example.com"})).outcome,
            Outcome::Denied);
}

TEST_F(JudgeTest, Questions) {
  EXPECT_EQ(judge(question("api.example.com")).outcome, Outcome::Allowed);
  EXPECT_EQ(judge(question("API.example.com.")).outcome, Outcome::Allowed);
  EXPECT_EQ(judge(question("other.example.com")).outcome, Outcome::Denied);
  EXPECT_EQ(judge(question("bad.example.com")).outcome, Outcome::Denied);
  EXPECT_EQ(judge(question("a.svc.example")).outcome, Outcome::Allowed);
  EXPECT_EQ(judge(question("asvc.example")).outcome, Outcome::Denied);
  EXPECT_EQ(judge(question("not a name")).outcome, Outcome::Denied);
}

TEST_F(JudgeTest, AQuestionToAnotherResolverIsForeignDns) {
  auto asked = question("api.example.com");
  asked.destination = *net::IpAddress::parse("203.0.113.53");
  EXPECT_EQ(judge(asked).outcome, Outcome::Denied);
  EXPECT_THAT(judge(asked).why, HasSubstr("not in dns.servers"));
}

TEST_F(JudgeTest, WhatNoPolicyDecides) {
  auto record = connection("203.0.113.1", 443);
  record.reason = "malformed";
  EXPECT_FALSE(judge(record).by_policy);
  EXPECT_EQ(judge(record).outcome, Outcome::WouldDeny);
  record.denied = true;
  EXPECT_EQ(judge(record).outcome, Outcome::Denied);
}

TEST(Judge, AuditModeWouldDeny) {
  const auto policy = policy_of(
      "version: 1\nmode: audit\ncollections:\n  - {name: c, priority: 100, action: allow, rules: "
      "[{name: r, fqdns: [a.example.com], ports: [443]}]}\n");
  Judge judge(policy);
  EXPECT_EQ(judge.judge(connection("203.0.113.1", 443)).outcome, Outcome::WouldDeny);
  EXPECT_EQ(judge.judge(question("b.example.com")).outcome, Outcome::WouldDeny);
  EXPECT_EQ(judge.judge(connection("10.0.0.1", 443, {"a.example.com"})).outcome,
            Outcome::WouldDeny);
}

}  // namespace
}  // namespace egressd::analysis
