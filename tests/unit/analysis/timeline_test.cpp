#include "analysis/timeline.h"

#include <gtest/gtest.h>

namespace egressd::analysis {
namespace {

SystemTime at(std::int64_t seconds) { return SystemTime(std::chrono::seconds(seconds)); }

std::uint64_t total(const Timeline& timeline) {
  std::uint64_t sum = 0;
  for (const auto& [index, bucket] : timeline.buckets()) sum += bucket.denied + bucket.passed;
  return sum;
}

TEST(Timeline, SecondsWhileTheyFit) {
  Timeline timeline;
  for (int i = 0; i < 120; ++i) timeline.add(at(1000 + i), i % 2 == 0, 2);
  EXPECT_EQ(timeline.seconds_per_bucket(), 1);
  EXPECT_EQ(timeline.buckets().size(), 120u);
  EXPECT_EQ(timeline.buckets().at(1000).denied, 2u);
  EXPECT_EQ(timeline.buckets().at(1001).passed, 2u);
}

TEST(Timeline, GrowsWithoutLosingAny) {
  Timeline timeline;
  for (int i = 0; i < 86'400; ++i) timeline.add(at(1'000'000 + i * 7), true, 1);
  EXPECT_LE(timeline.buckets().size(), 120u);
  EXPECT_EQ(total(timeline), 86'400u);
  EXPECT_EQ(timeline.seconds_per_bucket(), 10'800);
}

// In any order, and with the longest time a record can have.
TEST(Timeline, TimesOutOfOrder) {
  Timeline timeline;
  for (const std::int64_t t : std::initializer_list<std::int64_t>{100, 5, 7'000'000'000, 0, -1, 50})
    timeline.add(at(t), true, 1);
  EXPECT_LE(timeline.buckets().size(), 120u);
  EXPECT_EQ(total(timeline), 6u);
}

TEST(Timeline, EarlierThanAllBefore) {
  Timeline timeline;
  timeline.add(at(1'000'000), true, 1);
  timeline.add(at(0), false, 1);
  EXPECT_EQ(timeline.seconds_per_bucket(), 10'800);
  EXPECT_EQ(timeline.buckets().begin()->second.passed, 1u);
}

}  // namespace
}  // namespace egressd::analysis
