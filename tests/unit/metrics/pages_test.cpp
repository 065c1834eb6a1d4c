#include "metrics/pages.h"

#include <gmock/gmock.h>

namespace egressd::metrics {
namespace {

using testing::HasSubstr;

class PagesTest : public testing::Test {
 protected:
  Page get(std::string_view path) {
    return page(
        path,
        [this]() -> const Snapshot& {
          ++taken;
          return snapshot;
        },
        BootTime{0});
  }
  Snapshot snapshot;
  int taken = 0;
};

TEST_F(PagesTest, HealthNeedsNothingButTheLoop) {
  snapshot.unready = {"no policy is in force"};
  EXPECT_EQ(get("/healthz").status, 200u);
  EXPECT_EQ(taken, 0);
}

TEST_F(PagesTest, ReadyOrWhyNot) {
  EXPECT_EQ(get("/readyz").status, 200u);
  snapshot.unready = {"one", "two"};
  const Page page = get("/readyz");
  EXPECT_EQ(page.status, 503u);
  EXPECT_EQ(page.body, "one\ntwo\n");
}

TEST_F(PagesTest, Metrics) {
  const Page page = get("/metrics");
  EXPECT_EQ(page.status, 200u);
  EXPECT_THAT(page.type, HasSubstr("version=0.0.4"));
  EXPECT_THAT(page.body, HasSubstr("egressd_ready 1\n"));
}

TEST_F(PagesTest, NothingElse) {
  for (const char* path : {"", "/", "/metrics/", "/Metrics", "/../metrics", "//metrics"})
    EXPECT_EQ(get(path).status, 404u) << path;
  EXPECT_EQ(taken, 0);
}

}  // namespace
}  // namespace egressd::metrics
