#include "audit/json_lines_sink.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

namespace egressd::audit {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

class JsonLinesSinkTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "egressd-sink-XXXXXX").string();
    dir = ::mkdtemp(pattern.data());
  }
  void TearDown() override {
    if (mounted) ::umount(dir.c_str());
    fs::remove_all(dir);
  }
  static Record record(const std::string& comm) {
    Record r;
    r.comm = comm;
    return r;
  }
  static std::vector<std::string> lines(const fs::path& path) {
    std::ifstream in(path);
    std::vector<std::string> out;
    for (std::string line; std::getline(in, line);) out.push_back(line);
    return out;
  }
  static std::vector<std::string> lines_of(const std::string& text) {
    std::istringstream in(text);
    std::vector<std::string> out;
    for (std::string line; std::getline(in, line);) out.push_back(line);
    return out;
  }

  fs::path dir;
  bool mounted = false;
};

TEST_F(JsonLinesSinkTest, WritesOneLineARecordToA0640File) {
  const auto path = dir / "audit.jsonl";
  const auto before = ::umask(0);
  auto sink = JsonLinesSink::open_file(path);
  ::umask(before);
  ASSERT_TRUE(sink) << sink.error().message;
  ASSERT_TRUE((*sink)->write(record("a")));
  ASSERT_TRUE((*sink)->write(record("b\nc")));
  const auto got = lines(path);
  ASSERT_EQ(got.size(), 2u);
  EXPECT_EQ(json::parse(got[0])["comm"], "a");
  EXPECT_EQ(json::parse(got[1])["comm"], "b\nc");
  struct stat st{};
  ASSERT_EQ(::stat(path.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0640u);
}

TEST_F(JsonLinesSinkTest, AppendsToWhatIsThere) {
  const auto path = dir / "audit.jsonl";
  std::ofstream(path) << "{}\n";
  ASSERT_TRUE((*JsonLinesSink::open_file(path))->write(record("a")));
  EXPECT_EQ(lines(path).size(), 2u);
}

TEST_F(JsonLinesSinkTest, ReopenFollowsRotation) {
  const auto path = dir / "audit.jsonl";
  auto sink = std::move(*JsonLinesSink::open_file(path));
  ASSERT_TRUE(sink->write(record("old")));
  fs::rename(path, dir / "audit.jsonl.1");
  ASSERT_TRUE(sink->write(record("still old")));
  ASSERT_TRUE(sink->reopen());
  ASSERT_TRUE(sink->write(record("new")));
  EXPECT_EQ(lines(dir / "audit.jsonl.1").size(), 2u);
  EXPECT_EQ(lines(path).size(), 1u);
}

TEST_F(JsonLinesSinkTest, FailedReopenKeepsTheOldFile) {
  const auto path = dir / "sub" / "audit.jsonl";
  fs::create_directory(dir / "sub");
  auto sink = std::move(*JsonLinesSink::open_file(path));
  fs::rename(dir / "sub", dir / "moved");
  EXPECT_FALSE(sink->reopen());
  ASSERT_TRUE(sink->write(record("a")));
  EXPECT_EQ(lines(dir / "moved" / "audit.jsonl").size(), 1u);
}

TEST_F(JsonLinesSinkTest, RefusesADirectoryAndAMissingOne) {
  EXPECT_FALSE(JsonLinesSink::open_file(dir));
  EXPECT_FALSE(JsonLinesSink::open_file(dir / "no" / "such"));
}

TEST_F(JsonLinesSinkTest, FullDeviceIsReportedOnceAndCounted) {
  struct stat st{};
  if (::stat("/dev/full", &st) != 0 || !S_ISCHR(st.st_mode)) GTEST_SKIP() << "no /dev/full here";
  auto sink = JsonLinesSink::open_file("/dev/full");
  ASSERT_TRUE(sink) << sink.error().message;
  const auto first = (*sink)->write(record("a"));
  ASSERT_FALSE(first);
  EXPECT_EQ(first.error().code, ENOSPC);
  EXPECT_TRUE((*sink)->write(record("b")));
  EXPECT_TRUE((*sink)->write(record("c")));
  EXPECT_EQ((*sink)->lost(), 3u);
}

TEST_F(JsonLinesSinkTest, FullDiskNeverGluesLinesAndSaysWhatIsMissing) {
  if (::mount("egressd-test", dir.c_str(), "tmpfs", 0, "size=64k") != 0)
    GTEST_SKIP() << "cannot mount a tmpfs (needs root)";
  mounted = true;
  const auto path = dir / "audit.jsonl";
  const auto ballast = dir / "ballast";
  // All but the audit file's first page.
  std::ofstream(ballast) << std::string(56 << 10, 'x') << std::flush;
  auto sink = std::move(*JsonLinesSink::open_file(path));
  const std::string comm(300, 'y');
  int reported = 0;
  for (int i = 0; i < 200; ++i) reported += sink->write(record(comm)) ? 0 : 1;
  EXPECT_EQ(reported, 1);
  const auto lost = sink->lost();
  ASSERT_GT(lost, 0u);
  ASSERT_LT(lost, 200u);

  fs::remove(ballast);
  ASSERT_TRUE(sink->write(record("after")));
  EXPECT_EQ(sink->lost(), lost);
  const auto got = lines(path);
  std::size_t whole = 0, noted = 0;
  for (const auto& line : got) {
    const auto j = json::parse(line, nullptr, false);
    ASSERT_FALSE(j.is_discarded()) << line;
    if (j.value("event", "") == "gap") {
      EXPECT_EQ(j["cause"], "audit_log");
      noted += j["count"].get<std::size_t>();
    } else {
      ++whole;
    }
  }
  EXPECT_EQ(noted, lost);
  EXPECT_EQ(whole, 201 - lost);
  EXPECT_EQ(json::parse(got.back())["comm"], "after");
}

TEST_F(JsonLinesSinkTest, FullDiskEndsInAWholeLineAndTheGapNeedsNoRecord) {
  if (::mount("egressd-test", dir.c_str(), "tmpfs", 0, "size=64k") != 0)
    GTEST_SKIP() << "cannot mount a tmpfs (needs root)";
  mounted = true;
  const auto path = dir / "audit.jsonl";
  std::ofstream(dir / "ballast") << std::string(56 << 10, 'x') << std::flush;
  auto sink = std::move(*JsonLinesSink::open_file(path));
  const auto text = [&] {
    std::ifstream in(path);
    return std::string(std::istreambuf_iterator<char>(in), {});
  };
  for (int i = 0; i < 50; ++i) {
    (void)sink->write(record(std::string(300, 'y')));
    ASSERT_TRUE(text().ends_with("}\n")) << "after record " << i;
  }
  const auto lost = sink->lost();
  ASSERT_GT(lost, 0u);
  sink->flush();  // no room yet
  fs::remove(dir / "ballast");
  sink->flush();
  const auto gap = json::parse(lines(path).back());
  EXPECT_EQ(gap["event"], "gap");
  EXPECT_EQ(gap["count"], lost);
  sink->flush();
  EXPECT_EQ(json::parse(lines(path).back()), gap) << "once is enough";
  EXPECT_EQ(lines(path).size(), 50 - lost + 1);
}

TEST_F(JsonLinesSinkTest, GapFromElsewhereIsALineOfItsOwn) {
  const auto path = dir / "audit.jsonl";
  auto sink = std::move(*JsonLinesSink::open_file(path));
  ASSERT_TRUE(sink->write(Notice::gap({}, 7, "kernel")));
  EXPECT_EQ(lines(path).at(0),
            R"({"schema":1,"event":"gap","time":"1970-01-01T00:00:00.000000Z","count":7,)"
            R"("cause":"kernel"})");
  EXPECT_EQ(sink->lost(), 0u);
}

class RotationTest : public JsonLinesSinkTest {
 protected:
  std::unique_ptr<JsonLinesSink> open(std::uint64_t max_size, unsigned keep) {
    auto sink = JsonLinesSink::open_file(path(), {.rotation = {max_size, keep}});
    EXPECT_TRUE(sink) << sink.error().message;
    return std::move(*sink);
  }
  [[nodiscard]] fs::path path(unsigned number = 0) const {
    return dir / (number == 0 ? "log" : "log." + std::to_string(number));
  }
  // The number each record was given, in the order of time.
  [[nodiscard]] std::vector<unsigned> ports(unsigned files) const {
    std::vector<unsigned> out;
    for (auto number = files + 1; number-- > 0;)
      for (const auto& line : lines(path(number))) out.push_back(json::parse(line)["port"]);
    return out;
  }
  static Record numbered(std::uint16_t number) {
    Record r;
    r.port = number;
    return r;
  }
};

TEST_F(RotationTest, KeepsEveryRecordOnceAndNoFileTooLong) {
  auto sink = open(4096, 50);
  std::vector<unsigned> expected;
  for (std::uint16_t i = 0; i < 300; ++i) {
    ASSERT_TRUE(sink->write(numbered(i)));
    expected.push_back(i);
  }
  unsigned files = 0;
  for (; fs::exists(path(files + 1)); ++files) {
    EXPECT_LE(fs::file_size(path(files + 1)), 4096u);
    EXPECT_GT(fs::file_size(path(files + 1)), 3500u);
  }
  EXPECT_GT(files, 5u);
  EXPECT_EQ(ports(files), expected);
  EXPECT_FALSE(fs::exists(dir / "log.next"));
}

TEST_F(RotationTest, DropsTheOldest) {
  auto sink = open(4096, 2);
  for (std::uint16_t i = 0; i < 300; ++i) ASSERT_TRUE(sink->write(numbered(i)));
  EXPECT_FALSE(fs::exists(path(3)));
  const auto got = ports(2);
  EXPECT_EQ(got.back(), 299u);
  for (std::size_t i = 1; i < got.size(); ++i) ASSERT_EQ(got[i], got[i - 1] + 1);
}

TEST_F(RotationTest, CountsWhatWasThereBefore) {
  std::ofstream(path()) << R"({"port":1})" << std::string(4080, ' ') << '\n';
  ASSERT_TRUE(open(4096, 1)->write(numbered(2)));
  EXPECT_EQ(ports(1), (std::vector<unsigned>{1, 2}));
  EXPECT_EQ(lines(path()).size(), 1u);
}

TEST_F(RotationTest, LineLongerThanAFileIsWrittenAll) {
  auto sink = open(100, 3);
  for (std::uint16_t i = 0; i < 3; ++i) ASSERT_TRUE(sink->write(numbered(i)));
  EXPECT_EQ(ports(2), (std::vector<unsigned>{0, 1, 2}));
}

TEST_F(RotationTest, FileMovedByAnotherIsNotMovedTwice) {
  auto sink = open(4096, 5);
  std::uint16_t i = 0;
  for (; i < 10; ++i) ASSERT_TRUE(sink->write(numbered(i)));
  fs::rename(path(), dir / "theirs");
  for (; i < 40; ++i) ASSERT_TRUE(sink->write(numbered(i)));
  // Until it was full they went where the file is now; then a new one was begun.
  EXPECT_FALSE(fs::exists(path(1)));
  EXPECT_EQ(lines(dir / "theirs").size() + lines(path()).size(), 40u);
  EXPECT_LE(fs::file_size(dir / "theirs"), 4096u);
}

TEST_F(RotationTest, ReopenAndEmptyingByAnotherStartANewCount) {
  auto sink = open(4096, 5);
  for (std::uint16_t i = 0; i < 10; ++i) ASSERT_TRUE(sink->write(numbered(i)));
  fs::rename(path(), dir / "theirs");
  ASSERT_TRUE(sink->reopen());
  for (std::uint16_t i = 0; i < 10; ++i) ASSERT_TRUE(sink->write(numbered(i)));
  fs::resize_file(path(), 0);  // copytruncate
  for (std::uint16_t i = 0; i < 20; ++i) ASSERT_TRUE(sink->write(numbered(i)));
  EXPECT_FALSE(fs::exists(path(1)));
  EXPECT_EQ(lines(path()).size(), 20u);
}

TEST_F(RotationTest, FailureIsReportedOnceAndTheFileGrowsOn) {
  auto sink = open(4096, 1);
  fs::create_directory(dir / "log.next");
  int reported = 0;
  for (std::uint16_t i = 0; i < 200; ++i) reported += sink->write(numbered(i)) ? 0 : 1;
  EXPECT_EQ(reported, 1);
  EXPECT_EQ(sink->lost(), 0u);
  EXPECT_EQ(lines(path()).size(), 200u);
  fs::remove(dir / "log.next");
  for (std::uint16_t i = 200; i < 400; ++i) ASSERT_TRUE(sink->write(numbered(i)));
  EXPECT_TRUE(fs::exists(path(1)));
}

TEST_F(RotationTest, RefusesWhatIsNoFile) {
  EXPECT_FALSE(JsonLinesSink::open_file("/dev/null", {.rotation = {4096, 1}}));
}

TEST_F(JsonLinesSinkTest, FullPipeNeitherBlocksNorChangesTheSharedDescriptor) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  auto sink = std::move(*JsonLinesSink::open_descriptor(ends[1]));
  EXPECT_EQ(::fcntl(ends[1], F_GETFL) & O_NONBLOCK, 0);
  for (int i = 0; i < 5000; ++i) (void)sink->write(record("flood"));
  const auto lost = sink->lost();
  ASSERT_GT(lost, 0u);

  std::string text(1 << 20, 0);
  const auto n = ::read(ends[0], text.data(), text.size());
  ASSERT_GT(n, 0);
  text.resize(static_cast<std::size_t>(n));
  ASSERT_TRUE(sink->write(record("after")));
  std::string rest(1 << 20, 0);
  const auto m = ::read(ends[0], rest.data(), rest.size());
  ASSERT_GT(m, 0);
  text += rest.substr(0, static_cast<std::size_t>(m));
  const auto got = lines_of(text);
  ASSERT_GE(got.size(), 2u);
  EXPECT_EQ(json::parse(got.back())["comm"], "after");
  EXPECT_EQ(json::parse(got[got.size() - 2])["count"], lost);
  ::close(ends[0]);
  ::close(ends[1]);
}

// Three pages each, of the sixteen a pipe has.
TEST_F(JsonLinesSinkTest, LineThatAPipeTookHalfOfIsGoneOnWith) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK), 0);
  auto sink = std::move(*JsonLinesSink::open_descriptor(ends[1]));
  constexpr std::size_t kRecords = 60;
  std::string text;
  const auto drain = [&] {
    std::string part(1 << 20, 0);
    const auto n = ::read(ends[0], part.data(), part.size());
    if (n > 0) text.append(part, 0, static_cast<std::size_t>(n));
  };
  for (std::size_t i = 0; i < kRecords; ++i) (void)sink->write(record(std::string(12001, 'x')));
  drain();
  EXPECT_FALSE(text.ends_with('\n')) << "nothing to go on with: the test is of no use";
  sink->flush();
  drain();
  std::size_t whole = 0;
  std::size_t missing = 0;
  for (const auto& line : lines_of(text)) {
    const auto j = json::parse(line, nullptr, false);
    ASSERT_FALSE(j.is_discarded()) << line.substr(0, 100);
    if (j.contains("event"))
      missing += j["count"].get<std::size_t>();
    else
      ++whole;
  }
  EXPECT_EQ(missing, sink->lost());
  EXPECT_EQ(whole + missing, kRecords);
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST_F(JsonLinesSinkTest, PipeWithoutReaderIsAnErrorNotASignal) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  auto sink = std::move(*JsonLinesSink::open_descriptor(ends[1]));
  ::close(ends[0]);
  const auto r = sink->write(record("a"));
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, EPIPE);
  sigset_t pending;
  ::sigpending(&pending);
  EXPECT_EQ(::sigismember(&pending, SIGPIPE), 0);
  ::close(ends[1]);
}

TEST_F(JsonLinesSinkTest, SocketAsStandardOutputWorksAndNeverBlocks) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  auto sink = std::move(*JsonLinesSink::open_descriptor(ends[1]));
  ASSERT_TRUE(sink->write(record("a")));
  std::array<char, 4096> buffer{};
  const auto n = ::read(ends[0], buffer.data(), buffer.size());
  ASSERT_GT(n, 0);
  EXPECT_EQ(json::parse(std::string(buffer.data(), static_cast<std::size_t>(n)))["comm"], "a");
  for (int i = 0; i < 20000; ++i) (void)sink->write(record("flood"));
  EXPECT_GT(sink->lost(), 0u);
  ::close(ends[0]);
  ::close(ends[1]);
}

}  // namespace
}  // namespace egressd::audit
