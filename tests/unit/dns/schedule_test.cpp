#include "dns/schedule.h"

#include <gtest/gtest.h>

namespace egressd::dns {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr seconds kMin{60};
constexpr seconds kMax{86400};

TEST(RefreshDelay, LiesInTheLastQuarterOfTheTtl) {
  EXPECT_EQ(refresh_delay(seconds(1000), kMin, kMax, 0.0), seconds(750));
  EXPECT_EQ(refresh_delay(seconds(1000), kMin, kMax, 0.5), seconds(825));
  EXPECT_LT(refresh_delay(seconds(1000), kMin, kMax, 0.999), seconds(900));
}

// Addresses of short TTLs stay in force for the minimum, without grace not longer.
TEST(RefreshDelay, ShortTtlsCountAsTheMinimum) {
  for (const seconds ttl : {seconds(0), seconds(1), seconds(59), kMin}) {
    EXPECT_EQ(refresh_delay(ttl, kMin, kMax, 0.0), seconds(45)) << ttl.count();
    EXPECT_LT(refresh_delay(ttl, kMin, kMax, 0.999), seconds(54)) << ttl.count();
  }
  EXPECT_EQ(refresh_delay(seconds(80), kMin, kMax, 0.0), seconds(60));
}

TEST(RefreshDelay, HugeTtlsAreCutToTheMaximum) {
  EXPECT_EQ(refresh_delay(seconds(0x7fffffff), kMin, kMax, 0.0), seconds(64800));
  EXPECT_LT(refresh_delay(seconds(0x7fffffff), kMin, kMax, 0.999), kMax);
}

TEST(RetryDelay, DoublesUpToTheLimit) {
  const seconds limit(60);
  const double half = 0.0;
  EXPECT_EQ(retry_delay(1, limit, half), milliseconds(500));
  EXPECT_EQ(retry_delay(2, limit, half), seconds(1));
  EXPECT_EQ(retry_delay(3, limit, half), seconds(2));
  EXPECT_EQ(retry_delay(6, limit, half), seconds(16));
  EXPECT_EQ(retry_delay(7, limit, half), seconds(30));
  EXPECT_EQ(retry_delay(8, limit, half), seconds(30));
}

TEST(RetryDelay, JitterSpansHalfOfTheDelay) {
  EXPECT_EQ(retry_delay(3, seconds(60), 0.5), seconds(3));
  EXPECT_LT(retry_delay(3, seconds(60), 0.999), seconds(4));
}

TEST(RetryDelay, EndlessFailuresDoNotOverflow) {
  EXPECT_EQ(retry_delay(UINT32_MAX, seconds(60), 0.0), seconds(30));
  EXPECT_EQ(retry_delay(UINT32_MAX, seconds(1LL << 40), 0.0), seconds(1LL << 29));
  EXPECT_EQ(retry_delay(0, seconds(60), 0.0), milliseconds(500));
}

}  // namespace
}  // namespace egressd::dns
