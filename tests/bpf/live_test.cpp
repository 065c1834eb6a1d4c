// Which grants open sockets rest on, as the iterator over socket storage tells it: real sockets in
// the judged cgroup, connected to addresses behind a device that leads nowhere.

#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>

#include "base/unique_fd.h"
#include "kernel_fixture.h"

namespace egressd::test {
namespace {

using enforce::Action;
using net::IpAddress;
using net::Protocol;
using std::chrono::hours;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

class LiveTest : public KernelTest {
 protected:
  void SetUp() override {
    KernelTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    ASSERT_EQ(::system("ip addr add 192.0.2.2/24 dev eg0 && ip addr add 2001:db8:1::2/64 dev eg0 "
                       "nodad && ip link set eg0 up && ip link set eg1 up && "
                       "ip route add default dev eg0 && ip -6 route add default dev eg0"),
              0);
    std::ifstream before("/proc/self/cgroup");
    for (std::string line; std::getline(before, line);) {
      if (line.starts_with("0::")) original_cgroup_ = line.substr(3);
    }
    move_to(cgroup_);
    rules_.names = {{3, 0, "a.example"}, {9, 1, "*.b.example"}};
    rules_.lists = {{{0, Protocol::Udp, {443, 443}, Action::Allow, false}},
                    {{1, Protocol::Udp, {443, 443}, Action::Allow, false}}};
    apply();
  }
  void TearDown() override {
    if (!original_cgroup_.empty())
      move_to(std::filesystem::path(cgroup_).parent_path().string() + original_cgroup_);
    KernelTest::TearDown();
  }

  void apply() {
    ++rules_.generation;
    rules_.enforce = true;
    const auto r = backend_->apply(rules_);
    ASSERT_TRUE(r) << r.error().message;
  }
  void learn(const std::string& address, std::uint32_t name_id, BootTime expires) {
    ASSERT_TRUE(backend_->learn(
        std::vector<enforce::LearnedAddress>{{*IpAddress::parse(address), name_id, expires}}));
  }
  static UniqueFd connected(const IpAddress& address, int type = SOCK_DGRAM) {
    sockaddr_in6 to{};
    to.sin6_family = AF_INET6;
    to.sin6_port = htons(443);
    std::memcpy(&to.sin6_addr, address.bytes().data(), 16);
    UniqueFd fd(::socket(AF_INET6, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof(to)) != 0 &&
        errno != EINPROGRESS)
      ADD_FAILURE() << address.to_string() << ": " << std::strerror(errno);
    return fd;
  }
  static UniqueFd connected(const std::string& address, int type = SOCK_DGRAM) {
    return connected(*IpAddress::parse(address), type);
  }
  // A whole walk. Returns how many grants it told, several times counted.
  std::size_t walk(BootTime until,
                   const std::function<void(std::vector<enforce::LearnedAddress>)>& visit) {
    for (std::size_t told = 0;;) {
      const auto some = backend_->next_live(until);
      EXPECT_TRUE(some) << some.error().message;
      if (!some || some->empty()) return told;
      told += some->size();
      visit(*some);
    }
  }
  // Address and name of what ends before `until`.
  std::map<std::string, std::uint32_t> live(BootTime until) {
    std::map<std::string, std::uint32_t> found;
    walk(until, [&](const std::vector<enforce::LearnedAddress>& grants) {
      for (const auto& grant : grants) found[grant.address.to_string()] = grant.name_id;
    });
    return found;
  }
  std::map<std::string, std::uint32_t> live() { return live(now() + hours(2)); }
  static BootTime now() { return SystemClock().now(); }

  enforce::RuleSet rules_;

 private:
  static void move_to(const std::string& cgroup) {
    std::ofstream procs(cgroup + "/cgroup.procs");
    procs << ::getpid() << std::flush;
    EXPECT_TRUE(procs) << cgroup;
  }
  std::string original_cgroup_;
};

TEST_F(LiveTest, ConnectedSocketsHoldTheirAddressUntilTheyAreClosed) {
  learn("203.0.113.1", 3, now() + hours(1));
  learn("203.0.113.2", 3, now() + hours(1));
  learn("2001:db8::1", 9, now() + hours(1));
  EXPECT_THAT(live(), IsEmpty());
  auto one = connected("203.0.113.1");
  auto same = connected("203.0.113.1");
  auto six = connected("2001:db8::1");
  EXPECT_THAT(live(), UnorderedElementsAre(Pair("203.0.113.1", 3), Pair("2001:db8::1", 9)));
  one.reset();
  EXPECT_THAT(live(), UnorderedElementsAre(Pair("203.0.113.1", 3), Pair("2001:db8::1", 9)));
  same.reset();
  EXPECT_THAT(live(), ElementsAre(Pair("2001:db8::1", 9)));
}

TEST_F(LiveTest, OnlyWhatEndsBeforeIsToldExpiredOrNot) {
  learn("203.0.113.1", 3, now() + seconds(2));
  learn("203.0.113.2", 3, now() + hours(1));
  const auto one = connected("203.0.113.1");
  const auto two = connected("203.0.113.2");
  EXPECT_THAT(live(now() + seconds(60)), ElementsAre(Pair("203.0.113.1", 3)));
  ::sleep(2);
  EXPECT_THAT(live(now() + seconds(60)), ElementsAre(Pair("203.0.113.1", 3)));
  learn("203.0.113.1", 3, now() + seconds(90));
  EXPECT_THAT(live(now() + seconds(60)), IsEmpty());
}

TEST_F(LiveTest, WhatNoConnectionRestsOnIsNotHeld) {
  learn("203.0.113.1", 3, now() + hours(1));
  learn("203.0.113.2", 3, now() + hours(1));
  // Sent without connecting: the socket may never speak to it again.
  const UniqueFd loose(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(443);
  ASSERT_EQ(::inet_pton(AF_INET, "203.0.113.1", &to.sin_addr), 1);
  ASSERT_EQ(::sendto(loose.get(), "x", 1, 0, reinterpret_cast<const sockaddr*>(&to), sizeof(to)),
            1);
  // Disconnected.
  const auto left = connected("203.0.113.2");
  EXPECT_THAT(live(), ElementsAre(Pair("203.0.113.2", 3)));
  sockaddr nowhere{};
  nowhere.sa_family = AF_UNSPEC;
  ASSERT_EQ(::connect(left.get(), &nowhere, sizeof(nowhere)), 0);
  EXPECT_THAT(live(), IsEmpty());
}

TEST_F(LiveTest, AConnectionThatIsNotEstablishedHoldsNothing) {
  rules_.lists[0] = {{0, Protocol::Tcp, {443, 443}, Action::Allow, false}};
  apply();
  learn("203.0.113.1", 3, now() + hours(1));
  const auto connecting = connected("203.0.113.1", SOCK_STREAM);
  EXPECT_THAT(live(), IsEmpty());
}

TEST_F(LiveTest, NetworkRulesAndRefusedPortsHoldNothing) {
  rules_.prefixes = {{*net::Prefix::parse("198.51.100.0/24"), 0}};
  apply();
  learn("198.51.100.1", 3, now() + hours(1));
  const auto by_address = connected("198.51.100.1");
  // connect() of a datagram socket is not refused; what it sends is.
  const auto refused = connected("203.0.113.66");
  EXPECT_THAT(live(), IsEmpty());
}

TEST_F(LiveTest, TheRulesInForceDecideNotThoseOfTheConnection) {
  learn("203.0.113.1", 3, now() + hours(1));
  learn("203.0.113.9", 9, now() + hours(1));
  const auto one = connected("203.0.113.1");
  const auto nine = connected("203.0.113.9");
  rules_.lists[0] = {{0, Protocol::Udp, {444, 444}, Action::Allow, false}};
  apply();
  EXPECT_THAT(live(), ElementsAre(Pair("203.0.113.9", 9)));
  rules_.names.pop_back();
  rules_.lists[0] = {{0, Protocol::Udp, {443, 443}, Action::Allow, false}};
  apply();
  EXPECT_THAT(live(), ElementsAre(Pair("203.0.113.1", 3)));
  rules_.lists[0] = {{0, Protocol::Udp, {443, 443}, Action::Deny, false}};
  apply();
  EXPECT_THAT(live(), IsEmpty());
}

TEST_F(LiveTest, AGrantThatIsGoneIsNotMadeAnew) {
  learn("203.0.113.1", 3, now() + hours(1));
  const auto one = connected("203.0.113.1");
  ASSERT_TRUE(backend_->forget_learned());
  EXPECT_THAT(live(), IsEmpty());
  learn("203.0.113.1", 9, now() + hours(1));
  EXPECT_THAT(live(), IsEmpty());
}

// By hand, LIVE_SOCKETS=100000 and a large RLIMIT_NOFILE show what a look costs.
TEST_F(LiveTest, ManySocketsAreToldInPartsAndExtendedOnesNotAgain) {
  const char* asked = std::getenv("LIVE_SOCKETS");
  const auto count = static_cast<std::uint32_t>(asked != nullptr ? std::atoi(asked) : 3000);
  const rlimit files{count + 100, count + 100};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &files), 0) << std::strerror(errno);
  std::vector<enforce::LearnedAddress> grants;
  for (std::uint32_t i = 0; i < count; ++i)
    grants.push_back({IpAddress::v4(0x2c000000u + i / 2), 3, now() + hours(1)});
  ASSERT_TRUE(backend_->learn(grants));
  std::vector<UniqueFd> sockets;
  for (const auto& grant : grants) sockets.push_back(connected(grant.address));

  const auto timed = [&](const char* what, auto work) {
    // Of this thread alone: other tests share the machine.
    const auto spent = [] {
      timespec ts{};
      ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
      return static_cast<double>(ts.tv_sec) * 1e3 + static_cast<double>(ts.tv_nsec) / 1e6;
    };
    const double before = spent();
    work();
    std::printf("%u sockets, %u addresses, %s: %.2f ms\n", count, (count + 1) / 2, what,
                spent() - before);
  };
  timed("none ends soon", [&] { EXPECT_THAT(live(now() + seconds(60)), IsEmpty()); });
  std::size_t calls = 0;
  timed("all end soon", [&] {
    const auto told = walk(now() + hours(2), [&](std::vector<enforce::LearnedAddress> ending) {
      ++calls;
      for (auto& grant : ending) grant.expires = now() + hours(3);
      ASSERT_TRUE(backend_->learn(ending));
    });
    EXPECT_EQ(told, (count + 1) / 2);
  });
  EXPECT_GT(calls, 1u);
  timed("none any more", [&] { EXPECT_THAT(live(now() + seconds(60)), IsEmpty()); });
  const auto learned = backend_->learned();
  ASSERT_TRUE(learned);
  for (const auto& grant : *learned) EXPECT_GT(grant.expires, now() + hours(2));

  sockets.clear();
  EXPECT_THAT(live(now() + hours(4)), IsEmpty());
}

}  // namespace
}  // namespace egressd::test
