// What becomes of refusals in the kernel: an event for the first, a count for those after it, and
// a loss where there is room for neither; none is forgotten and none told twice. And break-glass.

#include <bpf/bpf.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <map>
#include <thread>

#include "audit/event_reader.h"
#include "enforce/break_glass.h"
#include "kernel_fixture.h"

namespace egressd::test {
namespace {

using net::IpAddress;

constexpr int kPass = 1;
constexpr int kDrop = 0;

class RecordTest : public KernelTest {
 protected:
  void SetUp() override {
    KernelTest::SetUp();
    if (IsSkipped()) return;
    enforce::RuleSet rules;
    rules.generation = 1;
    rules.enforce = true;
    ASSERT_TRUE(backend_->apply(rules));
    auto reader = audit::EventReader::open(backend_->events_fd(),
                                           [this](const egressd_event&) { ++events_; });
    ASSERT_TRUE(reader) << reader.error().message;
    reader_ = std::move(*reader);
    moved();
  }
  static std::vector<std::uint8_t> packet(std::uint32_t destination, std::uint16_t port = 443) {
    PacketSpec spec;
    spec.source = *IpAddress::parse("192.0.2.2");
    spec.destination = IpAddress::v4(destination);
    spec.destination_port = port;
    return make_packet(spec);
  }
  // What was counted since the last call.
  std::vector<egressd_tally> drain() {
    std::vector<egressd_tally> all;
    const auto r = backend_->drain_tally([&](const egressd_tally& t) { all.push_back(t); });
    EXPECT_TRUE(r) << r.error().message;
    return all;
  }
  std::uint64_t read_events() {
    const auto before = events_;
    for (;;) {
      const auto n = reader_->poll();
      EXPECT_TRUE(n);
      if (!n || *n == 0) return events_ - before;
    }
  }

  std::uint64_t events_ = 0;
  std::unique_ptr<audit::EventReader> reader_;
};

constexpr std::uint32_t kTestNet = 0xc6336400;  // 198.51.100.0

TEST_F(RecordTest, TheFirstIsAnEventTheRestAreCounted) {
  const auto one = packet(kTestNet + 1);
  const auto two = packet(kTestNet + 2);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(run("egressd_egress", one), kDrop);
  EXPECT_EQ(run("egressd_egress", two), kDrop);
  EXPECT_EQ(read_events(), 2u);
  auto counted = drain();
  ASSERT_EQ(counted.size(), 1u) << "nothing is counted of what happened once";
  EXPECT_EQ(counted[0].count, 4u);
  EXPECT_EQ(counted[0].bytes, 4 * (one.size() - 14)) << "from the IP header";
  EXPECT_EQ(counted[0].event.daddr.addr[15], 1);
  EXPECT_EQ(counted[0].event.reason, static_cast<__u32>(EGRESSD_DENY_DEFAULT));
  EXPECT_GE(counted[0].first_ns, counted[0].event.time_ns);
  EXPECT_GE(counted[0].last_ns, counted[0].first_ns);

  for (int i = 0; i < 3; ++i) run("egressd_egress", one);
  EXPECT_EQ(read_events(), 0u) << "what goes on is counted on";
  counted = drain();
  ASSERT_EQ(counted.size(), 1u);
  EXPECT_EQ(counted[0].count, 3u);
  EXPECT_TRUE(drain().empty());
  EXPECT_TRUE(drain().empty());
  run("egressd_egress", one);
  EXPECT_EQ(read_events(), 1u) << "and after a pause it is new";
}

TEST_F(RecordTest, OtherPortsReasonsAndModesAreNotTheSame) {
  run("egressd_egress", packet(kTestNet + 1, 443));
  run("egressd_egress", packet(kTestNet + 1, 444));
  enforce::RuleSet audit;
  audit.generation = 2;
  audit.enforce = false;
  ASSERT_TRUE(backend_->apply(audit));
  EXPECT_EQ(run("egressd_egress", packet(kTestNet + 1, 443)), kPass);
  EXPECT_EQ(read_events(), 3u);
  EXPECT_TRUE(drain().empty());
}

// More destinations than the tally and the ring hold, from every CPU, while both are read.
TEST_F(RecordTest, EveryRefusalIsInExactlyOnePlace) {
  constexpr std::uint32_t kDestinations = 40000;
  constexpr int kThreads = 3;
  constexpr int kRounds = 2;
  std::atomic<int> running{kThreads};
  std::vector<std::jthread> senders;
  const int program = program_fd("egressd_egress");
  for (int t = 0; t < kThreads; ++t)
    senders.emplace_back([&, t] {
      for (int round = 0; round < kRounds; ++round) {
        for (std::uint32_t i = 0; i < kDestinations; ++i) {
          // Every one several times, in another order on each thread.
          const auto p =
              packet(kTestNet + (i * (2 * static_cast<std::uint32_t>(t) + 7)) % kDestinations);
          LIBBPF_OPTS(bpf_test_run_opts, options);
          options.data_in = p.data();
          options.data_size_in = static_cast<__u32>(p.size());
          options.repeat = 5;
          EXPECT_EQ(::bpf_prog_test_run_opts(program, &options), 0);
        }
      }
      --running;
    });
  std::uint64_t counted = 0;
  int drained = 0;
  while (running > 0) {
    for (const auto& t : drain()) counted += t.count;
    ++drained;
    const auto n = reader_->poll(256);  // slower than they come
    ASSERT_TRUE(n);
  }
  senders.clear();
  read_events();
  for (int i = 0; i < 2; ++i)
    for (const auto& t : drain()) counted += t.count;
  std::uint64_t lost = 0;
  ASSERT_TRUE(backend_->drain_lost([&](std::uint32_t reason, std::uint64_t count) {
    EXPECT_EQ(reason, static_cast<std::uint32_t>(EGRESSD_DENY_DEFAULT));
    lost += count;
  }));
  const auto delta = moved();
  const std::uint64_t refused = delta.reasons[EGRESSD_DENY_DEFAULT];
  EXPECT_EQ(refused, std::uint64_t{kDestinations} * kThreads * kRounds * 5);
  EXPECT_EQ(events_ + counted + lost, refused)
      << events_ << " events, " << counted << " counted, " << lost << " lost";
  EXPECT_GT(counted, 0u);
  EXPECT_GT(lost, 0u) << "the ring was never full: this shows nothing of losses";
  EXPECT_GT(drained, 2);
  EXPECT_EQ(delta.stats[EGRESSD_STAT_EVENTS_SENT], events_);
  EXPECT_EQ(delta.stats[EGRESSD_STAT_EVENTS_LOST], lost);
  ASSERT_TRUE(backend_->drain_lost([](std::uint32_t, std::uint64_t) { FAIL() << "told twice"; }));
}

TEST_F(RecordTest, BreakGlassLetsPassAndEndsByItself) {
  const auto forbidden = packet(kTestNet + 1);
  EXPECT_EQ(run("egressd_egress", forbidden), kDrop);
  const auto now = SystemClock().now();
  const std::string reason(enforce::kMaxOpenReason - 1, 'x');
  ASSERT_TRUE(enforce::open_glass(bpffs_, {.since = now,
                                           .until = now + std::chrono::milliseconds(300),
                                           .uid = 1000,
                                           .reason = reason + "\xc3\xa4"}));
  moved();
  EXPECT_EQ(run("egressd_egress", forbidden), kPass);
  EXPECT_EQ(single_reason(), EGRESSD_ALLOW_OPEN);
  EXPECT_EQ(read_events(), 2u) << "what would have been refused is recorded";
  auto opening = enforce::find_opening(bpffs_, now);
  ASSERT_TRUE(opening && *opening);
  EXPECT_EQ((*opening)->reason, reason) << "cut at a character";
  EXPECT_EQ((*opening)->uid, 1000u);
  EXPECT_EQ(*backend_->opening(), **opening);
  while (SystemClock().now() < (*opening)->until) std::this_thread::yield();
  EXPECT_EQ(run("egressd_egress", forbidden), kDrop);
  EXPECT_EQ(single_reason(), EGRESSD_DENY_DEFAULT);

  ASSERT_TRUE(enforce::open_glass(bpffs_, {.since = now, .until = now + std::chrono::hours(1)}));
  EXPECT_EQ(run("egressd_egress", forbidden), kPass);
  opening = enforce::close_glass(bpffs_, now);
  ASSERT_TRUE(opening && *opening);
  EXPECT_EQ(run("egressd_egress", forbidden), kDrop);
  opening = enforce::close_glass(bpffs_, now);
  ASSERT_TRUE(opening);
  EXPECT_FALSE(*opening) << "it was closed";
}

}  // namespace
}  // namespace egressd::test
