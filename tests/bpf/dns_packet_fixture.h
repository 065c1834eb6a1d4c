// The DNS programs, a policy of two rules, one resolver per family, and the packets of an exchange
// with it. For tests of one packet and of many.
#pragma once

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "support/dns_message.h"
#include "support/dns_packet.h"
#include "tests/bpf/dns_compare.h"

namespace egressd::test {

inline constexpr std::uint16_t kId = 0x1234;
inline constexpr std::uint16_t kOk = 0x8180;
inline constexpr std::uint32_t kPublic = 0xcb007105;  // 203.0.113.5
inline constexpr std::uint32_t kLo = 1;
inline constexpr std::uint32_t kLearnedEntries = 512;
inline constexpr int kPassed = 1;
inline constexpr int kDropped = 0;

inline const std::string kClient4 = "192.0.2.2";
inline const std::string kServer4 = "192.0.2.1";
inline const std::string kClient6 = "fd65:6772::2";
inline const std::string kServer6 = "fd65:6772::1";

inline egressd_addr address_of(const std::string& text) {
  egressd_addr a{};
  if (::inet_pton(AF_INET, text.c_str(), a.addr + 12) == 1) {
    a.addr[10] = a.addr[11] = 0xff;
  } else {
    ::inet_pton(AF_INET6, text.c_str(), a.addr);
  }
  return a;
}

// What moved, by outcome.
using Moved = std::map<std::uint32_t, std::uint64_t>;

class DnsPacketTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { kernel_ = DnsKernel::load(&why_, kLearnedEntries).release(); }
  static void TearDownTestSuite() {
    delete kernel_;
    kernel_ = nullptr;
  }
  void SetUp() override {
    if (kernel_ == nullptr) {
      GTEST_SKIP() << why_;
    }
    kernel_->forget();
    kernel_->forget_questions();
    kernel_->trust_nobody();
    kernel_->device(0);
    kernel_->segmentation_offload(0);
    kernel_->events();
    std::memset(&kernel_->io(), 0, sizeof(dns_test_io));
    kernel_->io().sock.protocol = IPPROTO_TCP;
    kernel_->io().sock.type = SOCK_STREAM;
    set_policy(kernel_->usual_config());
    for (const auto& server : {kServer4, kServer6}) {
      kernel_->trust_server(address_of(server), EGRESSD_DNS_LINK_UPLINK);
    }
    kernel_->trust_link(DNS_TEST_NETNS, kLo, EGRESSD_DNS_LINK_UPLINK);
    moved();
  }

  static void set_policy(const egressd_dns_config& config, std::uint32_t slot = 0) {
    const std::vector<enforce::NamePattern> patterns{{"www.example.org", 1, false},
                                                     {"*.example.net", 2, false}};
    kernel_->set_policy(patterns, config, slot);
  }

  // Outcomes counted since the last call.
  static Moved moved() {
    Moved all;
    for (std::uint32_t i = 0; i < EGRESSD_DNS_OUTCOME_MAX; ++i) {
      const auto now = kernel_->count(i);
      if (now != last_[i]) {
        all[i] = now - last_[i];
      }
      last_[i] = now;
    }
    return all;
  }

  static std::vector<std::uint8_t> query(const std::string& name = "www.example.org",
                                         std::uint16_t id = kId) {
    return DnsMessage().header(id, 0x0100, 1, 0).question(name).bytes();
  }
  static std::vector<std::uint8_t> reply(const std::string& name = "www.example.org",
                                         std::uint16_t id = kId, std::uint32_t address = kPublic) {
    return DnsMessage().header(id, kOk, 1, 1).question(name).pointer(12).a(60, address).bytes();
  }
  // The right ones.
  static DnsPacket question(bool v6 = false) {
    return {.from = v6 ? kClient6 : kClient4,
            .to = v6 ? kServer6 : kServer4,
            .sport = 40000,
            .dport = 53,
            .payload = query()};
  }
  static DnsPacket answer(bool v6 = false) {
    return {.from = v6 ? kServer6 : kServer4,
            .to = v6 ? kClient6 : kClient4,
            .sport = 53,
            .dport = 40000,
            .payload = reply()};
  }

  static int out(const DnsPacket& p) { return kernel_->out(p.bytes()); }
  static int in(const DnsPacket& p) { return kernel_->in(p.bytes()); }

  // Asks, then shows the answer: it is delivered, teaches nothing, and counts as `outcomes`. Then
  // the right answer, which still teaches, unless the wrong one used the question up.
  static void not_believed(const DnsPacket& packet, const Moved& outcomes, const char* what) {
    SCOPED_TRACE(what);
    ASSERT_EQ(out(question()), kPassed);
    moved();
    EXPECT_EQ(in(packet), kPassed);
    EXPECT_EQ(moved(), outcomes);
    EXPECT_THAT(kernel_->learned(), ::testing::IsEmpty());
    ASSERT_EQ(in(answer()), kPassed);
    EXPECT_EQ(moved(), (Moved{{EGRESSD_DNS_LEARNED, 1}, {EGRESSD_DNS_ADDR_NEW, 1}}));
    EXPECT_EQ(kernel_->learned().size(), 1U);
    kernel_->forget();
  }

  // The packet is dropped and counts as `outcomes`; the right one leaves.
  static void not_asked(const DnsPacket& packet, const Moved& outcomes, const char* what) {
    SCOPED_TRACE(what);
    moved();
    EXPECT_EQ(out(packet), kDropped);
    EXPECT_EQ(moved(), outcomes);
    EXPECT_EQ(out(question()), kPassed);
    EXPECT_EQ(moved(), (Moved{{EGRESSD_DNS_ASKED, 1}}));
  }

  inline static DnsKernel* kernel_ = nullptr;
  inline static std::string why_;
  inline static std::array<std::uint64_t, EGRESSD_DNS_OUTCOME_MAX> last_{};
};

}  // namespace egressd::test
