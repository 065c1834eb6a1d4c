#include <gmock/gmock.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/commands.h"

namespace egressd::cli {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
namespace fs = std::filesystem;

struct Outcome {
  int code = -1;
  std::string out;
  std::string err;
};

class AnalysisTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "egressd-analysis-XXXXXX").string();
    dir = ::mkdtemp(pattern.data());
    write("records", record("api.example.com", "203.0.113.1"));
    write("policy", kPolicy);
  }
  void TearDown() override { fs::remove_all(dir); }

  static std::string record(const std::string& name, const std::string& address) {
    return json{{"schema", 1},         {"time", "2026-01-01T00:00:00.000000Z"},
                {"verdict", "denied"}, {"reason", "default_deny"},
                {"hook", "connect"},   {"destination", address},
                {"port", 443},         {"protocol", "tcp"},
                {"fqdns", json{name}}}
               .dump() +
           "\n";
  }

  void write(const std::string& name, const std::string& text) const {
    std::ofstream(dir / name) << text;
  }

  // "@x" is file x of this test.
  Outcome run(std::vector<std::string> words) const {
    std::vector<const char*> argv{"egressctl"};
    for (auto& word : words) {
      if (word.starts_with('@')) word = (dir / word.substr(1)).string();
      argv.push_back(word.c_str());
    }
    std::ostringstream out, err;
    Outcome outcome;
    outcome.code = cli::run(static_cast<int>(argv.size()), argv.data(), {.out = out, .err = err});
    outcome.out = out.str();
    outcome.err = err.str();
    return outcome;
  }

  static constexpr char kPolicy[] =
      "version: 1\nmode: enforce\ncollections:\n  - {name: c, priority: 100, action: allow, rules: "
      "[{name: r, fqdns: [other.example.com], ports: [443]}]}\n";
  fs::path dir;
};

TEST_F(AnalysisTest, LearnCheckReplay) {
  const auto learned = run({"learn", "--from", "@records", "--name", "mine"});
  EXPECT_EQ(learned.code, kOk);
  EXPECT_THAT(learned.err, IsEmpty());
  EXPECT_THAT(learned.out, HasSubstr("name: \"mine\""));
  write("learned", learned.out);
  EXPECT_EQ(run({"check", "@learned"}).code, kOk);
  const auto replayed = run({"replay", "--policy", "@learned", "@records"});
  EXPECT_EQ(replayed.code, kDenied);
  EXPECT_EQ(replayed.out,
            "api.example.com:443/tcp  (1)\n"
            "  - denied: default_deny\n"
            "  + allowed by mine/api.example.com\n"
            "1 of 1 recorded verdict would change\n");
  const auto same = run({"replay", "--policy", "@policy", "@records"});
  EXPECT_EQ(same.code, kOk);
  EXPECT_EQ(same.out, "0 of 1 recorded verdict would change\n");
}

TEST_F(AnalysisTest, ReplayJson) {
  write("learned", run({"learn", "--from", "@records"}).out);
  const auto replayed = run({"replay", "--policy", "@learned", "--json", "@records", "@records"});
  const auto said = json::parse(replayed.out);
  EXPECT_EQ(said["verdicts"], 2);
  EXPECT_EQ(said["changed"], 2);
  EXPECT_EQ(said["changes"][0]["destination"], "api.example.com");
  EXPECT_EQ(said["changes"][0]["before"], "denied");
  EXPECT_EQ(said["changes"][0]["after_rule"], "learned/api.example.com");
}

TEST_F(AnalysisTest, SeveralFilesAreOneInput) {
  write("more", record("b.example.org", "203.0.113.2"));
  const auto learned = run({"learn", "--from", "@records", "--from", "@more"});
  EXPECT_THAT(learned.out, HasSubstr("api.example.com"));
  EXPECT_THAT(learned.out, HasSubstr("b.example.org"));
}

TEST_F(AnalysisTest, BadLinesAndGapsAreToldByEveryCommand) {
  write("records", record("api.example.com", "203.0.113.1") +
                       "bad\n{\"event\":\"gap\",\"count\":5}\n{\"event\":\"gap\",\"count\":6}\n");
  for (const auto& words :
       std::vector<std::vector<std::string>>{{"learn", "--from", "@records"},
                                             {"replay", "--policy", "@policy", "@records"},
                                             {"report", "@records"}}) {
    const auto said = run(words);
    EXPECT_EQ(said.code, kOk) << words[0];
    EXPECT_THAT(said.err, HasSubstr("1 line skipped")) << words[0];
    EXPECT_THAT(said.err, HasSubstr("11 records lost in 2 gaps")) << words[0];
  }
}

TEST_F(AnalysisTest, WrongArgumentsSayWhatToDo) {
  for (const auto& [words, hint] : std::vector<std::pair<std::vector<std::string>, std::string>>{
           {{"learn", "--from", "@missing"}, "cannot open"},
           {{"learn", "--from", "@."}, "is a directory"},
           {{"learn", "--from", "@records", "--name", "a\"b"}, "--name must be"},
           {{"learn", "--from", "@records", "--name", ""}, "--name must be"},
           {{"learn", "--from", "@records", "--policy", "@missing"}, "missing"},
           {{"learn", "--from", "@records", "--ports", "0"}, "--ports"},
           {{"replay", "@records"}, "--policy"},
           {{"replay", "--policy", "@records", "@records"}, "error"},
           {{"report", "@records", "-o", "@no/such/dir"}, "cannot write"}}) {
    const auto said = run(words);
    EXPECT_EQ(said.code, kUsage) << hint;
    EXPECT_THAT(said.err, HasSubstr(hint));
  }
}

TEST_F(AnalysisTest, NoRecordsAreTold) {
  write("empty", "");
  const auto said = run({"learn", "--from", "@empty"});
  EXPECT_EQ(said.code, kOk);
  EXPECT_THAT(said.err, HasSubstr("no audit records"));
  EXPECT_THAT(said.err, HasSubstr("no policy"));
}

TEST_F(AnalysisTest, NothingOfARecordObeysTheTerminal) {
  write("records",
        record("\x1b[31mred\n", "203.0.113.1") + record("other.example.com", "203.0.113.1"));
  const auto said = run({"replay", "--policy", "@policy", "@records"});
  EXPECT_EQ(said.code, kDenied);
  EXPECT_THAT(said.out, Not(HasSubstr("\x1b")));
  EXPECT_THAT(run({"learn", "--from", "@records"}).out, Not(HasSubstr("\x1b")));
}

TEST_F(AnalysisTest, ReportGoesToAFileOrStandardOutput) {
  EXPECT_THAT(run({"report", "@records"}).out, HasSubstr("api.example.com"));
  const auto said = run({"report", "@records", "-o", "@page"});
  EXPECT_EQ(said.code, kOk);
  EXPECT_THAT(said.out, IsEmpty());
  std::ifstream in(dir / "page");
  EXPECT_THAT(std::string(std::istreambuf_iterator<char>(in), {}), HasSubstr("api.example.com"));
}

}  // namespace
}  // namespace egressd::cli
