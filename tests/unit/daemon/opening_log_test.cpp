#include "daemon/opening_log.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>

namespace egressd::daemon {
namespace {

using audit::Notice;
using std::chrono::seconds;
using testing::IsEmpty;
using testing::SizeIs;

constexpr BootTime kNow = seconds(1000);
const std::chrono::system_clock::time_point kWall{seconds(1'700'000'000)};

class OpeningLogTest : public testing::Test {
 protected:
  ~OpeningLogTest() override { std::filesystem::remove(path_); }
  [[nodiscard]] OpeningLog load() const { return OpeningLog::load(path_); }
  static enforce::Opening opened(seconds since, seconds until) {
    return {.since = since, .until = until, .uid = 7, .reason = "why"};
  }
  static std::vector<Notice> look(OpeningLog& log, const enforce::Opening& opening,
                                  BootTime now = kNow) {
    return log.look(opening, now, kWall + std::chrono::duration_cast<seconds>(now - kNow));
  }

  std::string path_ = std::filesystem::temp_directory_path() /
                      ("egressd-opening-log-test." + std::to_string(::getpid()));
};

TEST_F(OpeningLogTest, NothingOpenedNothingSaid) {
  OpeningLog log = load();
  EXPECT_THAT(look(log, {}), IsEmpty());
  EXPECT_EQ(log.openings(), 0u);
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(OpeningLogTest, BothEndsOnceWithTheirTimes) {
  OpeningLog log = load();
  auto news = look(log, opened(seconds(990), seconds(1060)));
  ASSERT_THAT(news, SizeIs(1));
  EXPECT_EQ(news[0].event, Notice::Event::BreakGlassOpened);
  EXPECT_EQ(news[0].time, kWall - seconds(10));
  EXPECT_EQ(news[0].until, kWall + seconds(60));
  EXPECT_EQ(news[0].uid, 7u);
  EXPECT_EQ(news[0].comment, "why");
  EXPECT_THAT(look(log, opened(seconds(990), seconds(1060)), seconds(1059)), IsEmpty());
  news = look(log, opened(seconds(990), seconds(1060)), seconds(1061));
  ASSERT_THAT(news, SizeIs(1));
  EXPECT_EQ(news[0].event, Notice::Event::BreakGlassClosed);
  EXPECT_EQ(news[0].time, kWall + seconds(60));
  EXPECT_EQ(news[0].until, std::nullopt);
  EXPECT_THAT(look(log, opened(seconds(990), seconds(1060)), seconds(1062)), IsEmpty());
  EXPECT_EQ(log.openings(), 1u);
}

TEST_F(OpeningLogTest, OpenedAndClosedBetweenTwoLooks) {
  OpeningLog log = load();
  const auto news = look(log, opened(seconds(998), seconds(999)));
  ASSERT_THAT(news, SizeIs(2));
  EXPECT_EQ(news[0].event, Notice::Event::BreakGlassOpened);
  EXPECT_EQ(news[1].event, Notice::Event::BreakGlassClosed);
  EXPECT_EQ(news[1].time, kWall - seconds(1));
}

TEST_F(OpeningLogTest, TheNextAgentGoesOnWhereTheLastWas) {
  {
    OpeningLog log = load();
    ASSERT_THAT(look(log, opened(seconds(990), seconds(1060))), SizeIs(1));
  }
  {
    OpeningLog log = load();
    EXPECT_THAT(look(log, opened(seconds(990), seconds(1060)), seconds(1001)), IsEmpty());
    EXPECT_EQ(log.openings(), 0u);
  }
  {
    OpeningLog log = load();
    EXPECT_THAT(look(log, opened(seconds(990), seconds(1060)), seconds(1100)), SizeIs(1));
  }
  OpeningLog log = load();
  EXPECT_THAT(look(log, opened(seconds(990), seconds(1060)), seconds(1101)), IsEmpty());
}

TEST_F(OpeningLogTest, WhatIsGoneFromTheKernelHasEndedByNow) {
  {
    OpeningLog log = load();
    ASSERT_THAT(look(log, opened(seconds(990), seconds(1060))), SizeIs(1));
  }
  OpeningLog log = load();
  const auto news = look(log, {}, seconds(1001));
  ASSERT_THAT(news, SizeIs(1));
  EXPECT_EQ(news[0].event, Notice::Event::BreakGlassClosed);
  EXPECT_EQ(news[0].time, kWall + seconds(1)) << "not when the machine booted";
  EXPECT_EQ(news[0].uid, std::nullopt) << "not root";
  EXPECT_THAT(look(log, {}, seconds(1002)), IsEmpty());
}

TEST_F(OpeningLogTest, LongerIsAnotherOpening) {
  OpeningLog log = load();
  ASSERT_THAT(look(log, opened(seconds(990), seconds(1060))), SizeIs(1));
  const auto news = look(log, opened(seconds(1000), seconds(1200)));
  ASSERT_THAT(news, SizeIs(1));
  EXPECT_EQ(news[0].event, Notice::Event::BreakGlassOpened);
  EXPECT_EQ(log.openings(), 2u);
}

}  // namespace
}  // namespace egressd::daemon
