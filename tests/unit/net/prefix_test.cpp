#include "net/prefix.h"

#include <gtest/gtest.h>

namespace egressd::net {
namespace {

TEST(Prefix, ContainsItsAddressesOnly) {
  const auto p = Prefix::parse("10.1.0.0/16");
  ASSERT_TRUE(p);
  EXPECT_TRUE(p->contains(*IpAddress::parse("10.1.255.255")));
  EXPECT_FALSE(p->contains(*IpAddress::parse("10.2.0.0")));
  EXPECT_EQ(p->mapped_length(), 112);
}

TEST(Prefix, FamiliesAreKeptApart) {
  const auto all6 = Prefix::parse("::/0");
  const auto all4 = Prefix::parse("0.0.0.0/0");
  ASSERT_TRUE(all6 && all4);
  EXPECT_FALSE(all6->contains(*IpAddress::parse("192.0.2.1")));
  EXPECT_FALSE(all4->contains(*IpAddress::parse("2001:db8::1")));
  EXPECT_TRUE(all4->contains(*IpAddress::parse("192.0.2.1")));
  EXPECT_FALSE(all6->contains(*all4));
}

TEST(Prefix, BareAddressIsAHostPrefix) {
  EXPECT_EQ(Prefix::parse("192.0.2.7")->to_string(), "192.0.2.7/32");
  EXPECT_EQ(Prefix::parse("2001:db8::7")->to_string(), "2001:db8::7/128");
  EXPECT_TRUE(Prefix::parse("192.0.2.7")->is_host());
}

TEST(Prefix, HostBitsAreRefusedWithWhatWasMeant) {
  const auto p = Prefix::parse("10.1.2.3/16");
  ASSERT_FALSE(p);
  EXPECT_NE(p.error().find("write 10.1.0.0/16 or 10.1.2.3"), std::string::npos) << p.error();
}

TEST(Prefix, LengthsAreChecked) {
  for (const char* text :
       {"10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", "10.0.0.0/8x", "2001:db8::/129", "/8", "x/8"}) {
    EXPECT_FALSE(Prefix::parse(text)) << text;
  }
}

TEST(Prefix, WiderContainsNarrower) {
  EXPECT_TRUE(Prefix::parse("10.0.0.0/8")->contains(*Prefix::parse("10.9.0.0/16")));
  EXPECT_FALSE(Prefix::parse("10.9.0.0/16")->contains(*Prefix::parse("10.0.0.0/8")));
}

TEST(Prefix, WidenedDropsTheBitsBeyond) {
  EXPECT_EQ(Prefix::parse("10.1.2.3")->widened(12).to_string(), "10.0.0.0/12");
  EXPECT_EQ(Prefix::parse("2001:db8:ffff::/48")->widened(33).to_string(), "2001:db8:8000::/33");
  EXPECT_EQ(Prefix::parse("10.1.0.0/16")->widened(0).to_string(), "0.0.0.0/0");
}

}  // namespace
}  // namespace egressd::net
