// The kernel's verdict on single packets, by BPF_PROG_TEST_RUN: every reason that needs no real
// socket, with its permission twin, and the whole policy engine against its reference.

#include <bpf/bpf.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <random>

#include "daemon/compiler.h"
#include "kernel_fixture.h"
#include "policy/parser.h"

namespace egressd::test {
namespace {

using enforce::Action;
using net::IpAddress;
using net::Prefix;
using net::Protocol;

class VerdictTest : public KernelTest {
 protected:
  // One list per call; prefixes or names refer to it by the returned index.
  std::uint32_t list(std::vector<enforce::RuleEntry> entries) {
    rules_.lists.push_back(std::move(entries));
    return static_cast<std::uint32_t>(rules_.lists.size() - 1);
  }
  void apply(bool enforce = true) {
    rules_.generation = ++generation_;
    rules_.enforce = enforce;
    const auto r = backend_->apply(rules_);
    ASSERT_TRUE(r) << r.error().message;
    moved();
  }
  PacketSpec to(const std::string& destination, std::uint16_t port, std::uint8_t protocol = 6) {
    PacketSpec spec;
    spec.destination = *IpAddress::parse(destination);
    spec.source = *IpAddress::parse(spec.destination.is_v4() ? "192.0.2.2" : "2001:db8::2");
    spec.destination_port = port;
    spec.protocol = protocol;
    return spec;
  }
  // Sends the packet and expects verdict and reason.
  void expect(const PacketSpec& spec, int verdict, int reason) {
    expect(make_packet(spec), verdict, reason, spec.destination.to_string());
  }
  void expect(const std::vector<std::uint8_t>& packet, int verdict, int reason,
              const std::string& what) {
    EXPECT_EQ(run("egressd_egress", packet), verdict) << what;
    EXPECT_EQ(single_reason(), reason) << what;
  }

  enforce::RuleSet rules_;
  std::uint32_t generation_ = 0;
};

constexpr int kPass = 1;
constexpr int kDrop = 0;

TEST_F(VerdictTest, ClosedWithoutAPolicy) {
  expect(to("198.51.100.1", 443), kDrop, EGRESSD_DENY_NO_POLICY);
}

TEST_F(VerdictTest, NetworkRulesOpenTheirPortsAndProtocolsOnly) {
  const auto l = list({{0, Protocol::Tcp, {443, 445}, Action::Allow, false},
                       {0, Protocol::Icmp, {}, Action::Allow, false}});
  rules_.prefixes = {{*Prefix::parse("198.51.100.0/24"), l},
                     {*Prefix::parse("203.0.113.7"), l},
                     {*Prefix::parse("2001:db8:1::/48"), l}};
  apply();
  for (const char* address : {"198.51.100.1", "203.0.113.7", "2001:db8:1::9"}) {
    expect(to(address, 443), kPass, EGRESSD_ALLOW_NETWORK_RULE);
    expect(to(address, 445), kPass, EGRESSD_ALLOW_NETWORK_RULE);
    expect(to(address, 446), kDrop, EGRESSD_DENY_PORT);
    expect(to(address, 443, 17), kDrop, EGRESSD_DENY_PORT);
    expect(to(address, 443, 132), kDrop, EGRESSD_DENY_PORT);
  }
  expect(to("198.51.100.1", 0, 1), kPass, EGRESSD_ALLOW_NETWORK_RULE);
  expect(to("2001:db8:1::9", 0, 58), kPass, EGRESSD_ALLOW_NETWORK_RULE);
  expect(to("198.51.101.1", 443), kDrop, EGRESSD_DENY_DEFAULT);
  expect(to("203.0.113.8", 443), kDrop, EGRESSD_DENY_DEFAULT);
  expect(to("2001:db8:2::9", 443), kDrop, EGRESSD_DENY_DEFAULT);
}

TEST_F(VerdictTest, FamiliesAreKeptApart) {
  rules_.prefixes = {
      {*Prefix::parse("::/0"), list({{0, Protocol::Any, {}, Action::Allow, false}})}};
  apply();
  expect(to("2001:db8::9", 443), kPass, EGRESSD_ALLOW_NETWORK_RULE);
  expect(to("198.51.100.1", 443), kDrop, EGRESSD_DENY_DEFAULT);
}

TEST_F(VerdictTest, AnyProtocolMeansOthersToo) {
  rules_.prefixes = {
      {*Prefix::parse("198.51.100.1"), list({{0, Protocol::Any, {}, Action::Allow, false}})}};
  apply();
  for (const int protocol : {6, 17, 132, 50, 47, 1})
    expect(to("198.51.100.1", 9, static_cast<std::uint8_t>(protocol)), kPass,
           EGRESSD_ALLOW_NETWORK_RULE);
}

TEST_F(VerdictTest, FirstEntryOfAListDecides) {
  const auto l = list({{0, Protocol::Tcp, {22, 22}, Action::Deny, false},
                       {1, Protocol::Tcp, {}, Action::Allow, false}});
  rules_.prefixes = {{*Prefix::parse("198.51.100.1"), l}};
  apply();
  expect(to("198.51.100.1", 22), kDrop, EGRESSD_DENY_RULE);
  expect(to("198.51.100.1", 23), kPass, EGRESSD_ALLOW_NETWORK_RULE);
}

TEST_F(VerdictTest, TheLastEntryOfTheLongestListCounts) {
  std::vector<enforce::RuleEntry> entries;
  for (std::uint16_t i = 0; i < EGRESSD_MAX_LIST; ++i)
    entries.push_back({i, Protocol::Tcp, {i, i}, Action::Allow, false});
  rules_.prefixes = {{*Prefix::parse("198.51.100.1"), list(entries)}};
  apply();
  expect(to("198.51.100.1", EGRESSD_MAX_LIST - 1), kPass, EGRESSD_ALLOW_NETWORK_RULE);
  expect(to("198.51.100.1", EGRESSD_MAX_LIST), kDrop, EGRESSD_DENY_PORT);
  entries.push_back(entries.front());
  rules_.lists.push_back(entries);
  rules_.generation = 99;
  EXPECT_FALSE(backend_->apply(rules_));
  EXPECT_EQ(backend_->generation(), generation_) << "a refused policy changes nothing";
}

TEST_F(VerdictTest, LearnedAddressesFollowTheirNamesRulesAndEnd) {
  rules_.names = {{3, list({{0, Protocol::Tcp, {443, 443}, Action::Allow, false}}), "a.example"},
                  {9, list({{1, Protocol::Udp, {5831, 5831}, Action::Allow, false}}), "b.example"}};
  apply();
  const auto now = SystemClock().now();
  const auto later = now + std::chrono::hours(1);
  const auto a = *IpAddress::parse("203.0.113.1");
  const auto six = *IpAddress::parse("2001:db8::1");
  const std::vector<enforce::LearnedAddress> grants = {
      {a, 3, later},
      {a, 9, later},
      {six, 3, later},
      {*IpAddress::parse("203.0.113.2"), 3, now - std::chrono::seconds(1)}};
  ASSERT_TRUE(backend_->learn(grants));
  expect(to("203.0.113.1", 443), kPass, EGRESSD_ALLOW_FQDN_RULE);
  expect(to("203.0.113.1", 5831, 17), kPass, EGRESSD_ALLOW_FQDN_RULE);
  expect(to("203.0.113.1", 443, 17), kDrop, EGRESSD_DENY_PORT);
  expect(to("203.0.113.1", 0, 1), kDrop, EGRESSD_DENY_DEFAULT);  // names grant TCP and UDP only
  expect(to("2001:db8::1", 443), kPass, EGRESSD_ALLOW_FQDN_RULE);
  expect(to("203.0.113.2", 443), kDrop, EGRESSD_DENY_EXPIRED);

  // A generation without the name: what was learned for it grants nothing.
  rules_.names.erase(rules_.names.begin());
  apply();
  expect(to("203.0.113.1", 443), kDrop, EGRESSD_DENY_PORT);
  expect(to("203.0.113.1", 5831, 17), kPass, EGRESSD_ALLOW_FQDN_RULE);
}

TEST_F(VerdictTest, SweepingFreesWhatHasEndedAndNothingBeforeTheBoot) {
  rules_.names = {{3, list({{0, Protocol::Tcp, {443, 443}, Action::Allow, false}}), "a.example"}};
  apply();
  const auto now = SystemClock().now();
  const std::vector<enforce::LearnedAddress> grants = {
      {*IpAddress::parse("203.0.113.1"), 3, now + std::chrono::hours(1)},
      {*IpAddress::parse("203.0.113.2"), 3, now - std::chrono::nanoseconds(1)}};
  ASSERT_TRUE(backend_->learn(grants));
  // Ten minutes ago, on a machine that is up for less.
  EXPECT_EQ(backend_->expire(std::chrono::minutes(-10)), 0u);
  EXPECT_EQ(backend_->expire(BootTime{0}), 0u);
  EXPECT_EQ(backend_->learned()->size(), 2u);
  EXPECT_EQ(backend_->expire(now), 1u);
  EXPECT_EQ(backend_->learned()->size(), 1u);
  expect(to("203.0.113.1", 443), kPass, EGRESSD_ALLOW_FQDN_RULE);
  expect(to("203.0.113.2", 443), kDrop, EGRESSD_DENY_DEFAULT);
}

TEST_F(VerdictTest, AllowOfOneNameOutweighsRefusalOfAnother) {
  rules_.names = {
      {1, list({{0, Protocol::Tcp, {}, Action::Deny, false}}), "bad.example"},
      {2, list({{1, Protocol::Tcp, {443, 443}, Action::Allow, false}}), "good.example"}};
  apply();
  const auto later = SystemClock().now() + std::chrono::hours(1);
  const auto shared = *IpAddress::parse("203.0.113.1");
  ASSERT_TRUE(backend_->learn(
      std::vector<enforce::LearnedAddress>{{shared, 1, later}, {shared, 2, later}}));
  expect(to("203.0.113.1", 443), kPass, EGRESSD_ALLOW_FQDN_RULE);
  expect(to("203.0.113.1", 80), kDrop, EGRESSD_DENY_RULE);
}

TEST_F(VerdictTest, NetworkRulesComeBeforeNames) {
  rules_.prefixes = {
      {*Prefix::parse("203.0.113.0/24"), list({{0, Protocol::Tcp, {}, Action::Deny, false}})}};
  rules_.names = {{1, list({{1, Protocol::Any, {}, Action::Allow, false}}), "a.example"}};
  apply();
  const auto later = SystemClock().now() + std::chrono::hours(1);
  ASSERT_TRUE(backend_->learn(
      std::vector<enforce::LearnedAddress>{{*IpAddress::parse("203.0.113.1"), 1, later}}));
  expect(to("203.0.113.1", 443), kDrop, EGRESSD_DENY_RULE);
  expect(to("203.0.113.1", 443, 17), kPass, EGRESSD_ALLOW_FQDN_RULE);
}

TEST_F(VerdictTest, ResolversAreReachableOnTheirPortOnly) {
  rules_.dns.resolvers = {*IpAddress::parse("192.0.2.53")};
  apply();
  expect(to("192.0.2.53", 53, 17), kPass, EGRESSD_ALLOW_RESOLVER);
  expect(to("192.0.2.53", 53, 6), kPass, EGRESSD_ALLOW_RESOLVER);
  expect(to("192.0.2.53", 853, 6), kDrop, EGRESSD_DENY_DEFAULT);
  expect(to("192.0.2.54", 53, 17), kDrop, EGRESSD_DENY_DEFAULT);
  rules_.dns.resolvers = {*IpAddress::parse("192.0.2.54")};
  apply();
  expect(to("192.0.2.53", 53, 17), kDrop, EGRESSD_DENY_DEFAULT);
  expect(to("192.0.2.54", 53, 17), kPass, EGRESSD_ALLOW_RESOLVER);
}

TEST_F(VerdictTest, PortsOfDnsNeedANetworkRuleOfTheirOwn) {
  const auto wide = list({{0, Protocol::Any, {}, Action::Allow, false}});
  const auto narrow = list({{1, Protocol::Tcp, {853, 853}, Action::Allow, false},
                            {2, Protocol::Udp, {53, 53}, Action::Allow, false}});
  const auto deny = list({{3, Protocol::Any, {}, Action::Deny, false}});
  rules_.prefixes = {{*Prefix::parse("198.51.100.0/24"), wide},
                     {*Prefix::parse("203.0.113.7"), narrow},
                     {*Prefix::parse("203.0.113.8"), deny}};
  rules_.names = {{3, wide, "a.example"}};
  rules_.dns.filter = enforce::RuleSet::Dns::Filter::Enforce;
  apply();
  const auto later = SystemClock().now() + std::chrono::hours(1);
  const std::vector<enforce::LearnedAddress> grants = {
      {*IpAddress::parse("203.0.113.1"), 3, later}};
  ASSERT_TRUE(backend_->learn(grants));
  for (const std::uint8_t protocol : {std::uint8_t{6}, std::uint8_t{17}}) {
    for (const std::uint16_t port : {std::uint16_t{53}, std::uint16_t{853}}) {
      for (const char* address : {"198.51.100.1", "203.0.113.1", "192.0.2.99"})
        expect(to(address, port, protocol), kDrop, EGRESSD_DENY_DNS_SERVER);
      expect(to("203.0.113.8", port, protocol), kDrop, EGRESSD_DENY_RULE);
    }
    expect(to("198.51.100.1", 443, protocol), kPass, EGRESSD_ALLOW_NETWORK_RULE);
    expect(to("203.0.113.1", 443, protocol), kPass, EGRESSD_ALLOW_FQDN_RULE);
  }
  expect(to("203.0.113.7", 853), kPass, EGRESSD_ALLOW_NETWORK_RULE);
  expect(to("203.0.113.7", 53, 17), kPass, EGRESSD_ALLOW_NETWORK_RULE);
  expect(to("203.0.113.7", 53), kDrop, EGRESSD_DENY_DNS_SERVER);

  // Recorded only.
  rules_.dns.filter = enforce::RuleSet::Dns::Filter::Audit;
  apply();
  expect(to("198.51.100.1", 853), kPass, EGRESSD_ALLOW_NETWORK_RULE);
  EXPECT_EQ(run("egressd_egress", make_packet(to("203.0.113.1", 853))), kPass);
  EXPECT_EQ(moved().stats[EGRESSD_STAT_EVENTS_SENT], 1u);
  EXPECT_EQ(run("egressd_egress", make_packet(to("203.0.113.1", 443))), kPass);
  EXPECT_EQ(moved().stats[EGRESSD_STAT_EVENTS_SENT], 0u);
  expect(to("192.0.2.99", 853), kDrop, EGRESSD_DENY_DNS_SERVER);

  rules_.dns.filter = enforce::RuleSet::Dns::Filter::Off;
  apply();
  expect(to("198.51.100.1", 853), kPass, EGRESSD_ALLOW_NETWORK_RULE);
  expect(to("192.0.2.99", 853), kDrop, EGRESSD_DENY_DEFAULT);
}

TEST_F(VerdictTest, LocalAddressesOnTheWireAreJudgedLikeAnyOther) {
  apply();
  ASSERT_TRUE(
      backend_->set_local_addresses(std::vector<IpAddress>{*IpAddress::parse("192.0.2.77")}));
  for (const char* address : {"192.0.2.77", "127.0.0.1", "::1"})
    expect(to(address, 80), kDrop, EGRESSD_DENY_DEFAULT);
}

TEST_F(VerdictTest, OverLoopbackBothEndsMustBeLocal) {
  apply();
  ASSERT_TRUE(backend_->set_local_addresses(
      std::vector<IpAddress>{*IpAddress::parse("192.0.2.77"), *IpAddress::parse("2001:db8::77")}));
  over_loopback();
  const auto from = [&](const std::string& source, const std::string& destination) {
    PacketSpec spec = to(destination, 80);
    spec.source = *IpAddress::parse(source);
    return spec;
  };
  expect(from("127.0.0.1", "127.0.0.1"), kPass, EGRESSD_ALLOW_LOOPBACK);
  expect(from("127.0.0.1", "192.0.2.77"), kPass, EGRESSD_ALLOW_LOOPBACK);
  expect(from("192.0.2.77", "127.0.0.5"), kPass, EGRESSD_ALLOW_LOOPBACK);
  expect(from("2001:db8::77", "::1"), kPass, EGRESSD_ALLOW_LOOPBACK);
  // A pod's own address, which the agent does not know.
  expect(from("198.51.100.5", "198.51.100.5"), kPass, EGRESSD_ALLOW_LOOPBACK);
  // A forged source: whoever answers would answer to a stranger.
  expect(from("203.0.113.66", "127.0.0.1"), kDrop, EGRESSD_DENY_DEFAULT);
  expect(from("203.0.113.66", "192.0.2.77"), kDrop, EGRESSD_DENY_DEFAULT);
  expect(from("2001:db8:f::66", "::1"), kDrop, EGRESSD_DENY_DEFAULT);
  expect(from("2001:db8:f::66", "2001:db8::77"), kDrop, EGRESSD_DENY_DEFAULT);
}

TEST_F(VerdictTest, HousekeepingOfTheLinkStaysPossible) {
  apply();
  expect(to("255.255.255.255", 67, 17), kPass, EGRESSD_ALLOW_KERNEL);
  expect(to("255.255.255.255", 68, 17), kDrop, EGRESSD_DENY_DEFAULT);
  expect(to("ff02::2", 0, 58), kPass, EGRESSD_ALLOW_KERNEL);
  expect(to("ff02::1:2", 547, 17), kPass, EGRESSD_ALLOW_KERNEL);
  expect(to("ff02::fb", 5353, 17), kDrop, EGRESSD_DENY_DEFAULT);
  expect(to("ff05::2", 0, 58), kDrop, EGRESSD_DENY_DEFAULT);
}

TEST_F(VerdictTest, AuditLetsPassAndSaysSo) {
  rules_.prefixes = {{*Prefix::parse("198.51.100.0/24"),
                      list({{0, Protocol::Tcp, {22, 22}, Action::Deny, true},
                            {1, Protocol::Tcp, {23, 23}, Action::Deny, false}})}};
  apply(false);
  expect(to("203.0.113.1", 443), kPass, EGRESSD_ALLOW_AUDIT);
  expect(to("198.51.100.1", 22), kPass, EGRESSD_ALLOW_AUDIT);
  expect(to("198.51.100.1", 23), kDrop, EGRESSD_DENY_RULE);  // this rule enforces
  apply(true);
  expect(to("198.51.100.1", 22), kPass, EGRESSD_ALLOW_AUDIT);
  expect(to("203.0.113.1", 443), kDrop, EGRESSD_DENY_DEFAULT);
}

TEST_F(VerdictTest, WhatCannotBeParsedIsRefusedByName) {
  rules_.prefixes = {
      {*Prefix::parse("0.0.0.0/0"), list({{0, Protocol::Any, {}, Action::Allow, false}})},
      {*Prefix::parse("::/0"), 0}};
  apply();
  constexpr std::size_t kIp = 14;
  const auto v4 = make_packet(to("198.51.100.1", 443));
  const auto v6 = make_packet(to("2001:db8::9", 443));
  expect(v4, kPass, EGRESSD_ALLOW_NETWORK_RULE, "v4 whole");
  expect(v6, kPass, EGRESSD_ALLOW_NETWORK_RULE, "v6 whole");

  auto p = v4;
  p[kIp] = 0x46;  // options
  expect(p, kDrop, EGRESSD_DENY_MALFORMED, "IP options");
  p = v4;
  p[kIp] = 0x65;
  expect(p, kDrop, EGRESSD_DENY_MALFORMED, "version");
  p = v4;
  p[kIp + 6] = 0x20;  // more fragments
  expect(p, kDrop, EGRESSD_DENY_FRAGMENT, "first fragment");
  p = v4;
  p[kIp + 7] = 0x01;  // offset 8
  expect(p, kDrop, EGRESSD_DENY_FRAGMENT, "later fragment");
  p = v4;
  p[kIp + 6] = 0x40;  // don't fragment
  expect(p, kPass, EGRESSD_ALLOW_NETWORK_RULE, "DF");
  p = v4;
  p.resize(kIp + 20 + 2);  // half a port
  expect(p, kDrop, EGRESSD_DENY_MALFORMED, "v4 short");
  p = v6;
  p.resize(kIp + 40 + 2);
  expect(p, kDrop, EGRESSD_DENY_MALFORMED, "v6 short");
  p = v6;
  p[kIp + 6] = 44;
  expect(p, kDrop, EGRESSD_DENY_FRAGMENT, "v6 fragment header");
  p = v6;
  std::fill(p.begin() + kIp + 24, p.begin() + kIp + 34, std::uint8_t{0});
  p[kIp + 34] = p[kIp + 35] = 0xff;
  expect(p, kDrop, EGRESSD_DENY_MALFORMED, "v4-mapped address in an IPv6 header");
  p = v6;
  p[kIp + 6] = 43;
  expect(p, kDrop, EGRESSD_DENY_MALFORMED, "v6 routing header");
}

TEST_F(VerdictTest, ExtensionHeadersAreWalkedUpToTheBound) {
  rules_.prefixes = {{*Prefix::parse("2001:db8::/32"),
                      list({{0, Protocol::Tcp, {443, 443}, Action::Allow, false}})}};
  apply();
  for (const auto& [count, verdict, reason] : {std::tuple{1, kPass, EGRESSD_ALLOW_NETWORK_RULE},
                                               {6, kPass, EGRESSD_ALLOW_NETWORK_RULE},
                                               {7, kDrop, EGRESSD_DENY_MALFORMED}}) {
    auto packet = make_packet(to("2001:db8::9", 443));
    std::vector<std::uint8_t> extensions;
    for (int i = 0; i < count; ++i) {
      std::uint8_t header[8] = {
          static_cast<std::uint8_t>(i + 1 == count ? 6 : 60), 0, 1, 4, 0, 0, 0, 0};
      extensions.insert(extensions.end(), header, header + 8);
    }
    packet[14 + 6] = 60;
    packet.insert(packet.begin() + 14 + 40, extensions.begin(), extensions.end());
    expect(packet, verdict, reason, std::to_string(count) + " extension headers");
  }
  // The port behind the extension header counts, not what stands where the port would be.
  auto packet = make_packet(to("2001:db8::9", 444));
  packet[14 + 6] = 60;
  const std::uint8_t header[8] = {6, 0, 1, 187, 0, 0, 0, 0};  // 1, 187: port 443 at the wrong place
  packet.insert(packet.begin() + 14 + 40, header, header + 8);
  expect(packet, kDrop, EGRESSD_DENY_PORT, "port behind the extension header");
}

// The whole engine against policy::evaluate(): random policies, random destinations.
TEST_F(VerdictTest, AgreesWithTheReferenceOnRandomPolicies) {
  std::mt19937 random(20240117);
  const auto pick = [&](std::uint32_t n) { return static_cast<std::uint32_t>(random() % n); };
  const std::vector<std::string> networks = {"10.0.0.0/8",      "10.1.0.0/16",   "10.1.2.0/24",
                                             "10.1.2.3",        "0.0.0.0/0",     "2001:db8::/32",
                                             "2001:db8:1::/48", "2001:db8:1::1", "::/0"};
  const std::vector<std::string> patterns = {"a.x.test",    "*.x.test", "*.y.x.test", "b.y.x.test",
                                             "md-*.x.test", "c.test",   "*.c.test",   "*.d.c.test"};
  const std::vector<std::string> names = {
      "a.x.test",   "b.x.test",      "b.y.x.test", "z.y.x.test", "md-1.x.test",
      "md-.x.test", "q.md-1.x.test", "c.test",     "e.c.test",   "e.d.c.test"};
  const std::vector<std::string> addresses = {"10.9.9.9",      "10.1.9.9",      "10.1.2.9",
                                              "10.1.2.3",      "192.0.2.9",     "2001:db8:2::1",
                                              "2001:db8:1::2", "2001:db8:1::1", "2001:db9::1"};
  const std::vector<std::string> ports = {"22", "443", "\"440-450\"", "\"*\"", "[80, 443]"};
  const auto state =
      std::filesystem::temp_directory_path() / ("egressd-verdict-" + std::to_string(::getpid()));
  auto ids = daemon::NameIds::load(state.string(), "1");
  ASSERT_TRUE(ids);
  // Nowhere to count what repeats: each refusal is an event.
  const __u32 zero = 0;
  const int tally = ::bpf_obj_get(
      (bpffs_ + "/v" + std::to_string(EGRESSD_ABI_VERSION) + "/maps/egressd_tally").c_str());
  ASSERT_EQ(::bpf_map_delete_elem(tally, &zero), 0);
  ::close(tally);
  int checked = 0;
  for (int round = 0; round < 60; ++round) {
    std::string text =
        std::string("version: 1\nmode: ") + (pick(4) ? "enforce" : "audit") + "\ncollections:\n";
    const auto collections = 1 + pick(5);
    for (std::uint32_t c = 0; c < collections; ++c) {
      text += "  - name: c" + std::to_string(c) + "\n    priority: " + std::to_string(100 + c) +
              "\n    action: " + (pick(3) ? "allow" : "deny") + "\n    rules:\n";
      const auto count = 1 + pick(4);
      for (std::uint32_t r = 0; r < count; ++r) {
        text += "      - name: r" + std::to_string(r) + "\n        ports: " + ports[pick(5)] + "\n";
        if (pick(2)) {
          text += "        addresses: [\"" + networks[pick(9)] + "\"]\n        protocols: [" +
                  (pick(2) ? "tcp" : "tcp, udp") + "]\n";
        } else {
          text += "        fqdns: [\"" + patterns[pick(8)] + "\"]\n        protocols: [" +
                  (pick(2) ? "tcp" : "any") + "]\n";
        }
        if (pick(5) == 0) text += "        mode: audit\n";
      }
    }
    const auto parsed = policy::parse_policy(text, "random.yaml", policy::TagCatalog::builtin());
    ASSERT_TRUE(parsed) << text << parsed.error().front().to_string();
    const auto compiled = daemon::compile(parsed->policy, ++generation_, {}, *ids);
    ASSERT_TRUE(compiled) << compiled.error().message;
    const auto applied = backend_->apply(compiled->rules);
    ASSERT_TRUE(applied) << applied.error().message;

    const auto check = [&](const policy::Destination& destination, const IpAddress& address) {
      PacketSpec spec = to(address.to_string(), destination.port,
                           static_cast<std::uint8_t>(destination.protocol));
      const auto expected = policy::evaluate(parsed->policy, destination);
      moved();
      EXPECT_EQ(run("egressd_egress", make_packet(spec)), expected.allowed ? kPass : kDrop)
          << text << (destination.fqdn.empty() ? address.to_string() : destination.fqdn) << ":"
          << destination.port << "/" << net::to_string(destination.protocol) << ": "
          << expected.reason;
      const auto delta = moved();
      EXPECT_EQ(delta.stats[EGRESSD_STAT_EVENTS_SENT] + delta.stats[EGRESSD_STAT_EVENTS_LOST],
                expected.allowed && !expected.would_deny ? 0u : 1u)
          << text << destination.fqdn << address.to_string() << ":" << destination.port;
      ++checked;
    };
    for (const std::uint16_t port : std::initializer_list<std::uint16_t>{22, 80, 443, 445}) {
      for (const Protocol protocol : {Protocol::Tcp, Protocol::Udp}) {
        for (const std::string& address : addresses)
          check({"", IpAddress::parse(address), port, protocol}, *IpAddress::parse(address));
        // Each name gets an address that no network rule but 0.0.0.0/0 and ::/0 can know, and
        // those are judged first: names are checked only in policies without them.
        if (text.find("\"0.0.0.0/0\"") != std::string::npos) continue;
        for (std::size_t n = 0; n < names.size(); ++n) {
          const auto address =
              IpAddress::v4(0xc6336401u + static_cast<std::uint32_t>(n));  // 198.51.100.x
          ASSERT_TRUE(backend_->forget_learned());
          std::vector<enforce::LearnedAddress> grants;
          for (const auto* entry : compiled->names.match(names[n]))
            grants.push_back(
                {address, entry->name_id, SystemClock().now() + std::chrono::hours(1)});
          ASSERT_TRUE(backend_->learn(grants));
          check({names[n], std::nullopt, port, protocol}, address);
        }
      }
    }
    if (HasFailure()) break;
  }
  EXPECT_GT(checked, 5000);
  std::filesystem::remove(state);
}

}  // namespace
}  // namespace egressd::test
