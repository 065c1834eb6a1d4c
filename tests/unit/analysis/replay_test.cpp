#include "analysis/replay.h"

#include "records.h"

namespace egressd::analysis {
namespace {

constexpr char kPolicy[] =
    "version: 1\nmode: enforce\ncollections:\n  - {name: c, priority: 100, action: allow, rules: "
    "[{name: r, fqdns: [a.example.com], ports: [443]}]}\n";

audit::Record denied(audit::Record record) {
  record.denied = true;
  return record;
}

TEST(Replay, GroupsWhatChangesByDestination) {
  const auto policy = policy_of(kPolicy);
  Replay replay(policy);
  auto many = denied(connection("203.0.113.1", 443, {"a.example.com"}));
  many.count = 5;
  replay.add(many);
  replay.add(denied(connection("203.0.113.2", 443, {"a.example.com"})));
  replay.add(denied(connection("203.0.113.3", 443, {"b.example.com"})));  // stays
  replay.add(connection("203.0.113.3", 22));  // passed in audit mode: enforce would deny it
  replay.add(denied(question("a.example.com")));
  const auto changes = replay.changes();
  ASSERT_EQ(changes.size(), 3u);
  EXPECT_EQ(changes[0].destination, "a.example.com");
  EXPECT_EQ(changes[0].count, 6u);
  EXPECT_EQ(changes[0].before, Outcome::Denied);
  EXPECT_EQ(changes[0].after, Outcome::Allowed);
  EXPECT_EQ(changes[0].after_rule, "c/r");
  EXPECT_EQ(changes[1].destination, "203.0.113.3");
  EXPECT_EQ(changes[1].before, Outcome::WouldDeny);
  EXPECT_EQ(changes[1].after, Outcome::Denied);
  EXPECT_TRUE(changes[2].question);
  EXPECT_EQ(replay.totals().verdicts, 9u);
  EXPECT_EQ(replay.totals().changed, 8u);
  EXPECT_EQ(replay.totals().nameless, 1u);
}

TEST(Replay, NothingChanges) {
  const auto policy = policy_of(kPolicy);
  Replay replay(policy);
  replay.add(denied(connection("203.0.113.3", 443, {"b.example.com"})));
  replay.add(denied(connection("203.0.113.3", 80, {"a.example.com"})));
  replay.add(denied(question("b.example.com")));
  EXPECT_TRUE(replay.changes().empty());
  EXPECT_EQ(replay.totals().changed, 0u);
}

TEST(Replay, UncertainIsNeitherChangedNorTheSame) {
  const auto policy = policy_of(kPolicy);
  Replay replay(policy);
  replay.add(denied(connection("203.0.113.3", 443, {"a.example.com", "b.example.com"})));
  EXPECT_EQ(replay.totals().changed, 0u);
  EXPECT_EQ(replay.totals().uncertain, 1u);
  ASSERT_EQ(replay.changes().size(), 1u);
  EXPECT_FALSE(replay.changes()[0].why.empty());
}

TEST(Replay, WhatNoPolicyDecidesIsSetAside) {
  const auto policy = policy_of(kPolicy);
  Replay replay(policy);
  auto record = denied(connection("203.0.113.3", 0));
  record.reason = "malformed";
  replay.add(record);
  EXPECT_EQ(replay.totals().unjudged, 1u);
  EXPECT_TRUE(replay.changes().empty());
}

}  // namespace
}  // namespace egressd::analysis
