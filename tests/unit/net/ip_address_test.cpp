#include "net/ip_address.h"

#include <gtest/gtest.h>

namespace egressd::net {
namespace {

TEST(IpAddress, Ipv4IsHeldInMappedForm) {
  const auto a = IpAddress::parse("192.0.2.1");
  ASSERT_TRUE(a);
  EXPECT_TRUE(a->is_v4());
  EXPECT_EQ(a->to_string(), "192.0.2.1");
  EXPECT_EQ(a, IpAddress::parse("::ffff:192.0.2.1"));
  EXPECT_EQ(*a, IpAddress::v4(0xc0000201));
}

TEST(IpAddress, Ipv6IsPrintedInItsShortForm) {
  const auto a = IpAddress::parse("2001:DB8:0:0::1");
  ASSERT_TRUE(a);
  EXPECT_FALSE(a->is_v4());
  EXPECT_EQ(a->to_string(), "2001:db8::1");
}

TEST(IpAddress, LoopbackIsRecognisedInBothFamilies) {
  EXPECT_TRUE(IpAddress::parse("127.3.2.1")->is_loopback());
  EXPECT_TRUE(IpAddress::parse("::1")->is_loopback());
  EXPECT_FALSE(IpAddress::parse("128.0.0.1")->is_loopback());
  EXPECT_FALSE(IpAddress::parse("::2")->is_loopback());
}

TEST(IpAddress, OtherTextIsRefused) {
  for (const char* text : {"", "1.2.3", "1.2.3.4.5", "01.2.3.4", "256.1.1.1", "1.2.3.4/32", "[::1]",
                           "fe80::1%eth0", "::g", "localhost"}) {
    EXPECT_FALSE(IpAddress::parse(text)) << text;
  }
  EXPECT_FALSE(IpAddress::parse(std::string_view("1.2.3.4\0", 8)));
}

}  // namespace
}  // namespace egressd::net
