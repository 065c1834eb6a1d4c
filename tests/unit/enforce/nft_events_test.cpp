#include "enforce/nft_events.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <vector>

namespace egressd::enforce {
namespace {

// A SYN of 60 bytes from 10.0.0.1:1025 to 203.0.113.5:443, its first 24 bytes.
const std::vector<std::uint8_t> kTcp4{0x45, 0, 0, 60, 0,   0, 0x40, 0, 64, 6, 0, 0,
                                      10,   0, 0, 1,  203, 0, 113,  5, 4,  1, 1, 187};

TEST(NftEvent, SaysWhatThePacketAndTheRuleSay) {
  const nft::Nflog::Packet packet{
      .prefix = "egressd:1:19:7:42:", .payload = kTcp4, .uid = 1000, .has_uid = true};
  const auto event = event_of(packet, BootTime(5));
  ASSERT_TRUE(event);
  EXPECT_EQ(event->verdict, EGRESSD_ACTION_DENY);
  EXPECT_EQ(event->reason, EGRESSD_DENY_RULE);
  EXPECT_EQ(event->rule_id, 7u);
  EXPECT_EQ(event->generation, 42u);
  EXPECT_EQ(event->time_ns, 5u);
  EXPECT_EQ(event->family, AF_INET);
  EXPECT_EQ(event->proto, IPPROTO_TCP);
  EXPECT_EQ(ntohs(event->dport), 443);
  EXPECT_EQ(ntohs(event->sport), 1025);
  EXPECT_EQ(event->daddr.addr[12], 203);
  EXPECT_EQ(event->daddr.addr[11], 0xff);
  EXPECT_EQ(event->length, 60u);
  EXPECT_EQ(event->uid, 1000u);
}

TEST(NftEvent, WithoutARule) {
  const auto event = event_of({.prefix = "egressd:0:17::3:", .payload = kTcp4}, BootTime(5));
  ASSERT_TRUE(event);
  EXPECT_EQ(event->verdict, EGRESSD_ACTION_ALLOW);
  EXPECT_EQ(event->rule_id, EGRESSD_NO_RULE);
}

TEST(NftEvent, HeadersBeforeThePorts) {
  std::vector<std::uint8_t> ip6(40);
  ip6[0] = 0x60;
  ip6[5] = 16;  // payload length
  ip6[6] = 60;  // destination options
  ip6[24] = 0x20;
  ip6.insert(ip6.end(), {17, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 53, 0, 8, 0, 0});
  const auto event = event_of({.prefix = "egressd:1:17::3:", .payload = ip6}, BootTime(5));
  ASSERT_TRUE(event);
  EXPECT_EQ(event->family, AF_INET6);
  EXPECT_EQ(event->proto, IPPROTO_UDP);
  EXPECT_EQ(ntohs(event->dport), 53);
  EXPECT_EQ(event->length, 56u);
}

TEST(NftEvent, WhatIsCutOffIsLeftOut) {
  for (std::size_t length = 0; length <= kTcp4.size(); ++length) {
    const auto event = event_of(
        {.prefix = "egressd:1:17::3:", .payload = std::span(kTcp4).first(length)}, BootTime(5));
    ASSERT_TRUE(event);
    EXPECT_EQ(event->dport != 0, length == kTcp4.size());
  }
}

TEST(NftEvent, AHeaderThatIsTooShortHasNoPorts) {
  auto packet = kTcp4;
  packet[0] = 0x40;
  const auto event = event_of({.prefix = "egressd:1:17::3:", .payload = packet}, BootTime(5));
  ASSERT_TRUE(event);
  EXPECT_EQ(event->dport, 0);
  EXPECT_EQ(event->sport, 0);
}

TEST(NftEvent, OthersLogToo) {
  for (const char* prefix :
       {"", "egressd:", "egressd:1:17::3", "egressd:1:x::3:", "other:1:17::3:"})
    EXPECT_FALSE(event_of({.prefix = prefix, .payload = kTcp4}, BootTime(5))) << prefix;
}

}  // namespace
}  // namespace egressd::enforce
