#include "audit/user_names.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace egressd::audit {
namespace {

namespace fs = std::filesystem;

class UserNamesTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "egressd-passwd-XXXXXX").string();
    dir = ::mkdtemp(pattern.data());
    path = dir / "passwd";
  }
  void TearDown() override { fs::remove_all(dir); }
  void write(const std::string& text) const { std::ofstream(path) << text; }

  fs::path dir;
  fs::path path;
};

TEST_F(UserNamesTest, ReadsTheHostsOwn) { EXPECT_EQ(UserNames().find(0), "root"); }

TEST_F(UserNamesTest, FirstNameOfANumberCountsAndBrokenLinesDoNot) {
  write(
      "# comment\n\nroot:x:0:0::/root:/bin/sh\ntoor:x:0:0::/root:/bin/sh\n:x:7:7:::\n"
      "nouid\nodd:x:12a:0:::\nminus:x:-1:0:::\nshort:x:9\nlast:x:1000:1000:::");
  UserNames names(path);
  EXPECT_EQ(names.find(0), "root");
  EXPECT_EQ(names.find(1000), "last");
  for (const std::uint32_t uid : {7u, 9u, 12u, 4294967295u}) EXPECT_EQ(names.find(uid), "");
}

TEST_F(UserNamesTest, FollowsAChangedAMissingAndANewFile) {
  write("a:x:1:1:::\n");
  UserNames names(path);
  EXPECT_EQ(names.find(1), "a");
  // As usermod does: a new file renamed over the old.
  std::ofstream(dir / "new") << "b:x:1:1:::\n";
  fs::rename(dir / "new", path);
  EXPECT_EQ(names.find(1), "b");
  fs::remove(path);
  EXPECT_EQ(names.find(1), "");
  write("c:x:1:1:::\n");
  EXPECT_EQ(names.find(1), "c");
  // In place, same length: only the time tells.
  write("d:x:1:1:::\n");
  fs::last_write_time(path, fs::file_time_type::clock::now() + std::chrono::seconds(5));
  EXPECT_EQ(names.find(1), "d");
}

}  // namespace
}  // namespace egressd::audit
