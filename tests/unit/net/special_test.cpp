#include "net/special.h"

#include <gtest/gtest.h>

namespace egressd::net {
namespace {

TEST(SpecialPurpose, WhatRebindingAimsAtIsNamed) {
  const std::pair<const char*, const char*> cases[] = {
      {"127.0.0.1", "loopback"},
      {"::1", "loopback"},
      {"10.1.2.3", "private"},
      {"172.31.255.255", "private"},
      {"192.168.0.1", "private"},
      {"169.254.169.254", "link-local"},
      {"168.63.129.16", "platform"},
      {"100.64.0.1", "shared (CGNAT)"},
      {"0.0.0.0", "unspecified"},
      {"224.0.0.1", "multicast"},
      {"255.255.255.255", "reserved"},
      {"fd00::1", "unique local"},
      {"fe80::1", "link-local"},
      {"ff02::1", "multicast"},
      {"64:ff9b::a00:1", "embedded IPv4"},
      {"2002:a00:1::1", "embedded IPv4"},
      {"::", "embedded IPv4"},
      {"::ffff:10.0.0.1", "private"},
  };
  for (const auto& [address, name] : cases) {
    EXPECT_STREQ(special_purpose(*IpAddress::parse(address)), name) << address;
  }
}

TEST(SpecialPurpose, OrdinaryAddressesAreNotSpecial) {
  for (const char* address : {"20.50.1.1", "172.32.0.1", "172.15.255.255", "168.63.129.17",
                              "203.0.113.9", "100.128.0.1", "2603:1030::1", "2001:db8::1"}) {
    EXPECT_EQ(special_purpose(*IpAddress::parse(address)), nullptr) << address;
  }
}

}  // namespace
}  // namespace egressd::net
