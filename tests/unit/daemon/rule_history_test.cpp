#include "daemon/rule_history.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

namespace egressd::daemon {
namespace {

class RuleHistoryTest : public ::testing::Test {
 protected:
  RuleHistoryTest() {
    char dir[] = "/tmp/egressd-rules-XXXXXX";
    dir_ = ::mkdtemp(dir);
    path_ = dir_ + "/rules";
  }
  ~RuleHistoryTest() override { std::filesystem::remove_all(dir_); }

  static std::string text(const RuleHistory& history, std::uint32_t generation, std::uint32_t id) {
    const auto* name = history.find(generation, id);
    return name == nullptr ? "-" : name->collection + "/" + name->rule;
  }
  std::string dir_, path_;
};

TEST_F(RuleHistoryTest, TheLastTwoGenerationsSurviveARestart) {
  auto first = RuleHistory::load(path_, "12");
  for (std::uint32_t g = 1; g <= 3; ++g)
    ASSERT_TRUE(first.add(g, {{"c" + std::to_string(g), "r\n\"\xff"}, {"c", "other"}}));
  EXPECT_EQ(text(first, 1, 1), "c/other");
  EXPECT_EQ(text(first, 1, 2), "-");
  EXPECT_EQ(text(first, 4, 0), "-");

  const auto second = RuleHistory::load(path_, "12");
  EXPECT_EQ(text(second, 3, 0), "c3/r\n\"\xef\xbf\xbd");
  EXPECT_EQ(text(second, 2, 1), "c/other");
  EXPECT_EQ(text(second, 1, 0), "-");
  EXPECT_EQ(text(RuleHistory::load(path_, "13"), 3, 0), "-") << "other maps";
}

TEST_F(RuleHistoryTest, AGenerationThatNeverCameIntoForceIsReplaced) {
  auto history = RuleHistory::load(path_, "12");
  ASSERT_TRUE(history.add(1, {{"c", "old"}}));
  ASSERT_TRUE(history.add(2, {{"c", "refused"}}));
  ASSERT_TRUE(history.add(2, {{"c", "new"}}));
  EXPECT_EQ(text(history, 2, 0), "c/new");
  EXPECT_EQ(text(RuleHistory::load(path_, "12"), 1, 0), "c/old");
}

TEST_F(RuleHistoryTest, OnlyTheLastFewAreRemembered) {
  auto history = RuleHistory::load(path_, "12");
  for (std::uint32_t g = 1; g <= 20; ++g) ASSERT_TRUE(history.add(g, {{"c", "r"}}));
  EXPECT_EQ(text(history, 12, 0), "-");
  EXPECT_EQ(text(history, 13, 0), "c/r");
}

TEST_F(RuleHistoryTest, ADamagedFileDoesNotCount) {
  for (const char* line : {"{}", "[]", "[-1]", "[3,[\"c\"]]", "[3,[\"c\",7]]", "[3", ""}) {
    auto history = RuleHistory::load(path_, "12");
    ASSERT_TRUE(history.add(2, {{"c", "r"}}));
    std::ofstream(path_, std::ios::app) << line << "\n";
    EXPECT_EQ(text(RuleHistory::load(path_, "12"), 2, 0), "-") << line;
    std::filesystem::remove(path_);
  }
}

TEST_F(RuleHistoryTest, WithoutADirectoryNothingIsLostButTheFile) {
  auto history = RuleHistory::load(dir_ + "/missing/rules", "12");
  EXPECT_FALSE(history.add(1, {{"c", "r"}}));
  EXPECT_EQ(text(history, 1, 0), "c/r");
}

}  // namespace
}  // namespace egressd::daemon
