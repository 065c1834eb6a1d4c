#include "enforce/cgroup.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

namespace egressd::enforce {
namespace {

std::string mountinfo(const std::string& text) {
  char path[] = "/tmp/egressd-mountinfo-XXXXXX";
  const int fd = ::mkstemp(path);
  ::close(fd);
  std::ofstream(path) << text;
  return path;
}

TEST(Cgroup, PureAndHybridHierarchiesAreFound) {
  const auto pure = mountinfo(
      "24 1 0:22 / /proc rw - proc proc rw\n"
      "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n");
  EXPECT_EQ(find_cgroup2_mount(pure), "/sys/fs/cgroup");
  const auto hybrid = mountinfo(
      "30 24 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
      "31 24 0:27 / /sys/fs/cgroup/unified rw - cgroup2 none rw\n"
      "32 24 0:27 / /var/lib/some/where/else rw - cgroup2 none rw\n");
  EXPECT_EQ(find_cgroup2_mount(hybrid), "/sys/fs/cgroup/unified");
  ::unlink(pure.c_str());
  ::unlink(hybrid.c_str());
}

TEST(Cgroup, EscapedMountPointsAreUnescaped) {
  const auto path = mountinfo("30 24 0:26 / /run/a\\040b rw - cgroup2 c rw\n");
  EXPECT_EQ(find_cgroup2_mount(path), "/run/a b");
  ::unlink(path.c_str());
}

TEST(Cgroup, NoHierarchyIsAnErrorThatSaysWhatToDo) {
  const auto path = mountinfo("30 24 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
  const auto found = find_cgroup2_mount(path);
  ASSERT_FALSE(found);
  EXPECT_NE(found.error().message.find("mount -t cgroup2"), std::string::npos);
  ::unlink(path.c_str());
}

TEST(Cgroup, IdIsTheDirectorysInodeNumber) {
  const auto mount = find_cgroup2_mount();
  if (!mount) GTEST_SKIP() << mount.error().message;
  struct stat st{};
  ASSERT_EQ(::stat(mount->c_str(), &st), 0);
  EXPECT_EQ(cgroup_id(*mount), st.st_ino);
}

TEST(Cgroup, OrdinaryDirectoriesAreRefused) {
  EXPECT_FALSE(cgroup_id("/tmp"));
  EXPECT_FALSE(cgroup_id("/no/such/directory"));
}

}  // namespace
}  // namespace egressd::enforce
