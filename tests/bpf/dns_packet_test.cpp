// Whole packets through the DNS programs: who is believed, on which link, and what each packet that
// is not counts as. Every refusal stands beside the packet that differs from it in one thing only
// and is believed.
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/bpf/dns_packet_fixture.h"

namespace egressd::test {
namespace {

// ---- who is believed ----

TEST_F(DnsPacketTest, AnswersOfTheResolverTeachOverBothFamilies) {
  for (const bool v6 : {false, true}) {
    kernel_->forget();
    EXPECT_EQ(out(question(v6)), kPassed);
    EXPECT_EQ(moved(), (Moved{{EGRESSD_DNS_ASKED, 1}}));
    EXPECT_EQ(in(answer(v6)), kPassed);
    EXPECT_EQ(moved(), (Moved{{EGRESSD_DNS_LEARNED, 1}, {EGRESSD_DNS_ADDR_NEW, 1}}));
    EXPECT_EQ(kernel_->learned().size(), 1U);
  }
}

TEST_F(DnsPacketTest, NobodyElseIsBelieved) {
  const Moved other{{EGRESSD_DNS_NOT_TRUSTED_SERVER, 1}};
  DnsPacket p = answer();
  p.from = "192.0.2.3";
  not_believed(p, other, "another address");
  p = answer();
  p.sport = 54;
  not_believed(p, {}, "another port");
  p = answer();
  p.sport = 40000;
  p.dport = 53;
  not_believed(p, {}, "ports the other way round");
  p = answer();
  p.protocol = 136;  // UDP-Lite: ports in the same place
  not_believed(p, {}, "another protocol");
}

TEST_F(DnsPacketTest, OtherSocketsIdsAndNamesAreNotBelieved) {
  const Moved not_asked{{EGRESSD_DNS_NOT_ASKED, 1}};
  DnsPacket p = answer();
  p.payload = reply("www.example.org", kId + 1);
  not_believed(p, not_asked, "another id");
  p.payload = reply("a.example.net");
  not_believed(p, not_asked, "another name, which may be asked as well");
  ASSERT_EQ(out(question()), kPassed);
  moved();
  kernel_->io().cookie = DNS_TEST_COOKIE + 1;
  EXPECT_EQ(in(answer()), kPassed);
  EXPECT_EQ(moved(), not_asked);
  EXPECT_THAT(kernel_->learned(), ::testing::IsEmpty());
  kernel_->io().cookie = 0;
  EXPECT_EQ(in(answer()), kPassed);
  EXPECT_EQ(kernel_->learned().size(), 1U);
  // Once only.
  kernel_->forget();
  moved();
  EXPECT_EQ(in(answer()), kPassed);
  EXPECT_EQ(moved(), not_asked);
}

TEST_F(DnsPacketTest, ServersOfAnotherSlotAreNotBelieved) {
  kernel_->trust_server(address_of(kServer4), EGRESSD_DNS_LINK_UPLINK, 2);
  EXPECT_EQ(out(question()), kPassed);  // the packet verdict's business
  EXPECT_EQ(in(answer()), kPassed);
  EXPECT_EQ(moved(), (Moved{{EGRESSD_DNS_NOT_TRUSTED_SERVER, 1}}));
  set_policy(kernel_->usual_config(), 1);
  EXPECT_EQ(out(question()), kPassed);
  EXPECT_EQ(in(answer()), kPassed);
  EXPECT_EQ(moved(),
            (Moved{{EGRESSD_DNS_ASKED, 1}, {EGRESSD_DNS_LEARNED, 1}, {EGRESSD_DNS_ADDR_NEW, 1}}));
}

TEST_F(DnsPacketTest, AQuestionUnderWayThroughAReloadIsAnswered) {
  EXPECT_EQ(out(question()), kPassed);
  set_policy(kernel_->usual_config(), 1);
  EXPECT_EQ(in(answer()), kPassed);
  EXPECT_EQ(kernel_->learned().size(), 1U);
}

TEST_F(DnsPacketTest, NothingIsJudgedOrLearnedWhileDnsIsOff) {
  auto config = kernel_->usual_config();
  config.enabled = 0;
  ASSERT_EQ(out(question()), kPassed);
  moved();
  set_policy(config);
  auto p = question();
  p.payload = query("evil.test");
  EXPECT_EQ(out(p), kPassed);
  EXPECT_EQ(in(answer()), kPassed);
  EXPECT_EQ(moved(), Moved{});
  EXPECT_THAT(kernel_->learned(), ::testing::IsEmpty());
}

// ---- on which link ----

TEST_F(DnsPacketTest, LinksThatAreNotTheServersAreNotBelieved) {
  const Moved untrusted{{EGRESSD_DNS_NOT_TRUSTED_LINK, 1}};
  const auto refused = [&](const char* what) {
    SCOPED_TRACE(what);
    ASSERT_EQ(out(question()), kPassed);
    moved();
    EXPECT_EQ(in(answer()), kPassed);
    EXPECT_EQ(moved(), untrusted);
    EXPECT_THAT(kernel_->learned(), ::testing::IsEmpty());
  };
  kernel_->trust_server(address_of(kServer4), EGRESSD_DNS_LINK_LOOPBACK);
  refused("a server on loopback, an uplink");
  kernel_->trust_server(address_of(kServer4), EGRESSD_DNS_LINK_UPLINK);
  kernel_->io().netns = DNS_TEST_NETNS + 1;
  refused("lo of another namespace");
  kernel_->io().netns = 0;
  EXPECT_EQ(in(answer()), kPassed);
  EXPECT_EQ(kernel_->learned().size(), 1U);
  kernel_->forget();
  kernel_->trust_nobody();
  kernel_->trust_server(address_of(kServer4), EGRESSD_DNS_LINK_UPLINK | EGRESSD_DNS_LINK_POD);
  refused("lo without an entry, even of the host's own namespace");
}

// The caller has just made a user namespace: without this its programs have no rights there.
bool be_root_inside() {
  const int map = ::open("/proc/self/uid_map", O_WRONLY | O_CLOEXEC);
  const bool done = map >= 0 && ::write(map, "0 0 1", 5) == 5;
  ::close(map);
  return done;
}

// Runs `work` in a network namespace with a device eg0; of_user: one that belongs to a user
// namespace of its own, as `unshare -Urn` makes it.
template <typename Work>
void in_namespace(bool of_user, const Work& work) {
  const int own = ::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
  ASSERT_GE(own, 0);
  int ready[2];
  int end[2];
  ASSERT_EQ(::pipe2(ready, O_CLOEXEC), 0);
  ASSERT_EQ(::pipe2(end, O_CLOEXEC), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::close(end[1]);
    const bool made =
        ::unshare(of_user ? CLONE_NEWUSER | CLONE_NEWNET : CLONE_NEWNET) == 0 &&
        (!of_user || be_root_inside()) &&
        ::system("ip link add eg0 type veth peer name eg1 2>/dev/null") == 0;  // NOLINT
    char byte = made ? 'y' : 'n';
    if (::write(ready[1], &byte, 1) != 1 || ::read(end[0], &byte, 1) < 0) {
      ::_exit(1);
    }
    ::_exit(0);
  }
  char byte = 'n';
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  if (byte == 'y') {
    const int ns =
        ::open(("/proc/" + std::to_string(child) + "/ns/net").c_str(), O_RDONLY | O_CLOEXEC);
    ASSERT_EQ(::setns(ns, CLONE_NEWNET), 0);
    ::close(ns);
    work(::if_nametoindex("eg0"));
    EXPECT_EQ(::setns(own, CLONE_NEWNET), 0);
  }
  for (const int fd : {own, ready[0], ready[1], end[0], end[1]}) {
    ::close(fd);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (byte != 'y') {
    GTEST_SKIP() << "namespaces cannot be made here";
  }
}

TEST_F(DnsPacketTest, ANamespaceOfTheHostsIsAPodAndAUsersOwnIsNot) {
  kernel_->trust_server(address_of(kServer4), EGRESSD_DNS_LINK_POD);
  kernel_->io().netns = DNS_TEST_OWN_NETNS;
  for (const bool of_user : {false, true}) {
    SCOPED_TRACE(of_user);
    in_namespace(of_user, [&](std::uint32_t device) {
      ASSERT_GT(device, kLo);
      kernel_->device(device);
      ASSERT_EQ(out(question()), kPassed);
      moved();
      EXPECT_EQ(in(answer()), kPassed);
      if (of_user) {
        EXPECT_EQ(moved(), (Moved{{EGRESSD_DNS_NOT_TRUSTED_LINK, 1}}));
        EXPECT_THAT(kernel_->learned(), ::testing::IsEmpty());
      } else {
        EXPECT_EQ(moved(), (Moved{{EGRESSD_DNS_LEARNED, 1}, {EGRESSD_DNS_ADDR_NEW, 1}}));
        kernel_->forget();
        // Another of its devices than the question left by, as whoever forges the server's address
        // would use.
        const auto other = ::if_nametoindex("eg1");
        ASSERT_EQ(out(question()), kPassed);
        moved();
        kernel_->device(other);
        EXPECT_EQ(in(answer()), kPassed);
        EXPECT_EQ(moved(), (Moved{{EGRESSD_DNS_NOT_TRUSTED_LINK, 1}}));
        EXPECT_THAT(kernel_->learned(), ::testing::IsEmpty());
        kernel_->device(device);
        EXPECT_EQ(in(answer()), kPassed);
        EXPECT_EQ(kernel_->learned().size(), 1U);
        kernel_->forget();
        // The same namespace, over lo.
        kernel_->device(0);
        ASSERT_EQ(out(question()), kPassed);
        moved();
        EXPECT_EQ(in(answer()), kPassed);
        EXPECT_EQ(moved(), (Moved{{EGRESSD_DNS_NOT_TRUSTED_LINK, 1}}));
      }
    });
    kernel_->device(0);
    kernel_->forget();
  }
}

// ---- answers that are not whole ----

TEST_F(DnsPacketTest, BrokenAnswerPacketsTeachNothing) {
  const Moved cut{{EGRESSD_DNS_SHORT, 1}};
  DnsPacket p = answer();
  p.udp_length_off = 1;
  not_believed(p, cut, "UDP length past the end");
  p.udp_length_off = 1000;
  not_believed(p, cut, "UDP length far past the end");
  p.udp_length_off = -static_cast<int>(p.payload.size());
  not_believed(p, cut, "UDP length of an empty datagram");
  p.udp_length_off = -8 - static_cast<int>(p.payload.size());
  not_believed(p, cut, "UDP length 0");
  p = answer();
  p.payload.resize(11);
  not_believed(p, cut, "shorter than a DNS header");
  p = answer();
  p.udp_length_off = -1;
  not_believed(p, {{EGRESSD_DNS_BAD_RECORD, 1}}, "UDP length that cuts the last record");
  p = answer();
  p.payload.resize(12);
  not_believed(p, {{EGRESSD_DNS_BAD_QUESTION, 1}}, "a header alone");
  // Cut anywhere, transport header included.
  const auto whole = answer().bytes();
  for (std::size_t size = 20; size < whole.size(); ++size) {
    ASSERT_EQ(out(question()), kPassed);
    EXPECT_EQ(kernel_->in({whole.data(), size}), kPassed) << size;
    EXPECT_THAT(kernel_->learned(), ::testing::IsEmpty()) << size;
  }
  EXPECT_EQ(kernel_->in(whole), kPassed);
  EXPECT_EQ(kernel_->learned().size(), 1U);
}

TEST_F(DnsPacketTest, BytesBehindTheDatagramAreNotPartOfIt) {
  auto packet = answer().bytes();
  packet.resize(packet.size() + 30, 0xff);
  ASSERT_EQ(out(question()), kPassed);
  EXPECT_EQ(kernel_->in(packet), kPassed);
  EXPECT_EQ(kernel_->learned().size(), 1U);
}

TEST_F(DnsPacketTest, FragmentsAndOptionsTeachNothing) {
  DnsPacket p = answer();
  p.fragment = 0x2000;
  not_believed(p, {}, "a first fragment");
  p.fragment = 185;
  not_believed(p, {}, "a later fragment");
  p.fragment = 0x4000;  // don't fragment: no fragment
  ASSERT_EQ(out(question()), kPassed);
  EXPECT_EQ(in(p), kPassed);
  EXPECT_EQ(kernel_->learned().size(), 1U);
  kernel_->forget();
  auto options = answer().bytes();
  options[0] = 0x46;
  const std::vector<std::uint8_t> nop{1, 1, 1, 0};
  options.insert(options.begin() + 20, nop.begin(), nop.end());
  ASSERT_EQ(out(question()), kPassed);
  moved();
  EXPECT_EQ(kernel_->in(options), kPassed);
  EXPECT_EQ(moved(), Moved{});
  EXPECT_THAT(kernel_->learned(), ::testing::IsEmpty());
}

TEST_F(DnsPacketTest, AnswersBehindExtensionHeadersTeachNothing) {
  const std::vector<std::uint8_t> padding{0, 0, 1, 4, 0, 0, 0, 0};
  for (const std::uint8_t type : std::initializer_list<std::uint8_t>{0, 43, 44, 51, 60}) {
    SCOPED_TRACE(static_cast<int>(type));
    DnsPacket p = answer(true);
    p.extension = padding;
    p.extension_type = type;
    ASSERT_EQ(out(question(true)), kPassed);
    moved();
    EXPECT_EQ(in(p), kPassed);
    EXPECT_EQ(moved(), Moved{});
    EXPECT_THAT(kernel_->learned(), ::testing::IsEmpty());
    EXPECT_EQ(in(answer(true)), kPassed);
    EXPECT_EQ(kernel_->learned().size(), 1U);
    kernel_->forget();
  }
}

// ---- questions ----

TEST_F(DnsPacketTest, QuestionsThatCannotBeSeenWholeDoNotLeave) {
  const Moved bad{{EGRESSD_DNS_DENIED_MALFORMED, 1}};
  DnsPacket p = question();
  for (const int off : {-1, 1, 1000, -static_cast<int>(p.payload.size())}) {
    p.udp_length_off = off;
    not_asked(p, bad, "wrong UDP length");
  }
  p = question();
  p.payload.clear();
  not_asked(p, bad, "an empty datagram");
  p = question();
  p.fragment = 0x2000;
  not_asked(p, bad, "a first fragment");
  p.fragment = 185;
  not_asked(p, bad, "a later fragment");
  p = question(true);
  p.extension = {0, 0, 1, 4, 0, 0, 0, 0};
  for (const std::uint8_t type : std::initializer_list<std::uint8_t>{0, 43, 44, 51, 60}) {
    p.extension_type = type;
    not_asked(p, bad, "behind an extension header");
  }
  const auto whole = question().bytes();
  for (std::size_t size = 20; size < whole.size(); ++size) {
    // Of fewer than 24 bytes the ports are not there: the packet verdict refuses these too.
    EXPECT_EQ(kernel_->out({whole.data(), size}), kDropped) << size;
  }
  moved();
  kernel_->segmentation_offload(600);
  EXPECT_EQ(out(question()), kDropped);
  EXPECT_EQ(moved(), bad);
  kernel_->segmentation_offload(0);
  EXPECT_EQ(out(question()), kPassed);
}

TEST_F(DnsPacketTest, NamesWithoutARuleDoNotLeaveAndAreReportedWithTheirServer) {
  DnsPacket p = question();
  p.payload = query("evil.test");
  kernel_->events();
  const auto reason = kernel_->reason_count(EGRESSD_DENY_DNS_NAME);
  not_asked(p, {{EGRESSD_DNS_DENIED_NAME, 1}}, "a name without a rule");
  EXPECT_EQ(kernel_->reason_count(EGRESSD_DENY_DNS_NAME), reason + 1);
  const auto events = kernel_->events();
  ASSERT_EQ(events.size(), 1U);
  egressd_dns_event e{};
  std::memcpy(&e, events[0].data(), sizeof(e));
  EXPECT_EQ(std::memcmp(&e.server, address_of(kServer4).addr, 16), 0);
  EXPECT_EQ(e.outcome, static_cast<__u32>(EGRESSD_DNS_DENIED_NAME));
  EXPECT_EQ(e.proto, IPPROTO_UDP);
  // Not the resolver, not the port: the packet verdict's business.
  p.to = "192.0.2.9";
  EXPECT_EQ(out(p), kPassed);
  p = question();
  p.payload = query("evil.test");
  p.dport = 54;
  EXPECT_EQ(out(p), kPassed);
  EXPECT_EQ(moved(), Moved{});
}

TEST_F(DnsPacketTest, TheFilterSaysWhatBecomesOfNamesWithoutARule) {
  auto config = kernel_->usual_config();
  DnsPacket p = question();
  p.payload = query("evil.test");
  config.filter = EGRESSD_DNS_FILTER_AUDIT;
  set_policy(config);
  EXPECT_EQ(out(p), kPassed);
  EXPECT_EQ(moved(), (Moved{{EGRESSD_DNS_WOULD_DENY, 1}}));
  config.filter = EGRESSD_DNS_FILTER_OFF;
  set_policy(config);
  EXPECT_EQ(out(p), kPassed);
  EXPECT_EQ(moved(), (Moved{{EGRESSD_DNS_UNFILTERED, 1}}));
  // Its answer grants nothing, and is told once. One that is broken is nobody's.
  DnsPacket a = answer();
  a.payload = reply("evil.test");
  DnsPacket broken = a;
  broken.payload.resize(broken.payload.size() - 2);
  EXPECT_EQ(in(broken), kPassed);
  EXPECT_EQ(moved(), (Moved{{EGRESSD_DNS_BAD_RECORD, 1}}));
  EXPECT_EQ(in(a), kPassed);
  EXPECT_EQ(moved(), (Moved{{EGRESSD_DNS_OBSERVED, 1}}));
  EXPECT_EQ(in(a), kPassed);
  EXPECT_EQ(moved(), (Moved{{EGRESSD_DNS_NOT_ASKED, 1}}));
  EXPECT_THAT(kernel_->learned(), ::testing::IsEmpty());
  // Not of what did not leave.
  config.filter = EGRESSD_DNS_FILTER_ENFORCE;
  set_policy(config);
  EXPECT_EQ(out(p), kDropped);
  moved();
  EXPECT_EQ(in(a), kPassed);
  EXPECT_EQ(moved(), (Moved{{EGRESSD_DNS_NOT_ASKED, 1}}));
}

TEST_F(DnsPacketTest, WhatLeftWithoutARuleIsLearnedIfItHasOneByNow) {
  auto config = kernel_->usual_config();
  config.filter = EGRESSD_DNS_FILTER_AUDIT;
  set_policy(config);
  DnsPacket p = question();
  p.payload = query("evil.test");
  EXPECT_EQ(out(p), kPassed);
  const std::vector<enforce::NamePattern> with_it{{"evil.test", 9, false}};
  kernel_->set_policy(with_it, config, 0, 2);
  moved();
  DnsPacket a = answer();
  a.payload = reply("evil.test");
  EXPECT_EQ(in(a), kPassed);
  EXPECT_EQ(moved(), (Moved{{EGRESSD_DNS_LEARNED, 1}, {EGRESSD_DNS_ADDR_NEW, 1}}));
}

}  // namespace
}  // namespace egressd::test
