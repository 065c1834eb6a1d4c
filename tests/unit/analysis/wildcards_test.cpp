#include "analysis/wildcards.h"

#include <gmock/gmock.h>

namespace egressd::analysis {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<std::string> patterns(const std::vector<std::string>& names) {
  std::vector<std::string> out;
  for (const auto& group : group_names(names).groups) out.push_back(group.pattern);
  return out;
}

TEST(GroupNames, ThreeNamesBelowARegisteredDomainMakeAWildcard) {
  EXPECT_THAT(patterns({"a.contoso.com", "b.contoso.com"}),
              ElementsAre("a.contoso.com", "b.contoso.com"));
  EXPECT_THAT(patterns({"a.contoso.com", "b.contoso.com", "c.contoso.com"}),
              ElementsAre("*.contoso.com"));
  EXPECT_THAT(patterns({"a.x.contoso.com", "b.y.contoso.com", "c.contoso.com"}),
              ElementsAre("*.contoso.com"));
}

TEST(GroupNames, TheDomainItselfIsNotBelowItself) {
  EXPECT_THAT(patterns({"contoso.com", "a.contoso.com", "b.contoso.com"}),
              ElementsAre("a.contoso.com", "b.contoso.com", "contoso.com"));
  EXPECT_THAT(patterns({"contoso.com", "a.contoso.com", "b.contoso.com", "c.contoso.com"}),
              ElementsAre("*.contoso.com", "contoso.com"));
}

TEST(GroupNames, TheDeepestDomainIsTaken) {
  const auto grouped = group_names(
      {"a.api.contoso.com", "b.api.contoso.com", "c.api.contoso.com", "www.contoso.com"});
  ASSERT_EQ(grouped.groups.size(), 2u);
  EXPECT_EQ(grouped.groups[0].pattern, "*.api.contoso.com");
  EXPECT_THAT(grouped.groups[0].names,
              ElementsAre("a.api.contoso.com", "b.api.contoso.com", "c.api.contoso.com"));
  EXPECT_EQ(grouped.groups[1].pattern, "www.contoso.com");
}

TEST(GroupNames, AWiderWildcardTakesInTheNarrower) {
  const auto grouped = group_names({"a.api.contoso.com", "b.api.contoso.com", "c.api.contoso.com",
                                    "x.contoso.com", "y.contoso.com", "z.contoso.com"});
  ASSERT_EQ(grouped.groups.size(), 1u);
  EXPECT_EQ(grouped.groups[0].pattern, "*.contoso.com");
  EXPECT_EQ(grouped.groups[0].names.size(), 6u);
}

TEST(GroupNames, NeverOverAPublicSuffix) {
  EXPECT_THAT(patterns({"a.co.uk", "b.co.uk", "c.co.uk"}),
              ElementsAre("a.co.uk", "b.co.uk", "c.co.uk"));
  EXPECT_THAT(patterns({"a.com", "b.com", "c.com"}), ElementsAre("a.com", "b.com", "c.com"));
  EXPECT_THAT(patterns({"a.internal", "b.internal", "c.internal"}),
              ElementsAre("a.internal", "b.internal", "c.internal"));
  EXPECT_THAT(patterns({"a", "b", "c"}), ElementsAre("a", "b", "c"));
}

class SharedPlatform : public testing::TestWithParam<const char*> {};

// On it, below it and above it.
TEST_P(SharedPlatform, KeepsItsNames) {
  const std::string platform = GetParam();
  const std::vector<std::string> on = {"a." + platform, "b." + platform, "c." + platform};
  EXPECT_EQ(patterns(on), on);
  const auto refusals = group_names(on).refusals;
  ASSERT_EQ(refusals.size(), 1u);
  EXPECT_EQ(refusals[0].suffix, platform);
  EXPECT_EQ(refusals[0].names, 3u);
  const std::vector<std::string> below = {"a.t." + platform, "b.t." + platform, "c.t." + platform};
  EXPECT_EQ(patterns(below), below);
}

INSTANTIATE_TEST_SUITE_P(
    Known, SharedPlatform,
    testing::Values("blob.core.windows.net", "dfs.core.windows.net", "azureedge.net", "azurefd.net",
                    "azurewebsites.net", "cloudapp.azure.com", "vault.azure.net",
                    "openai.azure.com", "trafficmanager.net", "cloudfront.net", "amazonaws.com",
                    "s3.amazonaws.com", "s3.eu-west-1.amazonaws.com", "github.io",
                    "githubusercontent.com", "storage.googleapis.com", "googleapis.com",
                    "appspot.com", "run.app", "workers.dev", "pages.dev", "netlify.app",
                    "vercel.app", "herokuapp.com", "sharepoint.com", "global.ssl.fastly.net"));

TEST(GroupNames, NoWildcardAboveASharedPlatform) {
  const std::vector<std::string> names = {"a.blob.core.windows.net", "b.file.core.windows.net",
                                          "c.queue.core.windows.net", "login.windows.net"};
  EXPECT_EQ(patterns(names), names);
  // One name on the platform is enough; who has three there, has been refused already.
  const std::vector<std::string> one = {"a.app.render.com", "x.render.com", "y.render.com",
                                        "z.render.com"};
  EXPECT_EQ(patterns(one), one);
  const std::vector<std::string> three = {"a.app.render.com", "b.app.render.com",
                                          "c.app.render.com", "x.render.com",
                                          "y.render.com",     "z.render.com"};
  EXPECT_EQ(patterns(three), three);
  // vo.msecnd.net is one, though nobody was there.
  const std::vector<std::string> none = {"a.msecnd.net", "b.msecnd.net", "c.msecnd.net"};
  EXPECT_EQ(patterns(none), none);
}

TEST(GroupNames, NothingOfNothing) { EXPECT_THAT(patterns({}), IsEmpty()); }

}  // namespace
}  // namespace egressd::analysis
