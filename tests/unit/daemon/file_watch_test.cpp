#include "daemon/file_watch.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

namespace egressd::daemon {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

class FileWatchTest : public ::testing::Test {
 protected:
  FileWatchTest() : loop_(std::move(*EventLoop::create())) {
    char dir[] = "/tmp/egressd-watch-XXXXXX";
    dir_ = ::mkdtemp(dir);
  }
  ~FileWatchTest() override { fs::remove_all(dir_); }

  void watch(std::vector<std::string> paths) {
    auto watch = FileWatch::open(*loop_, std::move(paths), [this] { ++calls_; });
    ASSERT_TRUE(watch) << watch.error().message;
    watch_ = std::move(*watch);
  }
  static void write(const fs::path& path, const std::string& text) { std::ofstream(path) << text; }
  // Calls that come within the time a change takes to be told; waits longer for the first.
  int calls(milliseconds limit = std::chrono::seconds(5)) {
    calls_ = 0;
    const auto end = std::chrono::steady_clock::now() + limit;
    while (calls_ == 0 && std::chrono::steady_clock::now() < end)
      EXPECT_TRUE(loop_->run_once(milliseconds(20)));
    const auto more = std::chrono::steady_clock::now() + 2 * FileWatch::kDelay;
    while (std::chrono::steady_clock::now() < more) EXPECT_TRUE(loop_->run_once(milliseconds(20)));
    return calls_;
  }
  bool quiet() { return calls(2 * FileWatch::kDelay) == 0; }

  std::unique_ptr<EventLoop> loop_;
  fs::path dir_;
  int calls_ = 0;
  std::unique_ptr<FileWatch> watch_;
};

TEST_F(FileWatchTest, WritingReplacingAndRemovingAreEachToldOnce) {
  const auto file = dir_ / "file";
  write(file, "a");
  watch({file});
  EXPECT_TRUE(quiet());
  for (int i = 0; i < 10; ++i) write(file, "b");
  EXPECT_EQ(calls(), 1);
  write(dir_ / "new", "c");
  fs::rename(dir_ / "new", file);
  EXPECT_EQ(calls(), 1);
  write(file, "d");
  EXPECT_EQ(calls(), 1) << "the file that took its place";
  fs::remove(file);
  EXPECT_EQ(calls(), 1);
  write(file, "e");
  EXPECT_EQ(calls(), 1);
}

TEST_F(FileWatchTest, OtherFilesDoNotMatter) {
  write(dir_ / "file", "a");
  watch({dir_ / "file"});
  write(dir_ / "other", "b");
  fs::remove(dir_ / "other");
  EXPECT_TRUE(quiet());
}

TEST_F(FileWatchTest, LinksAreFollowedAndMayLeadElsewhere) {
  fs::create_directory(dir_ / "run");
  write(dir_ / "run/one", "a");
  write(dir_ / "run/two", "a");
  fs::create_symlink("run/one", dir_ / "link");
  watch({dir_ / "link"});
  write(dir_ / "run/fresh", "b");
  fs::rename(dir_ / "run/fresh", dir_ / "run/one");
  EXPECT_EQ(calls(), 1) << "replaced where the link leads";
  write(dir_ / "run/two", "b");
  EXPECT_TRUE(quiet());
  fs::create_symlink("run/two", dir_ / "link.new");
  fs::rename(dir_ / "link.new", dir_ / "link");
  EXPECT_EQ(calls(), 1) << "the link itself";
  write(dir_ / "run/two", "c");
  EXPECT_EQ(calls(), 1) << "where it leads now";
}

TEST_F(FileWatchTest, LinkedDirectoriesMayBeSwapped) {
  for (const char* version : {"..1", "..2"}) {
    fs::create_directory(dir_ / version);
    write(dir_ / version / "file", version);
  }
  fs::create_symlink("..1", dir_ / "..data");
  fs::create_symlink("..data/file", dir_ / "file");
  watch({dir_ / "file"});
  EXPECT_TRUE(quiet());
  fs::create_symlink("..2", dir_ / "..data_tmp");
  fs::rename(dir_ / "..data_tmp", dir_ / "..data");
  EXPECT_EQ(calls(), 1) << "nothing but the link has changed";
  write(dir_ / "..1/file", "x");
  EXPECT_TRUE(quiet());
  write(dir_ / "..2/file", "x");
  EXPECT_EQ(calls(), 1);
}

TEST_F(FileWatchTest, SeesThatSomebodyIsWriting) {
  ::signal(SIGIO, SIG_IGN);
  const auto file = dir_ / "file";
  EXPECT_FALSE(FileWatch::is_being_written(file));
  std::ofstream out(file);
  out << "half" << std::flush;
  EXPECT_TRUE(FileWatch::is_being_written(file));
  out.close();
  EXPECT_FALSE(FileWatch::is_being_written(file));
}

TEST_F(FileWatchTest, DirectoriesMayComeLater) {
  watch({dir_ / "a/b/file"});
  fs::create_directories(dir_ / "a/b");
  EXPECT_GE(calls(), 1);
  write(dir_ / "a/b/file", "x");
  EXPECT_EQ(calls(), 1);
}

}  // namespace
}  // namespace egressd::daemon
