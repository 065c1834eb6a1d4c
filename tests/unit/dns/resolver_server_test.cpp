#include <dirent.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <optional>

#include "dns/resolver.h"
#include "name_servers.h"
#include "resolver_fixture.h"

namespace egressd::dns {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

std::size_t open_descriptors() {
  std::size_t count = 0;
  DIR* directory = ::opendir("/proc/self/fd");
  while (directory != nullptr && ::readdir(directory) != nullptr) ++count;
  if (directory != nullptr) ::closedir(directory);
  return count;
}

class ResolverWithServer : public ResolverFixture {
 protected:
  void SetUp() override {
    if (!KnotServer::is_installed())
      GTEST_SKIP() << "knotd is not installed (Debian package knot): no real name server to ask";
    options_.timeout = seconds(2);  // the machine may be busy
  }
  void serve(const std::string& records) {
    server_.emplace(records);
    const auto started = server_->start();
    ASSERT_TRUE(started) << started.error().message;
    options_.servers = {ip("127.0.0.1")};
    options_.server_port = server_->port();
  }
  // Serves the records and asks for the names, until each is heard of.
  void resolve(const std::string& records, const std::vector<std::string>& names) {
    ASSERT_NO_FATAL_FAILURE(serve(records));
    ASSERT_NO_FATAL_FAILURE(create());
    resolver_->set_names(names);
    for (const auto& name : names) ASSERT_TRUE(heard_of(name)) << name;
  }
  const Answer& answer(const std::string& name) {
    static const Answer kNone;
    if (!answers_.contains(name)) {
      ADD_FAILURE() << name << ": "
                    << (failures_.contains(name) ? failures_[name][0] : "not heard of");
      return kNone;
    }
    return answers_[name].front();
  }
  std::optional<KnotServer> server_;
};

TEST_F(ResolverWithServer, AddressesOfBothFamiliesAndOfEitherAlone) {
  resolve(
      "both A 192.0.2.1\nboth A 192.0.2.2\nboth AAAA 2001:db8::1\nfour A 192.0.2.4\n"
      "six AAAA 2001:db8::6\n",
      {"both.test", "four.test", "six.test"});
  EXPECT_THAT(texts(answer("both.test")),
              UnorderedElementsAre("192.0.2.1", "192.0.2.2", "2001:db8::1"));
  EXPECT_THAT(texts(answer("four.test")), ElementsAre("192.0.2.4"));
  EXPECT_THAT(texts(answer("six.test")), ElementsAre("2001:db8::6"));
  EXPECT_EQ(answer("both.test").source, Answer::Source::Resolver);
  EXPECT_THAT(answer("both.test").cname_chain, IsEmpty());
  EXPECT_EQ(answer("both.test").ttl, seconds(300));
  EXPECT_THAT(failures_, IsEmpty());
  EXPECT_EQ(status_of("four.test").last_error, "");
}

TEST_F(ResolverWithServer, CnameIsFollowedAndTheSmallestTtlCounts) {
  resolve("one 50 CNAME End\nend 70 A 192.0.2.9\nend 80 AAAA 2001:db8::9\n",
          {"end.test", "one.test"});
  EXPECT_EQ(answer("end.test").ttl, seconds(70));
  EXPECT_THAT(answer("one.test").cname_chain, ElementsAre("end.test"));
  EXPECT_EQ(answer("one.test").ttl, seconds(50));
}

// knotd leaves a chain after five steps to the asker, so this one needs a recursive server.
TEST_F(ResolverWithServer, ChainOfEightIsFollowedThroughARecursiveServer) {
  if (!UnboundServer::is_installed())
    GTEST_SKIP() << "unbound is not installed: no recursive server to ask";
  std::string records = "end 70 A 192.0.2.9\nend 80 AAAA 2001:db8::9\nc8 20 CNAME end\n";
  for (int i = 1; i < 8; ++i)
    records += "c" + std::to_string(i) + " 100 CNAME c" + std::to_string(i + 1) + "\n";
  ASSERT_NO_FATAL_FAILURE(serve(records));
  UnboundServer recursive(server_->port());
  const auto started = recursive.start();
  ASSERT_TRUE(started) << started.error().message;
  options_.server_port = recursive.port();
  create();
  resolver_->set_names({"c1.test", "absent.test"});
  ASSERT_TRUE(heard_of("c1.test"));
  EXPECT_THAT(answer("c1.test").cname_chain,
              ElementsAre("c2.test", "c3.test", "c4.test", "c5.test", "c6.test", "c7.test",
                          "c8.test", "end.test"));
  EXPECT_THAT(texts(answer("c1.test")), ElementsAre("192.0.2.9", "2001:db8::9"));
  EXPECT_LE(answer("c1.test").ttl, seconds(20));
  EXPECT_GE(answer("c1.test").ttl, seconds(15));  // unbound counts down
  ASSERT_TRUE(heard_of("absent.test"));
  EXPECT_THAT(failures_["absent.test"].at(0), HasSubstr("NXDOMAIN from 127.0.0.1"));
}

TEST_F(ResolverWithServer, TtlsOfZeroAndOneAreAskedAgainNoFasterThanTheMinimum) {
  resolve("zero 0 A 192.0.2.1\none 1 A 192.0.2.2\nhuge 2147483647 A 192.0.2.3\n",
          {"zero.test", "one.test", "huge.test"});
  EXPECT_EQ(answer("zero.test").ttl, seconds(0));
  EXPECT_EQ(answer("one.test").ttl, seconds(1));
  EXPECT_EQ(answer("huge.test").ttl, seconds(2147483647));
  const auto start = std::chrono::steady_clock::now();
  ASSERT_TRUE(run_until(
      [&] { return answers_["zero.test"].size() == 3 && answers_["one.test"].size() >= 3; }));
  // Two refreshes, each after 3/4 of min_ttl (1 s) or more; the first answers came just before
  // `start`.
  EXPECT_GE(std::chrono::steady_clock::now() - start, milliseconds(1400));
  EXPECT_EQ(answers_["huge.test"].size(), 1U);
  const auto huge = status_of("huge.test");
  EXPECT_GE(huge.next_attempt - huge.last_answer, seconds(64800));
  EXPECT_LT(huge.next_attempt - huge.last_answer, seconds(86400));
}

TEST_F(ResolverWithServer, NxdomainNodataAndServfailAreFailuresThatSayWhich) {
  resolve("text TXT \"no address\"\nalias CNAME text\n",
          {"absent.test", "text.test", "alias.test", "www.broken.test"});
  const std::string from = " from 127.0.0.1:" + std::to_string(server_->port());
  EXPECT_EQ(failures_["absent.test"].at(0), "NXDOMAIN" + from);
  EXPECT_EQ(failures_["text.test"].at(0), "NODATA" + from);
  EXPECT_EQ(failures_["alias.test"].at(0), "NODATA" + from + " (alias of text.test)");
  EXPECT_EQ(failures_["www.broken.test"].at(0), "SERVFAIL" + from);
  EXPECT_THAT(answers_, IsEmpty());
  EXPECT_FALSE(status_of("absent.test").resolved);
  EXPECT_EQ(status_of("absent.test").last_error, "NXDOMAIN" + from);
}

TEST_F(ResolverWithServer, TruncatedAnswersAreFetchedByTcp) {
  std::string records;
  for (int i = 1; i <= 60; ++i) {
    records += "many A 192.0.2." + std::to_string(i) + "\n";
    records += "many AAAA 2001:db8::" + std::to_string(i) + "\n";
  }
  resolve(records, {"many.test"});
  EXPECT_EQ(answer("many.test").addresses.size(), 120U);
  EXPECT_EQ(status_of("many.test").last_error, "");
}

TEST_F(ResolverWithServer, ServerThatRefusesFirstInTheListIsPassedOver) {
  ASSERT_NO_FATAL_FAILURE(serve("www A 192.0.2.1\n"));
  options_.servers = {ip("127.0.0.2"), ip("127.0.0.1")};  // nobody listens there
  create();
  resolver_->set_names({"www.test", "absent.test"});
  ASSERT_TRUE(heard_of("www.test"));
  ASSERT_TRUE(heard_of("absent.test"));
  EXPECT_THAT(texts(answer("www.test")), ElementsAre("192.0.2.1"));
  EXPECT_THAT(failures_["absent.test"].at(0), HasSubstr("NXDOMAIN from 127.0.0.1"));
}

TEST_F(ResolverWithServer, SilentServerFirstInTheListIsPassedOver) {
  ASSERT_NO_FATAL_FAILURE(serve("www A 192.0.2.1\n"));
  const UniqueFd silent(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in sa{};
  sa.sin_family = AF_INET;
  sa.sin_port = htons(server_->port());
  sa.sin_addr.s_addr = htonl(0x7f000002);
  ASSERT_EQ(::bind(silent.get(), reinterpret_cast<sockaddr*>(&sa), sizeof(sa)), 0);
  options_.servers = {ip("127.0.0.2"), ip("127.0.0.1")};
  options_.timeout = milliseconds(300);
  create();
  resolver_->set_names({"www.test"});
  ASSERT_TRUE(heard_of("www.test"));
  EXPECT_THAT(texts(answer("www.test")), ElementsAre("192.0.2.1"));
}

TEST_F(ResolverWithServer, ServerThatStopsIsReportedAndItsReturnIsNoticed) {
  resolve("www 1 A 192.0.2.1\n", {"www.test"});
  ASSERT_TRUE(run_until([&] { return answers_["www.test"].size() == 2; }));
  server_->stop();
  ASSERT_TRUE(run_until([&] { return failures_["www.test"].size() == 2; }));
  const std::size_t answers_before = answers_["www.test"].size();
  const auto down = status_of("www.test");
  EXPECT_TRUE(down.resolved);
  EXPECT_GE(down.consecutive_failures, 2U);
  EXPECT_THAT(down.last_error, HasSubstr("127.0.0.1"));
  EXPECT_THAT(down.last_error, HasSubstr("refused or unreachable"));
  EXPECT_GT(down.next_attempt, down.last_answer);
  for (const Answer& heard : answers_["www.test"]) EXPECT_FALSE(heard.addresses.empty());

  const auto restarted = server_->start();
  ASSERT_TRUE(restarted) << restarted.error().message;
  ASSERT_TRUE(run_until([&] { return answers_["www.test"].size() > answers_before; }));
  const auto up = status_of("www.test");
  EXPECT_EQ(up.consecutive_failures, 0U);
  EXPECT_EQ(up.last_error, "");
  EXPECT_GT(up.last_answer, down.last_answer);
}

TEST_F(ResolverWithServer, TenThousandNamesAtStartNeedAHandfulOfSockets) {
  constexpr int kNames = 10000;
  std::string records;
  std::vector<std::string> names;
  for (int i = 0; i < kNames; ++i) {
    const std::string label = "n" + std::to_string(i);
    records += label + " A 10.1." + std::to_string(i / 256) + "." + std::to_string(i % 256) + "\n";
    names.push_back(label + ".test");
  }
  ASSERT_NO_FATAL_FAILURE(serve(records));
  options_.max_in_flight = 64;
  create();
  const std::size_t before = open_descriptors();
  std::size_t most = 0;
  std::size_t callbacks = 0;
  hook_ = [&] {
    if (++callbacks % 16 == 0) most = std::max(most, open_descriptors());
  };
  const auto start = std::chrono::steady_clock::now();
  resolver_->set_names(names);
  ASSERT_TRUE(run_until([&] { return answers_.size() == kNames; }, seconds(90)))
      << answers_.size() << " answered, " << failures_.size() << " failed";
  RecordProperty("milliseconds",
                 std::to_string((std::chrono::steady_clock::now() - start) / milliseconds(1)));
  RecordProperty("most_descriptors_above_baseline", std::to_string(most - before));
  EXPECT_LE(most, before + 4);
  EXPECT_THAT(texts(answer("n9999.test")), ElementsAre("10.1.39.15"));
}

}  // namespace
}  // namespace egressd::dns
