#include "dns/resolver.h"

#include <arpa/inet.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>

#include "resolver_fixture.h"

// What no real name server can be made to do on command: answering one family only, lying, staying
// silent. Everything else is asked of a real one, in resolver_server_test.cpp.

namespace egressd::dns {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// Answers UDP questions on 127.0.0.1 from the test's own loop, the way `behave` says.
class OddServer {
 public:
  enum class Reaction { Address, NoData, NxDomain, ServFail, Silence, Rubbish };
  using Behave = std::function<Reaction(const std::string& first_label, std::uint16_t type)>;

  OddServer(EventLoop& loop, Behave behave, const char* address = "127.0.0.1",
            std::uint16_t port = 0)
      : loop_(loop), behave_(std::move(behave)) {
    fd_ = UniqueFd(::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    sockaddr_in sa{};
    sa.sin_family = AF_INET;
    sa.sin_port = htons(port);
    ::inet_pton(AF_INET, address, &sa.sin_addr);
    socklen_t size = sizeof(sa);
    EXPECT_EQ(::bind(fd_.get(), reinterpret_cast<sockaddr*>(&sa), size), 0);
    EXPECT_EQ(::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&sa), &size), 0);
    port_ = ntohs(sa.sin_port);
    EXPECT_TRUE(loop_.watch(fd_.get(), EPOLLIN, [this](std::uint32_t) { answer(); }));
  }
  OddServer(const OddServer&) = delete;
  OddServer& operator=(const OddServer&) = delete;
  ~OddServer() { loop_.unwatch(fd_.get()); }

  [[nodiscard]] std::uint16_t port() const { return port_; }
  std::vector<std::string> asked;  // first labels, in order

 private:
  void answer() {
    std::array<std::uint8_t, 512> in{};
    sockaddr_in from{};
    socklen_t from_size = sizeof(from);
    ssize_t n = 0;
    while ((n = ::recvfrom(fd_.get(), in.data(), in.size(), 0, reinterpret_cast<sockaddr*>(&from),
                           &from_size)) > 16) {
      std::vector<std::uint8_t> out(in.begin(), in.begin() + n);
      const std::string label(in.begin() + 13, in.begin() + 13 + in[12]);
      const auto type = static_cast<std::uint16_t>(out[out.size() - 4] << 8 | out[out.size() - 3]);
      asked.push_back(label);
      out[2] |= 0x80;
      out[3] = 0x80;
      switch (behave_(label, type)) {
        case Reaction::Silence:
          continue;
        case Reaction::NxDomain:
          out[3] |= 3;
          break;
        case Reaction::ServFail:
          out[3] |= 2;
          break;
        case Reaction::NoData:
          break;
        case Reaction::Rubbish:
          out[7] = 1;  // announces a record and brings half a name
          out.insert(out.end(), {63, 'x'});
          break;
        case Reaction::Address: {
          out[7] = 1;
          const bool v6 = type == 28;
          const std::uint8_t size = v6 ? 16 : 4;
          out.insert(out.end(),
                     {0xc0, 12, 0, static_cast<std::uint8_t>(type), 0, 1, 0, 0, 14, 16, 0, size});
          std::vector<std::uint8_t> data(size, 0);
          data.front() = v6 ? 0x20 : 192;
          data.back() = 7;
          out.insert(out.end(), data.begin(), data.end());
          break;
        }
      }
      ::sendto(fd_.get(), out.data(), out.size(), 0, reinterpret_cast<sockaddr*>(&from), from_size);
    }
  }

  EventLoop& loop_;
  Behave behave_;
  UniqueFd fd_;
  std::uint16_t port_ = 0;
};

using Reaction = OddServer::Reaction;

class ResolverTest : public ResolverFixture {
 protected:
  void serve(OddServer::Behave behave) {
    server_ = std::make_unique<OddServer>(*loop_, std::move(behave));
    options_.servers = {ip("127.0.0.1")};
    options_.server_port = server_->port();
    create();
  }
  std::unique_ptr<OddServer> server_;
};

TEST_F(ResolverTest, OptionsThatCannotWorkAreRefused) {
  options_.servers = {ip("127.0.0.1")};
  const auto refused = [&](const std::function<void(Resolver::Options&)>& change) {
    Resolver::Options options = options_;
    change(options);
    return !Resolver::create(*loop_, options, nullptr, nullptr).has_value();
  };
  EXPECT_FALSE(refused([](auto&) {}));
  EXPECT_TRUE(refused([](auto& o) { o.servers.clear(); }));
  EXPECT_TRUE(refused([](auto& o) { o.server_port = 0; }));
  EXPECT_TRUE(refused([](auto& o) { o.timeout = milliseconds(0); }));
  EXPECT_TRUE(refused([](auto& o) { o.tries = 0; }));
  EXPECT_TRUE(refused([](auto& o) { o.min_ttl = seconds(0); }));
  EXPECT_TRUE(refused([](auto& o) { o.max_ttl = seconds(0); }));
  EXPECT_TRUE(refused([](auto& o) { o.max_backoff = seconds(0); }));
  EXPECT_TRUE(refused([](auto& o) { o.max_in_flight = 0; }));
}

TEST_F(ResolverTest, FailingFamilyDoesNotSpoilTheOtherAndIsRetried) {
  bool broken = true;
  serve([&](const std::string& label, std::uint16_t type) {
    const bool bad = (label == "v4only") == (type == 28);
    return bad && broken ? Reaction::ServFail : Reaction::Address;
  });
  resolver_->set_names({"v4only.example", "v6only.example"});
  ASSERT_TRUE(run_until([&] { return answers_.size() == 2; }));
  EXPECT_THAT(failures_, IsEmpty());
  EXPECT_THAT(texts(answers_["v4only.example"][0]), ElementsAre("192.0.0.7"));
  EXPECT_THAT(texts(answers_["v6only.example"][0]), ElementsAre("2000::7"));
  const auto status = status_of("v4only.example");
  EXPECT_TRUE(status.resolved);
  EXPECT_EQ(status.consecutive_failures, 0U);
  EXPECT_THAT(status.last_error, AllOf(HasSubstr("AAAA: SERVFAIL from 127.0.0.1")));
  // The TTL is an hour: only the failed half brings the name back this soon.
  broken = false;
  ASSERT_TRUE(run_until([&] { return answers_["v4only.example"].size() == 2; }, seconds(3)));
  EXPECT_THAT(texts(answers_["v4only.example"][1]), ElementsAre("192.0.0.7", "2000::7"));
  EXPECT_EQ(status_of("v4only.example").last_error, "");
}

TEST_F(ResolverTest, NxdomainForOneFamilyOnlyCountsAsNoRecord) {
  serve([](const std::string&, std::uint16_t type) {
    return type == 28 ? Reaction::NxDomain : Reaction::Address;
  });
  resolver_->set_names({"lb.example"});
  ASSERT_TRUE(heard_of("lb.example"));
  EXPECT_THAT(texts(answers_["lb.example"].at(0)), ElementsAre("192.0.0.7"));
  EXPECT_EQ(status_of("lb.example").last_error, "");
}

TEST_F(ResolverTest, NoRecordInOneFamilyDoesNotHideTheFailureOfTheOther) {
  serve([](const std::string&, std::uint16_t type) {
    return type == 28 ? Reaction::NoData : Reaction::Silence;
  });
  resolver_->set_names({"half.example"});
  ASSERT_TRUE(heard_of("half.example"));
  EXPECT_THAT(failures_["half.example"].at(0),
              AllOf(HasSubstr("A: no answer from 127.0.0.1"), HasSubstr("AAAA: NODATA")));
}

TEST_F(ResolverTest, SilenceIsReportedWithServerTimeAndTries) {
  serve([](const std::string&, std::uint16_t) { return Reaction::Silence; });
  resolver_->set_names({"quiet.example"});
  ASSERT_TRUE(heard_of("quiet.example"));
  EXPECT_EQ(
      failures_["quiet.example"].at(0),
      "no answer from 127.0.0.1:" + std::to_string(server_->port()) + " within 200 ms (2 tries)");
  EXPECT_EQ(server_->asked.size(), 4U);  // two tries of two families
  EXPECT_FALSE(status_of("quiet.example").resolved);
  EXPECT_EQ(status_of("quiet.example").consecutive_failures, 1U);
}

TEST_F(ResolverTest, FailingNameIsRetriedForeverAndRecovers) {
  bool up = false;
  serve([&](const std::string&, std::uint16_t) {
    return up ? Reaction::Address : Reaction::ServFail;
  });
  resolver_->set_names({"late.example"});
  ASSERT_TRUE(run_until([&] { return failures_["late.example"].size() == 3; }));
  EXPECT_EQ(status_of("late.example").consecutive_failures, 3U);
  up = true;
  ASSERT_TRUE(run_until([&] { return answers_.contains("late.example"); }, seconds(3)));
  EXPECT_EQ(status_of("late.example").consecutive_failures, 0U);
}

TEST_F(ResolverTest, MalformedAnswerIsAFailureAndNotAnEmptyAnswer) {
  serve([](const std::string&, std::uint16_t) { return Reaction::Rubbish; });
  resolver_->set_names({"odd.example"});
  ASSERT_TRUE(heard_of("odd.example"));
  EXPECT_THAT(answers_, IsEmpty());
  EXPECT_THAT(failures_["odd.example"].at(0), HasSubstr("malformed answer record from 127.0.0.1"));
}

TEST_F(ResolverTest, NamesThatDnsCannotAskForAreReportedAndNeverSent) {
  serve([](const std::string&, std::uint16_t) { return Reaction::Address; });
  const std::vector<std::string> bad = {"",
                                        "a..example",
                                        ".example",
                                        "a\\.example",
                                        std::string("a\0.example", 10),
                                        "a b.example",
                                        std::string(64, 'a') + ".example",
                                        std::string(127, 'a').replace(63, 1, ".") + "." +
                                            std::string(63, 'b') + "." + std::string(63, 'c')};
  resolver_->set_names(bad);
  ASSERT_TRUE(run_until([&] { return failures_.size() == bad.size(); }));
  EXPECT_THAT(server_->asked, IsEmpty());
  EXPECT_THAT(answers_, IsEmpty());
}

TEST_F(ResolverTest, NamesAreCanonicalAndAskedOnce) {
  serve([](const std::string&, std::uint16_t) { return Reaction::Address; });
  resolver_->set_names({"WWW.Example.", "www.example", "www.EXAMPLE"});
  ASSERT_TRUE(heard_of("www.example"));
  run_for(milliseconds(50));
  EXPECT_EQ(resolver_->status().size(), 1U);
  EXPECT_THAT(server_->asked, ElementsAre("www", "www"));
}

TEST_F(ResolverTest, NamesThatStayKeepTheirStateAndVanishedOnesGoQuiet) {
  serve([](const std::string&, std::uint16_t) { return Reaction::Address; });
  resolver_->set_names({"stay.example", "go.example"});
  ASSERT_TRUE(run_until([&] { return answers_.size() == 2; }));
  const BootTime when = status_of("stay.example").last_answer;
  server_->asked.clear();
  resolver_->set_names({"stay.example", "new.example"});
  ASSERT_TRUE(heard_of("new.example"));
  EXPECT_THAT(server_->asked, ElementsAre("new", "new"));
  EXPECT_EQ(status_of("stay.example").last_answer, when);
  EXPECT_EQ(resolver_->status().size(), 2U);
  resolver_->refresh("go.example");
  run_for(milliseconds(50));
  EXPECT_EQ(answers_["go.example"].size(), 1U);
}

TEST_F(ResolverTest, AnswerForANameThatWentWhileAskedIsDropped) {
  serve([](const std::string&, std::uint16_t) { return Reaction::Address; });
  resolver_->set_names({"gone.example"});
  // Stops at the moment the question is on its way and the answer not yet read.
  ASSERT_TRUE(run_until([&] { return !server_->asked.empty(); }));
  resolver_->set_names({});
  run_for(milliseconds(100));
  EXPECT_THAT(answers_, IsEmpty());
  // And when it came back meanwhile, it is asked anew.
  resolver_->set_names({"gone.example"});
  ASSERT_TRUE(heard_of("gone.example"));
}

TEST_F(ResolverTest, RefreshAsksAtOnceEvenWhileAsking) {
  serve([](const std::string&, std::uint16_t) { return Reaction::Address; });
  resolver_->set_names({"www.example"});
  ASSERT_TRUE(run_until([&] { return !server_->asked.empty(); }));
  resolver_->refresh("www.example");
  resolver_->refresh("WWW.example.");
  ASSERT_TRUE(run_until([&] { return answers_["www.example"].size() == 2; }, seconds(1)));
  resolver_->refresh("www.example");
  ASSERT_TRUE(run_until([&] { return answers_["www.example"].size() == 3; }, seconds(1)));
  run_for(milliseconds(50));
  EXPECT_EQ(answers_["www.example"].size(), 3U);
}

TEST_F(ResolverTest, RefreshOfANameAskedALittleWhileAgoCanBeLeftOut) {
  serve([](const std::string& label, std::uint16_t) {
    return label == "bad" ? Reaction::NxDomain : Reaction::Address;
  });
  resolver_->set_names({"www.example", "bad.example"});
  for (const char* name : {"www.example", "bad.example"}) resolver_->refresh(name, seconds(60));
  ASSERT_TRUE(run_until([&] { return !server_->asked.empty(); }));
  for (const char* name : {"www.example", "bad.example"}) resolver_->refresh(name, seconds(60));
  ASSERT_TRUE(heard_of("www.example"));
  ASSERT_TRUE(heard_of("bad.example"));
  for (const char* name : {"www.example", "bad.example"}) resolver_->refresh(name, seconds(60));
  run_for(milliseconds(300));
  EXPECT_EQ(answers_["www.example"].size(), 1U);
  EXPECT_EQ(failures_["bad.example"].size(), 1U);
  run_for(milliseconds(800));
  const auto before = answers_["www.example"].size();
  resolver_->refresh("www.example", seconds(1));
  run_for(milliseconds(300));
  EXPECT_GE(answers_["www.example"].size(), before);
  EXPECT_GE(answers_["www.example"].size(), 2U);
}

TEST_F(ResolverTest, SilentFirstServerCostsOneTimeoutAndNotOnePerName) {
  OddServer silent(
      *loop_, [](const std::string&, std::uint16_t) { return Reaction::Silence; }, "127.0.0.2");
  server_ = std::make_unique<OddServer>(
      *loop_, [](const std::string&, std::uint16_t) { return Reaction::Address; }, "127.0.0.1",
      silent.port());
  options_.servers = {ip("127.0.0.2"), ip("127.0.0.1")};
  options_.server_port = silent.port();
  options_.max_in_flight = 4;
  create();
  std::vector<std::string> names;
  for (int i = 0; i < 200; ++i) names.push_back("n" + std::to_string(i) + ".example");
  resolver_->set_names(names);
  // One timeout per batch of four would take 10 s.
  ASSERT_TRUE(run_until([&] { return answers_.size() == names.size(); }, seconds(5)));
  EXPECT_THAT(failures_, IsEmpty());
  EXPECT_LE(silent.asked.size(), 8U);
}

TEST_F(ResolverTest, FailingNamesDoNotStarveRefreshesOfGoodOnes) {
  serve([](const std::string& label, std::uint16_t) {
    return label == "good" ? Reaction::Address : Reaction::Silence;
  });
  resolver_.reset();
  options_.max_ttl = seconds(1);
  options_.max_in_flight = 2;
  options_.tries = 1;
  create();
  resolver_->set_names({"good.example"});
  ASSERT_TRUE(heard_of("good.example"));
  std::vector<std::string> names = {"good.example"};
  for (int i = 0; i < 1000; ++i) names.push_back("bad" + std::to_string(i) + ".example");
  resolver_->set_names(names);
  run_for(seconds(4));
  EXPECT_LT(failures_.size(), 1000U) << "the queue was meant to be full throughout";
  EXPECT_GE(answers_["good.example"].size(), 3U);
}

TEST_F(ResolverTest, SetNamesInsideACallbackIsSafe) {
  serve([](const std::string& label, std::uint16_t) {
    return label[0] == 'b' ? Reaction::NxDomain : Reaction::Address;
  });
  std::vector<std::string> names;
  for (int i = 0; i < 100; ++i)
    names.push_back((i % 2 == 0 ? "a" : "b") + std::to_string(i) + ".example");
  int calls = 0;
  hook_ = [&] {
    ++calls;
    resolver_->refresh("a0.example");
    if (calls == 5) resolver_->set_names({"last.example"});
  };
  resolver_->set_names(names);
  ASSERT_TRUE(heard_of("last.example"));
  EXPECT_EQ(resolver_->status().size(), 1U);
  EXPECT_EQ(answers_.size() + failures_.size(), 6U);  // nothing of the old list after the fifth
}

TEST_F(ResolverTest, DestructionInsideEitherCallbackIsSafe) {
  for (const Reaction reaction : {Reaction::Address, Reaction::NxDomain}) {
    answers_.clear();
    failures_.clear();
    serve([&](const std::string&, std::uint16_t) { return reaction; });
    hook_ = [&] { resolver_.reset(); };
    std::vector<std::string> names;
    for (int i = 0; i < 200; ++i) names.push_back("n" + std::to_string(i) + ".example");
    resolver_->set_names(names);
    ASSERT_TRUE(run_until([&] { return !resolver_; }));
    run_for(milliseconds(300));  // the timers of what was in flight
    EXPECT_EQ(answers_.size() + failures_.size(), 1U);
    server_.reset();
  }
}

TEST_F(ResolverTest, DestructionWithQuestionsInFlightIsSilentAndLeavesTheLoopClean) {
  serve([](const std::string&, std::uint16_t) { return Reaction::Silence; });
  resolver_->set_names({"a.example", "b.example"});
  ASSERT_TRUE(run_until([&] { return server_->asked.size() == 4; }));
  resolver_.reset();
  run_for(milliseconds(500));
  EXPECT_THAT(answers_, IsEmpty());
  EXPECT_THAT(failures_, IsEmpty());
}

}  // namespace
}  // namespace egressd::dns
