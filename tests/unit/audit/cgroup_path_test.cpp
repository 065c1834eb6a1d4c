#include "audit/cgroup_path.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "audit/record.h"

namespace egressd::audit {

// Reaches the two ways of finding one by one.
struct CgroupPathsTest : testing::Test {
  void SetUp() override {
    mount = cgroup2_mount();
    if (mount.empty()) GTEST_SKIP() << "no cgroup2 mount";
    name = "/egressd-audit-test-" + std::to_string(::getpid());
    if (::mkdir((mount + name).c_str(), 0755) != 0)
      GTEST_SKIP() << "cannot create a cgroup (needs root)";
    ASSERT_EQ(::mkdir((mount + name + "/inner one").c_str(), 0755), 0);
  }
  void TearDown() override {
    if (name.empty()) return;
    ::rmdir((mount + name + "/inner one").c_str());
    ::rmdir((mount + name).c_str());
  }
  std::uint64_t id_of(const std::string& path) const {
    struct stat st{};
    EXPECT_EQ(::stat((mount + path).c_str(), &st), 0);
    return st.st_ino;
  }
  static std::optional<std::string> by_handle(const CgroupPaths& paths, std::uint64_t id) {
    bool not_permitted = false;
    auto path = paths.by_handle(id, not_permitted);
    if (not_permitted) ADD_FAILURE() << "open_by_handle_at was not permitted";
    return path;
  }
  static std::optional<std::string> by_walk(const CgroupPaths& paths, std::uint64_t id) {
    return paths.by_walk(id);
  }

  std::string mount;
  std::string name;
};

namespace {

TEST_F(CgroupPathsTest, FindsByHandleAndByWalkTheSame) {
  const CgroupPaths paths(mount);
  for (const auto& path : {name, name + "/inner one"}) {
    EXPECT_EQ(by_handle(paths, id_of(path)), path);
    EXPECT_EQ(by_walk(paths, id_of(path)), path);
  }
  EXPECT_EQ(by_handle(paths, id_of("")), "/");
  EXPECT_EQ(by_walk(paths, id_of("")), "/");
}

TEST_F(CgroupPathsTest, KnowsWhatItFoundAfterTheCgroupIsGone) {
  CgroupPaths seen(mount);
  CgroupPaths unseen(mount);
  const auto id = id_of(name + "/inner one");
  EXPECT_EQ(seen.find(id), name + "/inner one");
  ASSERT_EQ(::rmdir((mount + name + "/inner one").c_str()), 0);
  EXPECT_EQ(seen.find(id), name + "/inner one");
  EXPECT_EQ(unseen.find(id), std::nullopt);
  EXPECT_EQ(unseen.cached(), 0u);
}

TEST_F(CgroupPathsTest, TrailingSlashOfTheMountChangesNothing) {
  CgroupPaths paths(mount + "/");
  EXPECT_EQ(paths.find(id_of(name)), name);
}

TEST_F(CgroupPathsTest, RecordNamesTheCgroupWithAndWithoutCache) {
  egressd_event event{};
  event.cgroup_id = id_of(name);
  CgroupPaths paths(mount);
  EXPECT_EQ(make_record(event, {.cgroup2_mount = mount}).cgroup, name);
  EXPECT_EQ(make_record(event, {.cgroup2_mount = mount, .cgroup_paths = &paths}).cgroup, name);
  EXPECT_EQ(paths.cached(), 1u);
  event.cgroup_id = 0xfffffffffffffff0;
  EXPECT_EQ(make_record(event, {.cgroup2_mount = mount}).cgroup, "");
}

TEST(CgroupPaths, MissingMountFindsNothing) {
  CgroupPaths paths("/nonexistent/cgroup");
  EXPECT_EQ(paths.find(1), std::nullopt);
  EXPECT_EQ(CgroupPaths("").find(1), std::nullopt);
}

}  // namespace
}  // namespace egressd::audit
