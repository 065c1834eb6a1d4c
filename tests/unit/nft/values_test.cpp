#include "nft/values.h"

#include <gtest/gtest.h>

#include <vector>

namespace egressd::nft {
namespace {

net::IpAddress address(const char* text) { return *net::IpAddress::parse(text); }

TEST(Values, KeysAreWhatThePacketHolds) {
  const auto v4 = KeyBytes::of(address("203.0.113.5"), net::Protocol::Tcp, 443);
  const std::vector<std::uint8_t> wanted{203, 0, 113, 5, 6, 0, 0, 0, 0x01, 0xbb, 0, 0};
  EXPECT_EQ(std::vector<std::uint8_t>(v4.bytes().begin(), v4.bytes().end()), wanted);
  const auto v6 = KeyBytes::of(address("2001:db8::5"), net::Protocol::Udp, 53);
  EXPECT_EQ(v6.bytes().size(), key_length(Key::Flow6));
  EXPECT_EQ(v6.bytes()[15], 5);
  EXPECT_EQ(v6.bytes()[16], 17);
  EXPECT_EQ(KeyBytes::port(53).bytes().size(), key_length(Key::Port));
  EXPECT_EQ(KeyBytes::of(net::Protocol::Tcp).bytes().size(), key_length(Key::Protocol));
  EXPECT_EQ(KeyBytes::mark(7).bytes().size(), key_length(Key::Mark));
}

TEST(Values, KeysAreSaidAsNftSaysThem) {
  const auto flow = KeyBytes::of(address("203.0.113.5"), net::Protocol::Tcp, 443);
  EXPECT_EQ(to_string(Key::Flow4, flow.bytes()), "203.0.113.5 . tcp . 443");
  const auto flow6 = KeyBytes::of(address("2001:db8::5"), net::Protocol::Udp, 53);
  EXPECT_EQ(to_string(Key::Flow6, flow6.bytes()), "2001:db8::5 . udp . 53");
  EXPECT_EQ(to_string(Key::Ipv6, KeyBytes::of(address("2001:db8::5")).bytes()), "2001:db8::5");
  EXPECT_EQ(to_string(Key::Port, KeyBytes::port(853).bytes()), "853");
  EXPECT_EQ(to_string(Key::Mark, KeyBytes::mark(70000).bytes()), "70000");
  EXPECT_EQ(to_string(Key::Flow4, {}), "(no key)");
}

TEST(Values, AddressesComeBack) {
  for (const char* text : {"203.0.113.5", "2001:db8::5"}) {
    const Key key = address(text).is_v4() ? Key::Ipv4 : Key::Ipv6;
    EXPECT_EQ(address_of(key, KeyBytes::of(address(text)).bytes()), address(text));
  }
}

}  // namespace
}  // namespace egressd::nft
