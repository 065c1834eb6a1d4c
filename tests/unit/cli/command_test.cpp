#include <gmock/gmock.h>
#include <sys/wait.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "control/server.h"

// Runs the real program.
namespace egressd::cli {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

struct Outcome {
  int code = -1;
  std::string out;
  std::string err;
};

class CommandTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "egressd-cli-XXXXXX").string();
    dir = ::mkdtemp(pattern.data());
    ASSERT_EQ(::chmod(dir.c_str(), 0755), 0);
    socket = dir / "control.sock";
    policy = dir / "policy.yaml";
    std::ofstream(policy) << "version: 1\n"
                             "mode: enforce\n"
                             "collections:\n"
                             "  - name: web\n"
                             "    priority: 100\n"
                             "    action: allow\n"
                             "    rules:\n"
                             "      - name: python\n"
                             "        fqdns: [pypi.org]\n"
                             "        ports: [443]\n"
                             "      - name: office\n"
                             "        addresses: [2001:db8::/32]\n"
                             "        ports: [443]\n"
                             "        protocols: [tcp]\n";
  }
  void TearDown() override {
    stop();
    fs::remove_all(dir);
  }

  Outcome run(const std::string& arguments) const {
    const auto err = dir / "stderr";
    const auto command = std::string(EGRESSCTL) + " " + arguments + " 2>" + err.string();
    Outcome outcome;
    FILE* pipe = ::popen(command.c_str(), "r");
    std::array<char, 4096> buffer{};
    for (std::size_t n = 0; (n = std::fread(buffer.data(), 1, buffer.size(), pipe)) > 0;)
      outcome.out.append(buffer.data(), n);
    outcome.code = WEXITSTATUS(::pclose(pipe));
    std::ifstream in(err);
    outcome.err.assign(std::istreambuf_iterator<char>(in), {});
    return outcome;
  }

  // The real server, answering with canned lines in a thread of its own.
  void serve(std::vector<std::string> lines) {
    thread = std::thread([this, lines = std::move(lines)] {
      auto loop = std::move(*EventLoop::create());
      auto server = control::Server::open(
          *loop, {.path = socket},
          [&](const control::Request& request, control::Responder& responder) {
            const std::scoped_lock guard(mutex);
            asked = request;
            for (const auto& line : lines) responder.send(line);
          });
      ready = true;
      while (!done) (void)loop->run_once(5ms);
    });
    while (!ready) std::this_thread::yield();
  }
  void stop() {
    done = true;
    if (thread.joinable()) thread.join();
  }

  // The last request that came.
  control::Request request() {
    const std::scoped_lock guard(mutex);
    return asked;
  }

  fs::path dir, socket, policy;
  std::mutex mutex;
  control::Request asked;
  std::thread thread;
  std::atomic<bool> ready = false, done = false;
};

TEST_F(CommandTest, ErrorsOfThePolicyAreJsonToo) {
  std::ofstream(policy) << "version: 1\nmode: enforce\ncolections: []\n";
  for (const std::string command : {"check --json ", "verdict --json pypi.org --policy "}) {
    const auto r = run(command + policy.string());
    EXPECT_EQ(r.code, 2);
    const auto j = json::parse(r.out);
    EXPECT_EQ(j["valid"], false);
    EXPECT_EQ(j["file"], policy.string());
    EXPECT_EQ(j["errors"].back()["line"], 3) << r.out;
    EXPECT_THAT(r.err, HasSubstr(":3:1: error: "));
  }
}

TEST_F(CommandTest, VerdictExitsZeroOnlyIfAllIsAllowed) {
  const auto good =
      run("verdict --policy " + policy.string() + " pypi.org '[2001:db8::1]:443/tcp'");
  EXPECT_EQ(good.code, 0) << good.err;
  EXPECT_THAT(good.out, HasSubstr("pypi.org:443/tcp (default port)"));
  EXPECT_THAT(good.out, HasSubstr("web/python"));
  const auto mixed = run("verdict --policy " + policy.string() + " pypi.org pypi.org:80");
  EXPECT_EQ(mixed.code, 1);
  EXPECT_THAT(mixed.out, HasSubstr("deny"));
  EXPECT_EQ(run("verdict --policy " + policy.string() + " pypi.org:0").code, 2);
  EXPECT_EQ(run("verdict --policy /nonexistent pypi.org").code, 2);
  EXPECT_EQ(run("verdict pypi.org").code, 2);
}

TEST_F(CommandTest, VerdictKnowsWhatIsAlwaysAllowed) {
  std::ofstream(policy, std::ios::app) << "dns: {servers: [10.0.0.10]}\n";
  const auto good = run("verdict --json --policy " + policy.string() +
                        " 127.0.0.1:80 '[::1]:80' 10.0.0.10:53/udp 10.0.0.10:53/tcp");
  EXPECT_EQ(good.code, 0) << good.out;
  EXPECT_THAT(good.out, HasSubstr("\"basis\":\"loopback\""));
  EXPECT_THAT(good.out, HasSubstr("\"basis\":\"resolver\""));
  const auto other = run("verdict --json --policy " + policy.string() + " 10.0.0.11:53/udp");
  EXPECT_EQ(other.code, 1);
  EXPECT_EQ(json::parse(other.out)["basis"], "dns_server_not_allowed");
}

TEST_F(CommandTest, VerdictJsonIsOneObjectADestination) {
  const auto r = run("verdict --json --policy " + policy.string() + " pypi.org evil.example:80");
  EXPECT_EQ(r.code, 1);
  std::istringstream in(r.out);
  std::string line;
  ASSERT_TRUE(std::getline(in, line));
  EXPECT_EQ(json::parse(line)["allowed"], true);
  EXPECT_EQ(json::parse(line)["rule"], "python");
  ASSERT_TRUE(std::getline(in, line));
  EXPECT_EQ(json::parse(line)["allowed"], false);
  EXPECT_FALSE(json::parse(line).contains("rule"));
}

TEST_F(CommandTest, CheckSaysWhatIsWrongWhere) {
  const auto good = run("check " + policy.string());
  EXPECT_EQ(good.code, 0) << good.err;
  EXPECT_THAT(good.out, HasSubstr("valid: mode enforce, 1 collections, 2 rules"));
  const auto bad = dir / "bad.yaml";
  std::ofstream(bad) << "version: 1\nmode: maybe\x1b[2J\n";
  const auto r = run("check " + bad.string());
  EXPECT_EQ(r.code, 2);
  EXPECT_THAT(r.err, HasSubstr("bad.yaml:2:"));
  EXPECT_THAT(r.err, Not(HasSubstr("\x1b")));
}

TEST_F(CommandTest, TagsShowSourceHostsAndRisks) {
  const auto list = run("tags list");
  EXPECT_EQ(list.code, 0);
  EXPECT_THAT(list.out, HasSubstr("AzureMachineLearning-2020"));
  const auto show = run("tags show AzureMachineLearning-2020");
  EXPECT_EQ(show.code, 0);
  for (const char* text : {"source: ", "date: ", "ml.azure.com", "*.azureml.ms",
                           "windows.net, *.windows.net", "EXFILTRATION RISK"})
    EXPECT_THAT(show.out, HasSubstr(text));
  EXPECT_EQ(json::parse(run("tags show --json AzureMachineLearning-2020").out)["name"],
            "AzureMachineLearning-2020");
  EXPECT_EQ(run("tags show NoSuchTag").code, 2);
  EXPECT_EQ(run("tags list --cloud mars").code, 2);
}

TEST_F(CommandTest, NoDaemonIsSaidWithThePath) {
  for (const char* command : {"status", "list", "watch"}) {
    const auto r = run(std::string(command) + " --socket " + socket.string());
    EXPECT_EQ(r.code, 3) << command;
    EXPECT_EQ(r.out, "");
    EXPECT_THAT(r.err, HasSubstr("No daemon answers on " + socket.string()));
  }
}

TEST_F(CommandTest, DetachWithoutDaemonRemovesPinsItself) {
  const auto r = run("detach --socket " + socket.string() + " --bpffs " + (dir / "none").string());
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_THAT(r.out, HasSubstr("nothing was attached"));
}

TEST_F(CommandTest, DetachByTheDaemonSaysWhatIsGone) {
  serve({control::ok_line(R"({"removed":["link a\u001b"]})")});
  const auto r = run("detach --socket " + socket.string());
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_THAT(r.out, HasSubstr("removed link a\\x1b"));
}

TEST_F(CommandTest, DaemonsRefusalIsShown) {
  serve({control::error_line("not now")});
  const auto r = run("status --socket " + socket.string());
  EXPECT_EQ(r.code, 4);
  EXPECT_THAT(r.err, HasSubstr("not now"));
}

TEST_F(CommandTest, WatchShowsRecordsWithoutTheirEscapes) {
  const std::string record =
      R"({"schema":1,"time":"2026-01-02T03:04:05.000006Z","verdict":"denied",)"
      R"("reason":"default_deny","hook":"connect","destination":"2001:db8::1","port":443,)"
      R"("protocol":"tcp","pid":7,"comm":"\u001b[2J\n"})";
  serve({control::ok_line(), record, "{\"dropped\":5}", record, record});
  const auto r = run("watch --count 2 --socket " + socket.string());
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(std::ranges::count(r.out, '\n'), 3);
  EXPECT_THAT(r.out, HasSubstr("[2001:db8::1]:443"));
  EXPECT_THAT(r.out, HasSubstr("\\x1b[2J\\x0a[7]"));
  EXPECT_THAT(r.out, HasSubstr("(5 more"));
  EXPECT_THAT(r.out, Not(HasSubstr("\x1b")));
}

constexpr const char* kLearned =
    R"({"event":"dns_learned","fqdn":"a.example","cname_chain":["b\u001b.example","c.example"],)"
    R"("addresses":["192.0.2.1","2001:db8::1"],"ttl_seconds":65,"server":"192.0.2.53"})";

TEST_F(CommandTest, WatchDnsShowsWhatAnAnswerTaught) {
  serve({control::ok_line(), kLearned, "{\"dropped\":5}", kLearned, kLearned});
  const auto r = run("watch --dns --count 2 --socket " + socket.string());
  EXPECT_EQ(r.code, 0) << r.err;
  const std::string line =
      "a.example -> b\\x1b.example -> c.example: 192.0.2.1, 2001:db8::1 (ttl 1m5s, from "
      "192.0.2.53)\n";
  EXPECT_EQ(r.out, line + "(5 more, not shown: they came faster than they were read)\n" + line);
  EXPECT_EQ(request().command, "watch");
  EXPECT_EQ(request().arguments.at("dns"), "true");
}

TEST_F(CommandTest, WatchDnsJsonIsTheDaemonsLine) {
  serve({control::ok_line(), kLearned});
  const auto r = run("watch --dns --json --count 1 --socket " + socket.string());
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(json::parse(r.out), json::parse(kLearned));
}

TEST_F(CommandTest, WatchWithoutDnsDoesNotAskForIt) {
  serve({control::error_line("no")});
  EXPECT_EQ(run("watch --socket " + socket.string()).code, 4);
  EXPECT_FALSE(request().arguments.contains("dns"));
}

TEST_F(CommandTest, WatchDnsShowsALineThatLacksPartsAndAnUnknownOneAsItIs) {
  serve({control::ok_line(), R"({"event":"dns_learned","addresses":7,"ttl_seconds":0})",
         R"({"event":"other\u001b"})"});
  const auto r = run("watch --dns --count 2 --socket " + socket.string());
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_THAT(r.out, HasSubstr("-:  (ttl 0s, from -)\n"));
  EXPECT_THAT(r.out, HasSubstr(R"({"event":"other\x5cu001b"})"));
}

constexpr const char* kGap =
    R"({"schema":1,"event":"gap","time":"2026-01-02T03:04:05.000006Z","count":3,"cause":"kernel"})";

std::string record_to(const std::string& address, const std::string& more = "") {
  return R"({"schema":1,"time":"2026-01-02T03:04:05.000006Z","verdict":"denied",)"
         R"("reason":"default_deny","hook":"connect","destination":")" +
         address + R"(","port":443,"protocol":"tcp")" + more + "}";
}

TEST_F(CommandTest, WatchFiltersRecordsButNeverEvents) {
  serve({control::ok_line(), record_to("192.0.2.1"), kGap, "{\"dropped\":5}",
         R"({"event":"break_glass_opened","time":"T","uid":0,"reason":"no \u001bway"})",
         record_to("198.51.100.1"), record_to("192.0.2.2")});
  const std::string filter =
      " --count 1 --destination 203.0.113.0/24 --destination 198.51.100.0/24 --socket ";
  auto r = run("watch" + filter + socket.string());
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_THAT(r.out, testing::StartsWith(
                         "2026-01-02T03:04:05.000006Z GAP        3 records are missing here: they "
                         "came faster than they were read\n(5 more, not shown: they came faster "
                         "than they were read)\nT BREAK-GLASS-OPENED uid=0 "
                         "reason=\"no \\x1bway\"\n2026-01-02T03:04:05.000006Z DENIED "));
  EXPECT_THAT(r.out, HasSubstr(" 198.51.100.1:443 "));
  EXPECT_THAT(r.out, Not(HasSubstr("192.0.2.")));

  r = run("watch --json --color always" + filter + socket.string());
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(std::ranges::count(r.out, '\n'), 4);
  EXPECT_THAT(r.out, testing::StartsWith(std::string(kGap) + "\n{\"dropped\":5}\n"));
  EXPECT_THAT(r.out, testing::EndsWith(record_to("198.51.100.1") + "\n"));
}

TEST_F(CommandTest, WatchColorsOnlyIfAsked) {
  serve({control::ok_line(), kGap, record_to("192.0.2.1", R"(,"comm":"\u001b[2J")")});
  const std::string rest = " --count 1 --socket " + socket.string();
  auto r = run("watch --color always" + rest);
  EXPECT_THAT(r.out, HasSubstr(" \x1b[1;31mDENIED\x1b[0m "));
  EXPECT_THAT(r.out, HasSubstr("\\x1b[2J"));
  EXPECT_THAT(r.out, Not(HasSubstr("\x1b[2J")));
  EXPECT_THAT(r.out, testing::StartsWith("\x1b[36m2026"));
  for (const std::string color : {"", " --color auto", " --color never"})
    EXPECT_THAT(run("watch" + color + rest).out, Not(HasSubstr("\x1b"))) << color;
}

TEST_F(CommandTest, BadFilterValuesAreErrorsThatNameTheOption) {
  for (const std::string command : {"watch ", "top --once "}) {
    const auto error = [&](const std::string& arguments) {
      const auto r = run(command + arguments + " --socket " + socket.string());
      EXPECT_EQ(r.code, 2) << arguments;
      EXPECT_EQ(r.out, "");
      return r.err;
    };
    EXPECT_THAT(error("--reason default_dney"),
                HasSubstr("--reason: 'default_dney' is none of no_policy, default_deny, "));
    EXPECT_THAT(error("--reason default_dney"), HasSubstr("did you mean 'default_deny'?"));
    EXPECT_THAT(error("--reason network_rule"), HasSubstr("is none of"));
    EXPECT_THAT(error("--destination 192.0.2.1/24"), HasSubstr("--destination: "));
    EXPECT_THAT(error("--destination host.example"), HasSubstr("--destination: "));
    EXPECT_THAT(error("--port https"), HasSubstr("--port: 'https' is no port"));
    EXPECT_THAT(error("--pid curl"), HasSubstr("--pid: 'curl' is no process number"));
    EXPECT_THAT(error("--fqdn ''"), HasSubstr("--fqdn: "));
    for (const char* option : {"--comm", "--cgroup", "--pod", "--rule"})
      EXPECT_THAT(error(std::string(option) + " ''"), HasSubstr(std::string(option) + ": "));
    EXPECT_THAT(error("--port $(printf '\\033')"), Not(HasSubstr("\x1b")));
  }
  EXPECT_EQ(run("watch --dns --port 1 --socket " + socket.string()).code, 2);
  EXPECT_EQ(run("watch --color red --socket " + socket.string()).code, 2);
  for (const char* bad : {"--by port", "--interval 10", "--interval 1ms", "--for 25h",
                          "--interval 99999999999999999999s", "--limit 0"})
    EXPECT_EQ(run("top --once " + std::string(bad) + " --socket " + socket.string()).code, 2)
        << bad;
}

TEST_F(CommandTest, TopCountsVerdictsAndWhatIsMissing) {
  serve({control::ok_line(), record_to("192.0.2.1"), kGap, record_to("192.0.2.2", R"(,"count":7)"),
         "{\"dropped\":5}", record_to("192.0.2.1"), record_to("192.0.2.3"),
         R"({"event":"gap","count":100,"cause":"audit_log"})"});
  const std::string rest = " --for 100ms --limit 2 --socket " + socket.string();
  // The server closes, as a daemon that ends: what was counted is shown all the same.
  auto r = run("top" + rest);
  EXPECT_EQ(r.code, 3);
  EXPECT_THAT(r.err, HasSubstr("the daemon has gone"));
  EXPECT_THAT(r.out, testing::StartsWith(
                         "egressd, by destination, since 1s: 10 denied, 8 records lost\n- GAP  "));
  EXPECT_EQ(std::ranges::count(r.out, '\n'), 5) << r.out;

  r = run("top --json --destination 192.0.2.0/31" + rest);
  const auto j = json::parse(r.out);
  EXPECT_EQ(j["denied"], 2);
  EXPECT_EQ(j["lost"], 8) << "whatever the filter";
  ASSERT_EQ(j["rows"].size(), 1U);
  EXPECT_EQ(j["rows"][0]["destination"], "192.0.2.1:443/tcp");
}

TEST_F(CommandTest, WatchAndTopRefuseWhatIsNoObject) {
  serve({control::ok_line(), record_to("192.0.2.1"), "[1]"});
  for (const std::string command : {"watch", "top --for 1s"}) {
    const auto r = run(command + " --socket " + socket.string());
    EXPECT_EQ(r.code, 4) << command;
    EXPECT_THAT(r.out, HasSubstr(" 192.0.2.1:443")) << command;
    EXPECT_THAT(r.err, HasSubstr("no JSON object")) << command;
  }
}

TEST_F(CommandTest, StatusShowsDnsCountsAndOnlyTheTroubleThereIs) {
  serve({control::ok_line(
      R"({"dns":{"asked":12,"learned":9,"denied_name":0,"address_full":0,"address_quota":4,)"
      R"("rcode":77}})")});
  const auto r = run("status --socket " + socket.string());
  EXPECT_EQ(r.code, 0) << r.err;
  for (const char* text : {"dns:\n", "  asked          12\n", "  learned        9\n",
                           "  denied_name    0\n", "  address_quota  4\n"})
    EXPECT_THAT(r.out, HasSubstr(text));
  for (const char* text : {"address_full", "rcode"}) EXPECT_THAT(r.out, Not(HasSubstr(text)));
}

TEST_F(CommandTest, ListIsATableOrTheLinesAsJson) {
  serve(
      {control::ok_line(),
       R"({"address":"192.0.2.1","fqdn":"a\u001b.example","pattern":"*.example","collection":"web","rule":"r","expires_in_seconds":65,)"
       R"("cname_chain":["b.example","c.example"],"asked_by":{"pid":12,"comm":"cu\u001brl"}})",
       R"({"address":"192.0.2.2","fqdn":"b.example","pattern":"*.example","collection":"web","rule":"r","source":"resolver","expires_in_seconds":5})"});
  const auto table = run("list --socket " + socket.string());
  EXPECT_EQ(table.code, 0) << table.err;
  EXPECT_THAT(table.out,
              HasSubstr("192.0.2.1  a\\x1b.example -> b.example -> c.example  *.example  "
                        "web/r  cu\\x1brl[12]  1m5s"));
  EXPECT_THAT(table.out, HasSubstr("*.example  web/r  resolver      5s"));
  const auto lines = run("list --json --socket " + socket.string());
  EXPECT_EQ(json::parse(lines.out.substr(0, lines.out.find('\n')))["asked_by"]["pid"], 12);
}

TEST_F(CommandTest, HelpNamesTheExitCodes) {
  const auto r = run("--help");
  EXPECT_EQ(r.code, 0);
  EXPECT_THAT(r.out, HasSubstr("3 no daemon answers"));
  EXPECT_EQ(run("").code, 2);
}

}  // namespace
}  // namespace egressd::cli
