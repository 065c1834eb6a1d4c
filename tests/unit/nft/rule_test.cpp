#include "nft/rule.h"

#include <gtest/gtest.h>

namespace egressd::nft {
namespace {

TEST(Rule, SaysWhatNftWouldShow) {
  EXPECT_EQ(Rule()
                .oif_loopback()
                .address_in(true, true, "local4")
                .address_in(true, false, "local4")
                .counter("loopback")
                .accept()
                .text(),
            "oif \"lo\" ip saddr @local4 ip daddr @local4 counter name \"loopback\" accept");
  EXPECT_EQ(Rule().protocol(net::Protocol::Tcp).port(1000, 2000).go_to("refuse").text(),
            "meta l4proto tcp th dport 1000-2000 goto refuse");
  EXPECT_EQ(Rule().flow_in(false, "allow6").accept().text(),
            "ip6 daddr . meta l4proto . th dport @allow6 accept");
  EXPECT_EQ(Rule().to_prefix6("ff02::", 2).port(547, 547).accept().text(),
            "ip6 daddr ff02::/16 th dport 547 accept");
  EXPECT_EQ(Rule().mark(0x35).user(7).back().text(), "meta mark 53 meta skuid 7 return");
  EXPECT_EQ(Rule().to_prefix4(0x7f000001).redirected().accept().text(),
            "ip daddr 127.0.0.1 ct status dnat accept");
  EXPECT_EQ(Rule().family_in("open").user(0).accept().text(),
            "meta nfproto @open meta skuid 0 accept");
}

}  // namespace
}  // namespace egressd::nft
