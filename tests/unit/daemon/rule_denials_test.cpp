#include "daemon/rule_denials.h"

#include <gtest/gtest.h>

namespace egressd::daemon {
namespace {

using enforce::Action;
using enforce::RuleEntry;
using enforce::RuleSet;

RuleEntry entry(std::uint32_t rule_id, Action action, bool audit = false) {
  RuleEntry made;
  made.rule_id = rule_id;
  made.action = action;
  made.audit = audit;
  return made;
}

RuleSet rules() {
  RuleSet set;
  set.rule_names = {{"a", "allows"}, {"b", "denies"}, {"c", "audits"}};
  set.lists = {{entry(0, Action::Allow), entry(1, Action::Deny)},
               {entry(1, Action::Deny), entry(2, Action::Allow, true)}};
  return set;
}

TEST(RuleDenials, RulesThatCanRefuseBeginAtZero) {
  RuleDenials denials;
  denials.follow(rules());
  ASSERT_EQ(denials.all().size(), 2u);
  EXPECT_EQ(denials.all().at({"b", "denies"}).denied, 0u);
  EXPECT_EQ(denials.all().at({"c", "audits"}).would_deny, 0u);
}

TEST(RuleDenials, CountsSurviveAChangeOfThePolicyThatKeepsTheRule) {
  RuleDenials denials;
  denials.follow(rules());
  denials.count({"b", "denies"}, true);
  denials.count({"b", "denies"}, true);
  denials.count({"c", "audits"}, false);
  RuleSet next;
  next.rule_names = {{"c", "audits"}, {"d", "new"}};
  next.lists = {{entry(0, Action::Allow, true), entry(1, Action::Deny)}};
  denials.follow(next);
  ASSERT_EQ(denials.all().size(), 2u);
  EXPECT_EQ(denials.all().at({"c", "audits"}).would_deny, 1u);
  EXPECT_EQ(denials.all().at({"d", "new"}).denied, 0u);
  denials.count({"b", "denies"}, true);  // of an earlier generation, read late
  EXPECT_EQ(denials.all().size(), 2u);
}

TEST(RuleDenials, BeyondTheLimitRulesShareOneEntry) {
  RuleSet many;
  many.lists.emplace_back();
  for (std::uint32_t i = 0; i < RuleDenials::kMaxRules + 50; ++i) {
    many.rule_names.push_back({"c", std::to_string(i)});
    many.lists[0].push_back(entry(i, Action::Deny));
  }
  RuleDenials denials;
  denials.follow(many);
  EXPECT_EQ(denials.all().size(), RuleDenials::kMaxRules + 1);
  denials.count({"c", std::to_string(RuleDenials::kMaxRules + 7)}, true);
  denials.count({"c", "3"}, true);
  EXPECT_EQ(denials.all().at({"", ""}).denied, 1u);
  EXPECT_EQ(denials.all().at({"c", "3"}).denied, 1u);
}

}  // namespace
}  // namespace egressd::daemon
