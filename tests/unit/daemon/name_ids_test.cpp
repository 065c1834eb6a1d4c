#include "daemon/name_ids.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

namespace egressd::daemon {
namespace {

class NameIdsTest : public ::testing::Test {
 protected:
  NameIdsTest() {
    char dir[] = "/tmp/egressd-names-XXXXXX";
    dir_ = ::mkdtemp(dir);
    path_ = dir_ + "/names";
  }
  ~NameIdsTest() override { std::filesystem::remove_all(dir_); }
  std::string dir_, path_;
};

TEST_F(NameIdsTest, SurviveARestartOnTheSameMaps) {
  auto first = NameIds::load(path_, "12");
  ASSERT_TRUE(first);
  EXPECT_FALSE(first->was_kept());
  const auto a = first->id_of("a.example");
  const auto b = first->id_of("*.b.example");
  EXPECT_NE(a, 0u);
  EXPECT_NE(a, b);
  ASSERT_TRUE(first->save());

  auto second = NameIds::load(path_, "12");
  ASSERT_TRUE(second);
  EXPECT_TRUE(second->was_kept());
  EXPECT_EQ(second->id_of("*.b.example"), b);
  EXPECT_EQ(second->pattern_of(a), "a.example");
  EXPECT_GT(second->id_of("new.example"), std::max(a, b));
}

TEST_F(NameIdsTest, OtherMapsMakeAFreshStart) {
  auto first = NameIds::load(path_, "12");
  first->id_of("a.example");
  ASSERT_TRUE(first->save());
  auto second = NameIds::load(path_, "13");
  ASSERT_TRUE(second);
  EXPECT_FALSE(second->was_kept());
  EXPECT_EQ(second->pattern_of(1), "");
}

TEST_F(NameIdsTest, ADamagedFileDoesNotCount) {
  auto first = NameIds::load(path_, "12");
  first->id_of("a.example");
  first->id_of("b.example");
  ASSERT_TRUE(first->save());
  std::string text;
  {
    std::ifstream in(path_);
    text.assign(std::istreambuf_iterator<char>(in), {});
  }
  for (const auto& [from, to] : {std::pair<std::string, std::string>{"next 3", "next x"},
                                 {"2 b", "9 b"},
                                 {"1 a", "0 a"},
                                 {"egressd-names 2", "egressd-names 1"},
                                 {"2 b", "refuses b"}}) {
    std::string damaged = text;
    damaged.replace(damaged.find(from), from.size(), to);
    std::ofstream(path_) << damaged;
    auto loaded = NameIds::load(path_, "12");
    ASSERT_TRUE(loaded);
    EXPECT_FALSE(loaded->was_kept()) << damaged;
    EXPECT_EQ(loaded->id_of("z.example"), 1u);
  }
}

TEST_F(NameIdsTest, RefusingPatternsAreRemembered) {
  auto first = NameIds::load(path_, "12");
  ASSERT_TRUE(first);
  first->id_of("a.example");
  first->set_refusing({"a.example", "*.b.example"});
  ASSERT_TRUE(first->save());
  auto second = NameIds::load(path_, "12");
  ASSERT_TRUE(second);
  EXPECT_TRUE(second->was_kept());
  EXPECT_THAT(second->refusing(), ::testing::ElementsAre("*.b.example", "a.example"));
  second->set_refusing({});
  ASSERT_TRUE(second->save());
  EXPECT_THAT(NameIds::load(path_, "12")->refusing(), ::testing::IsEmpty());
  EXPECT_THAT(NameIds::load(path_, "13")->refusing(), ::testing::IsEmpty());
}

TEST_F(NameIdsTest, ARenewedPatternGetsANumberNobodyHad) {
  auto ids = NameIds::load(path_, "12");
  const auto a = ids->id_of("a.example");
  const auto b = ids->id_of("b.example");
  ids->renew("a.example");
  ids->renew("unknown.example");
  EXPECT_EQ(ids->pattern_of(a), "");
  EXPECT_GT(ids->id_of("a.example"), b);
  ASSERT_TRUE(ids->save());
  auto again = NameIds::load(path_, "12");
  EXPECT_TRUE(again->was_kept());
  EXPECT_EQ(again->id_of("a.example"), ids->id_of("a.example"));
}

TEST_F(NameIdsTest, NumbersTheKernelMayHoldAreNotGivenAgain) {
  auto lost = NameIds::load(path_, "12", 41);
  ASSERT_TRUE(lost);
  EXPECT_FALSE(lost->was_kept());
  EXPECT_EQ(lost->id_of("a.example"), 42u);
  ASSERT_TRUE(lost->save());
  EXPECT_TRUE(NameIds::load(path_, "12", 42)->was_kept());
  EXPECT_EQ(NameIds::load(path_, "13", 42)->id_of("a.example"), 43u);
  // A file put back from a copy: what it says of the newer numbers is not known.
  auto stale = NameIds::load(path_, "12", 50);
  ASSERT_TRUE(stale);
  EXPECT_FALSE(stale->was_kept());
  EXPECT_EQ(stale->pattern_of(42), "");
  EXPECT_EQ(stale->id_of("a.example"), 51u);
}

TEST_F(NameIdsTest, FileIsReplacedWholeAndPrivate) {
  ASSERT_TRUE(write_file_atomically(path_, "old"));
  ASSERT_TRUE(write_file_atomically(path_, "new"));
  std::ifstream in(path_);
  std::string text;
  in >> text;
  EXPECT_EQ(text, "new");
  struct stat st{};
  ASSERT_EQ(::stat(path_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600u);
  EXPECT_FALSE(write_file_atomically(dir_ + "/missing/file", "x"));
}

}  // namespace
}  // namespace egressd::daemon
