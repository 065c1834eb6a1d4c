// The nftables backend against the kernel: what is learned, extended, ended, and found again by the
// next agent. Each test runs in a fresh network namespace of this process, with nothing attached.
#include "enforce/nft_backend.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "enforce/cgroup.h"
#include "nft/connection.h"

namespace egressd::enforce {
namespace {

using namespace std::chrono_literals;

net::IpAddress address(const char* text) { return *net::IpAddress::parse(text); }

RuleEntry allow(std::uint16_t first, std::uint16_t last) {
  return {.protocol = net::Protocol::Tcp, .ports = {first, last}};
}

class NftBackendTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(::unshare(CLONE_NEWNET), 0) << "needs root";
    open();
    auto opened = nft::Connection::open();
    ASSERT_TRUE(opened);
    connection = std::move(*opened);
    rules.generation = 1;
    rules.enforce = true;
    rules.rule_names = {{"names", "web"}, {"names", "range"}};
    rules.lists = {{allow(443, 443), allow(80, 80)}, {allow(8000, 8010)}};
    rules.names = {{.name_id = 1, .list = 0, .pattern = "a.example"},
                   {.name_id = 2, .list = 1, .pattern = "b.example"},
                   {.name_id = 3, .list = 0, .pattern = "c.example"}};
  }

  void open() {
    backend.reset();
    auto opened = open_nft_backend({.cgroup_path = *find_cgroup2_mount(), .max_learned = 4096});
    ASSERT_TRUE(opened) << opened.error().message;
    backend = std::move(*opened);
  }
  void learn(const char* text, std::uint32_t name, BootTime from_now) {
    const LearnedAddress one{address(text), name, SystemClock().now() + from_now};
    const auto r = backend->learn({&one, 1});
    ASSERT_TRUE(r) << r.error().message;
  }
  // Elements with the seconds they have left, rounded; -1: for ever.
  std::map<std::string, long> elements(const std::string& set, nft::Key key) {
    std::map<std::string, long> found;
    const auto r = connection->each_element(set, [&](const nft::Connection::Listed& listed) {
      found[nft::to_string(key, listed.key)] =
          listed.left ? (listed.left->count() + 500) / 1000 : -1;
    });
    EXPECT_TRUE(r) << r.error().message;
    return found;
  }

  RuleSet rules;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<nft::Connection> connection;
};

using Found = std::map<std::string, long>;

TEST_F(NftBackendTest, AnAddressIsAllowedPortByPortUntilItEnds) {
  ASSERT_TRUE(backend->apply(rules));
  learn("203.0.113.5", 1, 100s);
  learn("2001:db8::5", 2, 200s);
  EXPECT_EQ(elements("allow4", nft::Key::Flow4),
            (Found{{"203.0.113.5 . tcp . 443", 100}, {"203.0.113.5 . tcp . 80", 100}}));
  EXPECT_EQ(elements("known4", nft::Key::Ipv4), (Found{{"203.0.113.5", 100}}));
  EXPECT_EQ(elements("seen4", nft::Key::Ipv4), (Found{{"203.0.113.5", -1}}));
  EXPECT_TRUE(elements("allow6", nft::Key::Flow6).empty());
  EXPECT_EQ(elements("listed6_1", nft::Key::Ipv6), (Found{{"2001:db8::5", 200}}));

  // Extended, never shortened.
  learn("203.0.113.5", 1, 300s);
  learn("203.0.113.5", 1, 50s);
  EXPECT_EQ(elements("known4", nft::Key::Ipv4), (Found{{"203.0.113.5", 300}}));
  // Another name with the same rules, and one with others: each has its own end.
  learn("203.0.113.5", 3, 400s);
  learn("203.0.113.5", 2, 500s);
  EXPECT_EQ(elements("allow4", nft::Key::Flow4),
            (Found{{"203.0.113.5 . tcp . 443", 400}, {"203.0.113.5 . tcp . 80", 400}}));
  EXPECT_EQ(elements("listed4_1", nft::Key::Ipv4), (Found{{"203.0.113.5", 500}}));
  EXPECT_EQ(*backend->count_learned(), 4u);
}

TEST_F(NftBackendTest, TheKernelEndsThemAndTheyCanBeLearnedAgain) {
  ASSERT_TRUE(backend->apply(rules));
  learn("203.0.113.5", 1, 150ms);
  EXPECT_FALSE(elements("allow4", nft::Key::Flow4).empty());
  // In the moment of their end, too: whether the kernel has them still is not known then.
  for (int i = 0; i < 40; ++i) {
    learn("203.0.113.5", 1, 40ms);
    std::this_thread::sleep_for(std::chrono::milliseconds(38 + i % 5));
  }
  for (int i = 0; i < 500 && !elements("allow4", nft::Key::Flow4).empty(); ++i)
    std::this_thread::sleep_for(10ms);
  EXPECT_TRUE(elements("allow4", nft::Key::Flow4).empty());
  // What it was is known until it is swept.
  EXPECT_EQ(elements("seen4", nft::Key::Ipv4).size(), 1u);
  EXPECT_EQ(*backend->expire(SystemClock().now()), 1u);
  EXPECT_TRUE(elements("seen4", nft::Key::Ipv4).empty());
  learn("203.0.113.5", 1, 100s);
  EXPECT_EQ(elements("allow4", nft::Key::Flow4).size(), 2u);
}

TEST_F(NftBackendTest, ANewPolicyMovesWhatWasLearned) {
  ASSERT_TRUE(backend->apply(rules));
  learn("203.0.113.5", 1, 100s);
  rules.generation = 2;
  rules.lists[0] = {allow(22, 22)};
  ASSERT_TRUE(backend->apply(rules));
  EXPECT_EQ(elements("allow4", nft::Key::Flow4), (Found{{"203.0.113.5 . tcp . 22", 100}}));
  rules.generation = 3;
  rules.names = {{.name_id = 2, .list = 1, .pattern = "b.example"}};
  ASSERT_TRUE(backend->apply(rules));
  EXPECT_TRUE(elements("allow4", nft::Key::Flow4).empty());
  EXPECT_TRUE(elements("known4", nft::Key::Ipv4).empty());
  EXPECT_EQ(*backend->count_learned(), 1u);  // the pattern may come back
  EXPECT_EQ(*backend->highest_name_id(), 3u);
}

TEST_F(NftBackendTest, TheNextAgentFindsAllOfIt) {
  ASSERT_TRUE(backend->apply(rules));
  ASSERT_TRUE(backend->attach());
  learn("203.0.113.5", 1, 100s);
  learn("203.0.113.5", 2, 200s);
  const std::string instance = backend->instance();
  open();
  EXPECT_EQ(backend->instance(), instance);
  EXPECT_EQ(*backend->generation(), 1u);
  EXPECT_EQ(*backend->highest_name_id(), 3u);
  auto learned = *backend->learned();
  std::ranges::sort(learned, {}, &LearnedAddress::name_id);
  ASSERT_EQ(learned.size(), 2u);
  EXPECT_EQ(learned[0].address, address("203.0.113.5"));
  EXPECT_EQ(learned[0].name_id, 1u);
  EXPECT_EQ(learned[1].name_id, 2u);
  EXPECT_GT(learned[1].expires, learned[0].expires + 90s);
  rules.generation = 2;
  ASSERT_TRUE(backend->apply(rules));
  EXPECT_EQ(elements("allow4", nft::Key::Flow4).size(), 2u);
  for (const LayerStatus& layer : backend->layers()) EXPECT_TRUE(layer.attached) << layer.program;
  EXPECT_EQ(backend->detach()->size(), 1u);
  EXPECT_FALSE(connection->table_handle()->has_value());
}

TEST_F(NftBackendTest, NoRoomIsSaidAndTheRestIsLearned) {
  ASSERT_TRUE(backend->apply(rules));
  std::vector<LearnedAddress> many;
  for (std::uint32_t i = 0; i < 4100; ++i)
    many.push_back({net::IpAddress::v4(0x0a000000 + i), 1 + i % 5, SystemClock().now() + 100s});
  const auto r = backend->learn(many);
  ASSERT_FALSE(r);
  EXPECT_NE(r.error().message.find("4 address(es) not learned"), std::string::npos)
      << r.error().message;
  EXPECT_EQ(elements("seen4", nft::Key::Ipv4).size(), 4096u);
  ASSERT_TRUE(backend->forget_learned());
  EXPECT_TRUE(elements("seen4", nft::Key::Ipv4).empty());
  EXPECT_EQ(*backend->count_learned(), 0u);
}

TEST_F(NftBackendTest, ANameHoldsNoMoreThanItsShareAndGivesUpTheEarliest) {
  ASSERT_TRUE(backend->apply(rules));
  const auto learn_some = [&](std::uint32_t first, std::chrono::seconds time) {
    std::vector<LearnedAddress> some;
    for (std::uint32_t i = 0; i < 600; ++i)
      some.push_back({net::IpAddress::v4(0x0a000000 + first + i), 1, SystemClock().now() + time});
    return backend->learn(some);
  };
  const auto allowing = [&] {
    return elements("allow4", nft::Key::Flow4).size() + elements("known4", nft::Key::Ipv4).size();
  };
  ASSERT_TRUE(learn_some(0, 100s));
  const std::size_t each = allowing() / 600;
  ASSERT_GT(each, 0u);
  ASSERT_TRUE(learn_some(600, 200s));
  // 1024 at the least. What was given up is gone from the kernel, too.
  EXPECT_EQ(elements("seen4", nft::Key::Ipv4).size(), 1024u);
  EXPECT_EQ(allowing(), each * 1024);
  const auto held = *backend->learned();
  EXPECT_EQ(std::ranges::count_if(
                held, [](const auto& l) { return l.expires > SystemClock().now() + 150s; }),
            600);
}

TEST_F(NftBackendTest, AWildcardAllowsWhatIsLearnedUnderIt) {
  rules.names.push_back({.name_id = 4, .list = 0, .pattern = "*.d.example"});
  ASSERT_TRUE(backend->apply(rules));
  EXPECT_TRUE(elements("allow4", nft::Key::Flow4).empty());
  learn("203.0.113.5", 4, 100s);
  EXPECT_EQ(elements("known4", nft::Key::Ipv4), (Found{{"203.0.113.5", 100}}));
  rules.generation = 2;
  rules.names.pop_back();
  ASSERT_TRUE(backend->apply(rules));
  EXPECT_TRUE(elements("known4", nft::Key::Ipv4).empty());
}

// Who may ask the resolvers: with a forwarder under a filter nobody else.
TEST_F(NftBackendTest, OnlyTheForwarderAsksUnderAFilter) {
  const auto rules_of = [&](RuleSet::Dns::Filter filter) {
    rules.generation += 1;
    rules.dns.filter = filter;
    EXPECT_TRUE(backend->apply(rules));
    const std::unique_ptr<FILE, decltype([](FILE* f) { ::pclose(f); })> nft(
        ::popen("nft list table inet egressd", "r"));
    std::string text;
    for (int c = 0; nft && (c = std::fgetc(nft.get())) != EOF;) text += static_cast<char>(c);
    return text;
  };
  const std::string refusal = "ip daddr @resolvers4 goto deny_question";
  rules.dns.resolvers = {address("192.0.2.53")};
  if (rules_of(RuleSet::Dns::Filter::Off).empty()) GTEST_SKIP() << "needs nft";
  EXPECT_EQ(rules_of(RuleSet::Dns::Filter::Enforce).find(refusal), std::string::npos);
  rules.dns.forwarder = {.mark = 0x35, .uid = 12345};
  const std::string enforced = rules_of(RuleSet::Dns::Filter::Enforce);
  EXPECT_NE(enforced.find(refusal), std::string::npos) << enforced;
  EXPECT_NE(enforced.find("meta mark 0x00000035 meta skuid 12345 return"), std::string::npos);
  EXPECT_EQ(rules_of(RuleSet::Dns::Filter::Audit).find(refusal), std::string::npos);
  EXPECT_EQ(rules_of(RuleSet::Dns::Filter::Off).find(refusal), std::string::npos);
}

TEST_F(NftBackendTest, OneAgentAtATime) {
  const auto second = open_nft_backend({.cgroup_path = *find_cgroup2_mount(), .max_learned = 4096});
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().message.find("another agent"), std::string::npos)
      << second.error().message;
  EXPECT_TRUE(connection->table_handle()->has_value());
}

}  // namespace
}  // namespace egressd::enforce
