#include "cli/destination.h"

#include <gtest/gtest.h>

namespace egressd::cli {
namespace {

TEST(ParseDestination, ReadsNamesAddressesPortsAndProtocols) {
  for (const auto& [text, expected] : std::initializer_list<std::pair<const char*, const char*>>{
           {"ML.azure.com.", "ml.azure.com:443/tcp"},
           {"pypi.org:8080", "pypi.org:8080/tcp"},
           {"pypi.org/udp", "pypi.org:443/udp"},
           {"192.0.2.1", "192.0.2.1:443/tcp"},
           {"192.0.2.1:53/udp", "192.0.2.1:53/udp"},
           {"2001:db8::1", "[2001:db8::1]:443/tcp"},
           {"[2001:db8::1]", "[2001:db8::1]:443/tcp"},
           {"[2001:db8::1]:65535/sctp", "[2001:db8::1]:65535/sctp"},
           {"192.0.2.1/icmp", "192.0.2.1/icmp"},
           {"2001:db8::1/icmp", "2001:db8::1/icmp"},
           {"192.0.2.1/47", "192.0.2.1/47"}}) {
    const auto got = parse_destination(text);
    ASSERT_TRUE(got) << text << ": " << got.error();
    EXPECT_EQ(got->to_string(), expected);
  }
}

TEST(ParseDestination, SaysWhenThePortIsTheDefault) {
  EXPECT_TRUE(parse_destination("pypi.org")->port_defaulted);
  EXPECT_FALSE(parse_destination("pypi.org:443")->port_defaulted);
  EXPECT_FALSE(parse_destination("192.0.2.1/icmp")->port_defaulted);
}

TEST(ParseDestination, IcmpOfAnIpv6AddressIsIcmpv6) {
  EXPECT_EQ(parse_destination("2001:db8::1/icmp")->destination.protocol, net::Protocol::Icmpv6);
  EXPECT_EQ(parse_destination("192.0.2.1/icmp")->destination.protocol, net::Protocol::Icmp);
}

TEST(ParseDestination, RefusesTheRest) {
  for (const char* text : {"",
                           ":",
                           ":443",
                           "pypi.org:",
                           "pypi.org:0",
                           "pypi.org:65536",
                           "pypi.org:http",
                           "pypi.org:-1",
                           "pypi.org:443/",
                           "pypi.org/quic",
                           "pypi.org/256",
                           "192.0.2.1:80/icmp",
                           "[2001:db8::1",
                           "[2001:db8::1]443",
                           "[]:443",
                           "[192.0.2.1]:443",
                           "[pypi.org]:443",
                           "2001:db8::1:2:3:4:5:6:7",
                           "10.0.0.0/8x",
                           "https://pypi.org/",
                           "a b",
                           "*.pypi.org"})
    EXPECT_FALSE(parse_destination(text)) << text;
}

}  // namespace
}  // namespace egressd::cli
