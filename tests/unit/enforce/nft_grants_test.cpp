#include "enforce/nft_grants.h"

#include <gtest/gtest.h>

#include <chrono>
#include <map>

namespace egressd::enforce {
namespace {

constexpr BootTime kNow = std::chrono::seconds(1000);
constexpr std::uint32_t kRoom = 8192;  // 1024 for each name

LearnedAddress learned(int number, std::uint32_t name_id, int end_s) {
  return {*net::IpAddress::parse("10.0." + std::to_string(number / 256) + "." +
                                 std::to_string(number % 256)),
          name_id, kNow + std::chrono::seconds(end_s)};
}

std::map<std::uint32_t, std::map<std::string, long>> held(const NftGrants& grants) {
  std::map<std::uint32_t, std::map<std::string, long>> by_name;
  for (const LearnedAddress& each : grants.all())
    by_name[each.name_id][each.address.to_string()] =
        std::chrono::duration_cast<std::chrono::seconds>(each.expires - kNow).count();
  return by_name;
}

TEST(NftGrants, ANameHoldsAnEighthAndGivesUpWhatEndsFirst) {
  NftGrants grants(kRoom);
  nft::Batch batch;
  std::vector<LearnedAddress> many{learned(1, 2, 5)};
  for (int i = 1; i <= 1024; ++i) many.push_back(learned(i, 1, 1000 + i));
  EXPECT_EQ(grants.learn(batch, many, kNow), 0u);
  grants.keep();
  const auto before = held(grants);
  ASSERT_EQ(before.at(1).size(), 1024u);

  // The first is learned anew, so that the second and third are what ends first.
  const std::vector<LearnedAddress> more{learned(1, 1, 3000), learned(2001, 1, 2500),
                                         learned(2002, 1, 2500)};
  EXPECT_EQ(grants.learn(batch, more, kNow), 0u);
  const auto after = held(grants);
  EXPECT_EQ(after.at(1).size(), 1024u);
  EXPECT_EQ(after.at(1).at("10.0.0.1"), 3000);
  EXPECT_FALSE(after.at(1).contains("10.0.0.2"));
  EXPECT_FALSE(after.at(1).contains("10.0.0.3"));
  EXPECT_TRUE(after.at(1).contains("10.0.7.210"));
  EXPECT_EQ(after.at(2).size(), 1u);
  EXPECT_EQ(grants.addresses(), 1024u);
  grants.take_back();
  EXPECT_EQ(held(grants), before);
}

TEST(NftGrants, OneAnswerAloneTakesNoMoreThanThat) {
  NftGrants grants(kRoom);
  nft::Batch batch;
  std::vector<LearnedAddress> many;
  for (int i = 1; i <= 1029; ++i) many.push_back(learned(i, 1, 100));
  EXPECT_EQ(grants.learn(batch, many, kNow), 5u);
  EXPECT_EQ(held(grants).at(1).size(), 1024u);
  EXPECT_EQ(grants.addresses(), 1024u);
  // Others have their room, and what ended makes room.
  EXPECT_EQ(grants.learn(batch, std::vector{learned(3000, 2, 100)}, kNow), 0u);
  const BootTime later = kNow + std::chrono::seconds(101);
  EXPECT_EQ(grants.expire(batch, later, later), 1025u);
  EXPECT_EQ(grants.learn(batch, many, kNow), 5u);
}

}  // namespace
}  // namespace egressd::enforce
