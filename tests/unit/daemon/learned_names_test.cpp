#include "daemon/learned_names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace egressd::daemon {
namespace {

using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

const net::IpAddress kAddress = *net::IpAddress::parse("203.0.113.1");

dns::Answer answer(const std::string& fqdn) {
  dns::Answer a;
  a.fqdn = fqdn;
  a.cname_chain = {"edge." + fqdn};
  a.addresses = {kAddress};
  return a;
}

Asker asker_in(std::uint64_t cgroup_id) {
  Asker asker;
  asker.cgroup_id = cgroup_id;
  return asker;
}

TEST(LearnedNames, AnAddressKeepsEveryNameItWasGivenFor) {
  LearnedNames names;
  names.record(answer("a.example"), {{kAddress, 1, seconds(100)}});
  names.record(answer("b.example"), {{kAddress, 2, seconds(200)}});
  EXPECT_THAT(names.fqdns(kAddress), ElementsAre("b.example", "a.example"));
  ASSERT_EQ(names.origins(kAddress, 1).size(), 1u);
  EXPECT_THAT(names.origins(kAddress, 1)[0].cname_chain, ElementsAre("edge.a.example"));
  EXPECT_THAT(names.origins(kAddress, 3), IsEmpty());
}

TEST(LearnedNames, WhoeverAsksForANameMeansThatOne) {
  LearnedNames names;
  names.record(answer("a.example"), {{kAddress, 1, seconds(100)}}, asker_in(7));
  names.record(answer("b.example"), {{kAddress, 2, seconds(300)}}, asker_in(8));
  names.record(answer("c.example"), {{kAddress, LearnedNames::kNoPattern, seconds(200)}},
               asker_in(9));
  EXPECT_THAT(names.fqdns(kAddress, 7), ElementsAre("a.example", "b.example", "c.example"));
  EXPECT_THAT(names.fqdns(kAddress, 9), ElementsAre("c.example", "b.example", "a.example"));
  EXPECT_THAT(names.fqdns(kAddress, 1), ElementsAre("b.example", "c.example", "a.example"));
}

TEST(LearnedNames, TheWayToAnAddressIsThatOfTheLatestAnswerOfTheName) {
  LearnedNames names;
  EXPECT_THAT(names.cname_chain(kAddress, "a.example"), IsEmpty());
  names.record(answer("a.example"), {{kAddress, 1, seconds(100)}});
  names.record(answer("b.example"), {{kAddress, 1, seconds(300)}});
  EXPECT_THAT(names.cname_chain(kAddress, "a.example"), ElementsAre("edge.a.example"));
  auto direct = answer("a.example");
  direct.cname_chain.clear();
  names.record(direct, {{kAddress, 2, seconds(200)}});
  EXPECT_THAT(names.cname_chain(kAddress, "a.example"), IsEmpty());
  EXPECT_THAT(names.cname_chain(kAddress, "c.example"), IsEmpty());
}

TEST(LearnedNames, TheLatestAnswerOfANameCounts) {
  LearnedNames names;
  names.record(answer("a.example"), {{kAddress, 1, seconds(100)}});
  names.record(answer("a.example"), {{kAddress, 1, seconds(300)}});
  EXPECT_EQ(names.origins(kAddress, 1).at(0).expires, seconds(300));
}

TEST(LearnedNames, AnEarlierEndDoesNotCount) {
  LearnedNames names;
  EXPECT_TRUE(names.record(answer("a.example"), {{kAddress, 1, seconds(300)}}));
  EXPECT_FALSE(names.record(answer("a.example"), {{kAddress, 1, seconds(100)}})) << "nothing new";
  EXPECT_EQ(names.origins(kAddress, 1).at(0).expires, seconds(300));
  EXPECT_TRUE(names.explains({kAddress, 1, seconds(300)}));
  EXPECT_FALSE(names.explains({kAddress, 1, seconds(301)}));
  EXPECT_FALSE(names.explains({kAddress, 2, seconds(300)}));
  EXPECT_TRUE(names.record(answer("b.example"), {{kAddress, 1, seconds(100)}}));
}

TEST(LearnedNames, WhatHasEndedIsForgotten) {
  LearnedNames names;
  names.record(answer("a.example"), {{kAddress, 1, seconds(100)}});
  names.record(answer("b.example"), {{kAddress, 2, seconds(200)}});
  names.forget(seconds(150));
  EXPECT_THAT(names.fqdns(kAddress), ElementsAre("b.example"));
  names.forget(seconds(250));
  EXPECT_THAT(names.fqdns(kAddress), IsEmpty());
  EXPECT_THAT(names.all(), IsEmpty());
}

TEST(LearnedNames, BeyondTheBoundThePatternWithTheMostForgetsTheOneHeardLongestAgo) {
  LearnedNames names(3);
  const auto other = *net::IpAddress::parse("203.0.113.2");
  names.record(answer("a.example"), {{kAddress, 1, seconds(100)}});
  names.record(answer("x1.evil.example"), {{other, 2, seconds(200)}});
  names.record(answer("x2.evil.example"), {{other, 2, seconds(300)}});
  names.record(answer("x1.evil.example"), {{other, 2, seconds(400)}});  // heard again
  names.record(answer("x3.evil.example"), {{other, 2, seconds(500)}});
  EXPECT_EQ(names.size(), 3u);
  EXPECT_THAT(names.fqdns(kAddress), ElementsAre("a.example"));
  EXPECT_THAT(names.fqdns(other), ElementsAre("x3.evil.example", "x1.evil.example"));
  names.forget(seconds(1000));
  EXPECT_EQ(names.size(), 0u);
}

TEST(LearnedNames, AnAddressOfAWholeZoneKeepsTheNamesHeardLast) {
  LearnedNames names;
  names.record(answer("exact.example"), {{kAddress, 2, seconds(50)}});
  constexpr int kAsked = 1000;
  for (int i = 0; i < kAsked; ++i) {
    auto a = answer("n" + std::to_string(i) + ".zone.example");
    a.heard = seconds(i);
    names.record(a, {{kAddress, 1, seconds(100 + i)}});
  }
  EXPECT_EQ(names.origins(kAddress, 1).size(), LearnedNames::kMaxNames);
  EXPECT_EQ(names.origins(kAddress, 2).size(), 1u);
  EXPECT_EQ(names.size(), LearnedNames::kMaxNames + 1);
  const auto told = names.fqdns(kAddress);
  ASSERT_EQ(told.size(), LearnedNames::kMaxTold);
  EXPECT_EQ(told.front(), "n999.zone.example");
  EXPECT_TRUE(names.explains({kAddress, 1, seconds(100 + kAsked - 1)}));
  names.forget(seconds(10'000));
  EXPECT_EQ(names.size(), 0u);
}

TEST(LearnedNames, WhoAskedLastIsKnown) {
  LearnedNames names;
  names.record(answer("a.example"), {{kAddress, 1, seconds(100)}}, {12, 1000, 7, "curl"});
  names.record(answer("a.example"), {{kAddress, 1, seconds(100)}}, {13, 1000, 7, "wget"});
  EXPECT_EQ(names.origins(kAddress, 1).at(0).asker.comm, "wget");
  EXPECT_EQ(names.origins(kAddress, 1).at(0).asker.pid, 13u);
}

TEST(LearnedNames, AGrantThatIsExtendedTakesItsStandingNamesAlong) {
  LearnedNames names;
  names.record(answer("ended.example"), {{kAddress, 1, seconds(100)}});
  names.record(answer("a.example"), {{kAddress, 1, seconds(200)}});
  names.record(answer("b.example"), {{kAddress, 1, seconds(900)}});
  names.record(answer("c.example"), {{kAddress, 2, seconds(200)}});
  names.extend(kAddress, 1, seconds(150), seconds(500));
  std::map<std::string, BootTime> ends;
  for (const auto& known : names.all()) ends[known.origin.fqdn] = known.origin.expires;
  EXPECT_EQ(ends, (std::map<std::string, BootTime>{{"ended.example", seconds(100)},
                                                   {"a.example", seconds(500)},
                                                   {"b.example", seconds(900)},
                                                   {"c.example", seconds(200)}}));
  // Nothing to take along: found in the kernel, or another address.
  names.extend(kAddress, 3, seconds(150), seconds(500));
  names.extend(*net::IpAddress::parse("203.0.113.2"), 1, seconds(150), seconds(500));
  EXPECT_EQ(names.all().size(), 4u);
}

TEST(LearnedNames, OfNamesThatHaveAllEndedAllStandForTheGrant) {
  LearnedNames names;
  names.record(answer("a.example"), {{kAddress, 1, seconds(100)}});
  names.record(answer("b.example"), {{kAddress, 1, seconds(110)}});
  EXPECT_EQ(names.standing(kAddress, 1, seconds(105)).size(), 1u);
  EXPECT_EQ(names.standing(kAddress, 1, seconds(300)).size(), 2u);
  names.extend(kAddress, 1, seconds(300), seconds(500));
  EXPECT_EQ(names.origins(kAddress, 1).at(0).expires, seconds(500));
  EXPECT_EQ(names.origins(kAddress, 1).at(1).expires, seconds(500));
}

}  // namespace
}  // namespace egressd::daemon
