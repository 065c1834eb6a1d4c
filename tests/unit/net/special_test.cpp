#include "net/special.h"

#include <gtest/gtest.h>

namespace egressd::net {
namespace {

using enum SpecialBlock::Learnable;

// First and last address of every block of dns_guard4() and dns_guard6() in bpf/dns_learn.h.
constexpr struct {
  const char* address;
  const char* purpose;
  SpecialBlock::Learnable learnable;
} kSpecial[] = {
    {"10.0.0.0", "private", IfPrivateIsAllowed},
    {"10.255.255.255", "private", IfPrivateIsAllowed},
    {"172.16.0.0", "private", IfPrivateIsAllowed},
    {"172.31.255.255", "private", IfPrivateIsAllowed},
    {"192.168.0.0", "private", IfPrivateIsAllowed},
    {"192.168.255.255", "private", IfPrivateIsAllowed},
    {"100.64.0.0", "shared (CGNAT)", IfPrivateIsAllowed},
    {"100.127.255.255", "shared (CGNAT)", IfPrivateIsAllowed},
    {"fc00::", "unique local", IfPrivateIsAllowed},
    {"fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "unique local", IfPrivateIsAllowed},

    {"0.0.0.0", "unspecified", Never},
    {"0.255.255.255", "unspecified", Never},
    {"127.0.0.0", "loopback", Never},
    {"127.0.0.53", "loopback", Never},
    {"127.255.255.255", "loopback", Never},
    {"169.254.0.0", "link-local", Never},
    {"169.254.169.254", "link-local", Never},
    {"169.254.255.255", "link-local", Never},
    {"192.0.0.0", "reserved", Never},
    {"192.0.0.255", "reserved", Never},
    {"224.0.0.0", "multicast", Never},
    {"239.255.255.255", "multicast", Never},
    {"240.0.0.0", "reserved", Never},
    {"255.255.255.255", "reserved", Never},
    {"168.63.129.16", "platform", Never},
    {"::ffff:127.0.0.1", "loopback", Never},
    {"::", "embedded IPv4", Never},
    {"::1", "loopback", Never},
    {"::a9fe:a9fe", "embedded IPv4", Never},
    {"64:ff9b::a9fe:a9fe", "embedded IPv4", Never},
    {"64:ff9b:1::1", "embedded IPv4", Never},
    {"100::1", "not global unicast", Never},
    {"1fff:ffff::", "not global unicast", Never},
    {"2001::1", "embedded IPv4", Never},
    {"2001:0:ffff:ffff::", "embedded IPv4", Never},
    {"2002::", "embedded IPv4", Never},
    {"2002:a9fe:a9fe::1", "embedded IPv4", Never},
    {"4000::", "not global unicast", Never},
    {"fbff:ffff::1", "not global unicast", Never},
    {"fe00::1", "not global unicast", Never},
    {"fe80::1", "link-local", Never},
    {"febf:ffff::1", "link-local", Never},
    {"fec0::1", "not global unicast", Never},
    {"ff02::1", "multicast", Never},
    {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "multicast", Never},
};

TEST(SpecialBlock, WhatRebindingAimsAtIsPrivateOrNever) {
  for (const auto& c : kSpecial) {
    const SpecialBlock* block = special_block(*IpAddress::parse(c.address));
    ASSERT_NE(block, nullptr) << c.address;
    EXPECT_STREQ(block->purpose, c.purpose) << c.address;
    EXPECT_EQ(block->learnable, c.learnable) << c.address;
  }
}

TEST(SpecialBlock, OrdinaryAddressesAreNotSpecial) {
  for (const char* address :
       {"1.0.0.0",         "9.255.255.255", "11.0.0.0",      "100.63.255.255",  "100.128.0.0",
        "126.255.255.255", "128.0.0.0",     "168.63.129.15", "168.63.129.17",   "169.253.255.255",
        "169.255.0.0",     "172.15.0.1",    "172.32.0.0",    "191.255.255.255", "192.0.1.0",
        "192.167.0.1",     "192.169.0.0",   "203.0.113.9",   "223.255.255.255", "2000::",
        "2001:1::",        "2001:db8::1",   "2003::1",       "2603:1030::1",    "3fff:ffff::1"}) {
    EXPECT_EQ(special_block(*IpAddress::parse(address)), nullptr) << address;
  }
}

}  // namespace
}  // namespace egressd::net
