#include "audit/journal_sink.h"

#include <gmock/gmock.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <filesystem>

namespace egressd::audit {
namespace {

namespace fs = std::filesystem;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

// A socket where journald's would be. tests/netns/journal_test.sh has the real one.
class JournalSinkTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "egressd-journal-XXXXXX").string();
    dir = ::mkdtemp(pattern.data());
    path = dir / "socket";
    listen();
  }
  void TearDown() override { fs::remove_all(dir); }
  void listen() {
    fs::remove(path);
    sockaddr_un at{};
    at.sun_family = AF_UNIX;
    std::strncpy(at.sun_path, path.c_str(), sizeof(at.sun_path) - 1);
    fd.reset(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&at), sizeof(at)), 0);
  }
  // Empty if there is none.
  std::string next() {
    std::array<char, 65536> buffer{};
    const auto n = ::recv(fd.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    return {buffer.data(), static_cast<std::size_t>(std::max<ssize_t>(n, 0))};
  }
  std::unique_ptr<JournalSink> open() {
    auto sink = JournalSink::open(path);
    EXPECT_TRUE(sink) << sink.error().message;
    EXPECT_EQ(next(), "");  // the question whether somebody is there
    return std::move(*sink);
  }
  static Record record() {
    Record r;
    r.reason = "default_deny";
    r.comm = "curl";
    r.cgroup_id = 9;
    return r;
  }

  fs::path dir;
  fs::path path;
  UniqueFd fd;
};

TEST_F(JournalSinkTest, EveryKeyIsAField) {
  auto r = record();
  r.fqdns = {"a.example", "b.example"};
  ASSERT_TRUE(open()->write(r));
  const auto entry = next();
  EXPECT_THAT(entry, StartsWith("MESSAGE=1970-01-01T00:00:00.000000Z DENIED     default_deny"));
  EXPECT_THAT(entry, HasSubstr("\nMESSAGE_ID=" + std::string(JournalSink::kRecordId) + "\n"));
  EXPECT_THAT(entry, HasSubstr("\nPRIORITY=4\n"));
  EXPECT_THAT(entry, HasSubstr("\nSYSLOG_IDENTIFIER=egressd\n"));
  EXPECT_THAT(entry, HasSubstr("\nEGRESSD_CGROUP_ID=9\n"));
  EXPECT_THAT(entry, HasSubstr("\nEGRESSD_FQDNS=a.example\nEGRESSD_FQDNS=b.example\n"));
  EXPECT_THAT(entry, EndsWith("\n"));
}

TEST_F(JournalSinkTest, WouldBeDenialHasLessWeight) {
  auto r = record();
  r.denied = false;
  ASSERT_TRUE(open()->write(r));
  EXPECT_THAT(next(), HasSubstr("\nPRIORITY=5\n"));
}

// Else a process could write fields of its own into the entry.
TEST_F(JournalSinkTest, LineEndInAValueStaysInTheValue) {
  auto r = record();
  r.comm = "x\nUID=0";
  ASSERT_TRUE(open()->write(r));
  const auto entry = next();
  EXPECT_THAT(entry, HasSubstr(std::string("\nEGRESSD_COMM\n\7\0\0\0\0\0\0\0x\nUID=0\n", 30)));
  EXPECT_THAT(entry, HasSubstr("x\\x0aUID=0")) << "the text for a person";
}

TEST_F(JournalSinkTest, WhoDoesNotReadLosesAndIsToldHowMuch) {
  auto sink = open();
  int reported = 0;
  for (int i = 0; i < 2000; ++i) reported += sink->write(record()) ? 0 : 1;
  EXPECT_EQ(reported, 1);
  const auto lost = sink->lost();
  ASSERT_GT(lost, 0u);
  std::size_t read = 0;
  while (!next().empty()) ++read;
  EXPECT_EQ(read + lost, 2000u);
  ASSERT_TRUE(sink->write(record()));
  const auto gap = next();
  EXPECT_THAT(gap, StartsWith("MESSAGE=" + std::to_string(lost) + " records of refused"));
  EXPECT_THAT(gap, HasSubstr("\nMESSAGE_ID=" + std::string(JournalSink::kGapId) + "\n"));
  EXPECT_THAT(gap, HasSubstr("\nEGRESSD_COUNT=" + std::to_string(lost) + "\n"));
  EXPECT_THAT(next(), HasSubstr("EGRESSD_REASON=default_deny\n"));
}

TEST_F(JournalSinkTest, RestartOfTheOtherSideIsAGapAndNoMore) {
  auto sink = open();
  fd.reset();
  EXPECT_FALSE(sink->write(record()));
  EXPECT_TRUE(sink->write(record()));
  listen();
  sink->flush();
  EXPECT_THAT(next(), HasSubstr("\nEGRESSD_COUNT=2\n"));
  ASSERT_TRUE(sink->write(record()));
  EXPECT_THAT(next(), Not(HasSubstr("EGRESSD_COUNT")));
}

TEST_F(JournalSinkTest, FieldsOfAListAreBounded) {
  auto r = record();
  r.fqdns.assign(10000, std::string(200, 'a'));
  ASSERT_TRUE(open()->write(r));
  const auto entry = next();
  std::size_t fields = 0;
  for (auto at = entry.find("EGRESSD_FQDNS="); at != std::string::npos;
       at = entry.find("EGRESSD_FQDNS=", at + 1))
    ++fields;
  EXPECT_EQ(fields, JournalSink::kMaxList);
}

TEST_F(JournalSinkTest, NobodyThereIsAnErrorAtOnce) {
  fd.reset();
  const auto sink = JournalSink::open(path);
  ASSERT_FALSE(sink);
  EXPECT_THAT(sink.error().message, HasSubstr("no journald listens on"));
  EXPECT_FALSE(JournalSink::open("/" + std::string(200, 'x')));
}

}  // namespace
}  // namespace egressd::audit
