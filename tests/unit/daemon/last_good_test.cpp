#include "daemon/last_good.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

namespace egressd::daemon {
namespace {

LastGood example() {
  return {.policy_path = "/etc/egressd/policy.yaml",
          .enforce = true,
          .whole_host = true,
          .resolvers = {*net::IpAddress::parse("192.0.2.1"), *net::IpAddress::parse("2001:db8::1")},
          .text = "version: 1\nmode: enforce\n"};
}

TEST(LastGood, ComesBackAsItWas) {
  for (const bool flag : {true, false}) {
    LastGood last = example();
    last.enforce = flag;
    last.whole_host = !flag;
    if (!flag) last.resolvers.clear();
    const auto back = LastGood::parse(last.to_text());
    ASSERT_TRUE(back) << back.error().message;
    EXPECT_EQ(back->policy_path, last.policy_path);
    EXPECT_EQ(back->enforce, last.enforce);
    EXPECT_EQ(back->whole_host, last.whole_host);
    EXPECT_EQ(back->resolvers, last.resolvers);
    EXPECT_EQ(back->text, last.text);
  }
}

TEST(LastGood, TakesNothingThatIsCutOrChanged) {
  const std::string good = example().to_text();
  for (std::size_t i = 0; i < good.size(); ++i) {
    EXPECT_FALSE(LastGood::parse(std::string_view(good).substr(0, i))) << i;
    std::string flipped = good;
    flipped[i] = static_cast<char>(flipped[i] ^ 1);
    EXPECT_FALSE(LastGood::parse(flipped)) << i;
  }
  EXPECT_FALSE(LastGood::parse(good + "\n"));
  EXPECT_FALSE(LastGood::parse(""));
}

TEST(LastGood, AFileThatIsNotThereIsNoError) {
  const std::string path = std::filesystem::temp_directory_path() /
                           ("egressd-last-good-test." + std::to_string(::getpid()));
  const auto none = LastGood::load(path);
  ASSERT_TRUE(none);
  EXPECT_FALSE(*none);
  std::ofstream(path) << example().to_text();
  const auto there = LastGood::load(path);
  ASSERT_TRUE(there);
  ASSERT_TRUE(*there);
  EXPECT_EQ((*there)->text, example().text);
  std::ofstream(path) << "something else";
  const auto broken = LastGood::load(path);
  ASSERT_FALSE(broken);
  EXPECT_NE(broken.error().message.find(path), std::string::npos);
  std::filesystem::remove(path);
}

}  // namespace
// As a disk that fails: opening says nothing, reading does.
TEST(LastGood, WhatCannotBeReadIsAnErrorAndNoException) {
  const auto directory = LastGood::load("/");
  ASSERT_FALSE(directory);
  EXPECT_EQ(directory.error().code, EISDIR);
}

}  // namespace egressd::daemon
