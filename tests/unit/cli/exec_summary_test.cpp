#include "cli/exec_summary.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "cli/exec_cgroup.h"

namespace egressd::cli {
namespace {

using testing::HasSubstr;
using testing::Not;

audit::Record record(const std::string& comm, std::uint16_t port, std::uint64_t count = 1) {
  audit::Record r;
  r.reason = "default_deny";
  r.destination = *net::IpAddress::parse("2001:db8::1");
  r.port = port;
  r.comm = comm;
  r.count = count;
  return r;
}

std::string printed(const ExecSummary& summary, const ExecSummary::Outcome& outcome = {}) {
  std::ostringstream out;
  summary.print(out, outcome);
  return out.str();
}

TEST(ExecSummary, TakesTheSameTogetherMostFirst) {
  ExecSummary summary;
  summary.add(record("curl", 80));
  summary.add(record("curl", 443, 3));
  summary.add(record("wget", 443));
  summary.add(record("curl", 443));
  EXPECT_EQ(summary.total(), 6u);
  const std::string text = printed(summary);
  EXPECT_THAT(text, HasSubstr("6 times"));
  const auto first = text.find("  4      [2001:db8::1]:443/tcp");
  ASSERT_NE(first, std::string::npos) << text;
  EXPECT_GT(text.find("  1      [2001:db8::1]:80/tcp"), first);
}

TEST(ExecSummary, NothingOfARecordReachesTheTerminalAsItIs) {
  ExecSummary summary;
  auto r = record("a\x1b[2Jb", 443);
  r.fqdns = {"x\x07.example"};
  summary.add(r);
  EXPECT_THAT(printed(summary), HasSubstr("a\\x1b[2Jb"));
  EXPECT_THAT(printed(summary), Not(HasSubstr("\x1b")));
  EXPECT_THAT(printed(summary), Not(HasSubstr("\x07")));
}

TEST(ExecSummary, SaysWhatItDoesNotKnow) {
  ExecSummary summary;
  summary.add(record("curl", 443));
  EXPECT_THAT(printed(summary, {.audit = false, .exit_code = 0, .counted = 5, .incomplete = "why"}),
              testing::AllOf(HasSubstr("5 times"), HasSubstr("of 4 of these there is no record"),
                             HasSubstr("may not be all: why")));
}

TEST(ExecSummary, LeavesOutLinesThatAreNoRecords) {
  const auto path = std::filesystem::path(testing::TempDir()) / "egressd-exec-summary";
  std::ofstream(path) << record("curl", 443).to_json() << "\n{\"schema\":1,\"lost\":3}\nrubbish\n";
  ExecSummary summary;
  summary.add_file(path);
  std::filesystem::remove(path);
  EXPECT_EQ(summary.total(), 1u);
}

TEST(OwnCgroup, IsTheLineOfVersion2) {
  const auto path = std::filesystem::path(testing::TempDir()) / "egressd-own-cgroup";
  const auto own = [&](const char* text) {
    std::ofstream(path) << text;
    return own_cgroup(path);
  };
  EXPECT_EQ(own("9:cpu:/a\n0::/user.slice/b\n"), "/user.slice/b");
  EXPECT_EQ(own("0::/\n"), "/");
  EXPECT_EQ(own("0::/../outside\n"), "");
  EXPECT_EQ(own("1:name=systemd:/x\n"), "");
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace egressd::cli
