// DNS over TCP: however a stream is cut, sent twice or out of order, it teaches what its messages
// teach, no sooner than they are whole and no later than their last byte is delivered; and no
// question leaves that may not.
// EGRESSD_DNS_FUZZ_COUNT: a thousandth of it instead of kRounds, from another place each time.
#include <cstdio>
#include <cstdlib>
#include <random>
#include <set>

#include "tests/bpf/dns_packet_fixture.h"

namespace egressd::test {
namespace {

constexpr std::uint8_t kSyn = 0x02;
constexpr std::uint8_t kAck = 0x10;
constexpr long kRounds = 5000;  // about 5 s for each direction
// A test run takes no larger packet.
constexpr std::size_t kSegmentMax = 3000;
// Of messages in one segment; resolvers send no more than a few.
constexpr std::size_t kMessagesMax = 30;

using Message = std::vector<std::uint8_t>;

class DnsStreamTest : public DnsPacketTest {
 protected:
  void SetUp() override {
    DnsPacketTest::SetUp();
    if (kernel_ == nullptr) {
      return;
    }
    const char* wish = std::getenv("EGRESSD_DNS_FUZZ_COUNT");
    rounds_ = wish != nullptr ? std::atol(wish) / 1000 + 1 : kRounds;
    const unsigned seed = wish != nullptr ? std::random_device{}() : 42;
    random_.seed(seed);
    std::printf("seed %u\n", seed);
    open();
  }

  // A new connection; sequence numbers soon pass 2^32.
  void open() {
    kernel_->new_stream();
    out_next_ = 0xffffff00;
    in_next_ = 0xfffff000;
    ASSERT_EQ(kernel_->out(client(out_next_, {}, kSyn)), kPassed);
    ++out_next_;
    ASSERT_EQ(kernel_->in(server(in_next_, {}, kSyn | kAck)), kPassed);
    ++in_next_;
  }

  static Message client(std::uint32_t sequence, Message payload, std::uint8_t flags = 0x18) {
    return DnsPacket{.from = kClient4,
                     .to = kServer4,
                     .sport = 40000,
                     .dport = 53,
                     .protocol = 6,
                     .payload = std::move(payload),
                     .sequence = sequence,
                     .flags = flags}
        .bytes();
  }
  Message server(std::uint32_t sequence, Message payload, std::uint8_t flags = 0x18) const {
    return DnsPacket{.from = kServer4,
                     .to = kClient4,
                     .sport = 53,
                     .dport = 40000,
                     .protocol = 6,
                     .payload = std::move(payload),
                     .sequence = sequence,
                     .acknowledged = out_next_,
                     .flags = flags}
        .bytes();
  }
  static Message framed(const Message& m) {
    Message all{static_cast<std::uint8_t>(m.size() >> 8),
                static_cast<std::uint8_t>(m.size() & 0xff)};
    all.insert(all.end(), m.begin(), m.end());
    return all;
  }
  static Message part(const Message& stream, std::size_t from, std::size_t to) {
    return {stream.begin() + static_cast<std::ptrdiff_t>(from),
            stream.begin() + static_cast<std::ptrdiff_t>(to)};
  }

  std::size_t pick(std::size_t n) { return static_cast<std::size_t>(random_() % n); }

  // Length of the next segment: mostly small or as large as it gets, never with more than
  // kMessagesMax of the messages that end at `ends`.
  std::size_t next_size(std::size_t at, std::size_t total, const std::vector<std::size_t>& ends) {
    static constexpr std::size_t kSizes[] = {1, 3, 20, 200, 1400, kSegmentMax};
    std::size_t size = std::min(1 + pick(kSizes[pick(std::size(kSizes))]), total - at);
    const auto first = std::upper_bound(ends.begin(), ends.end(), at);
    if (ends.end() - first > static_cast<std::ptrdiff_t>(kMessagesMax)) {
      size = std::min(size, first[kMessagesMax] - at);
    }
    return size;
  }

  std::mt19937_64 random_;
  long rounds_ = 0;
  std::uint32_t out_next_ = 0;
  std::uint32_t in_next_ = 0;
};

TEST_F(DnsStreamTest, AnswerIsLearnedWithItsLastByteAndNotBefore) {
  const auto stream = framed(reply());
  ASSERT_EQ(out(question()), kPassed);
  for (std::size_t i = 0; i < stream.size(); ++i) {
    EXPECT_THAT(kernel_->learned(), ::testing::IsEmpty()) << i;
    EXPECT_EQ(kernel_->in(server(in_next_ + static_cast<std::uint32_t>(i), {stream[i]})), kPassed);
  }
  EXPECT_EQ(kernel_->learned().size(), 1U);
}

TEST_F(DnsStreamTest, EarlySegmentsWaitForThoseBefore) {
  const auto stream = framed(reply());
  ASSERT_EQ(out(question()), kPassed);
  moved();
  EXPECT_EQ(kernel_->in(server(in_next_ + 20, part(stream, 20, stream.size()))), kDropped);
  EXPECT_EQ(moved(), (Moved{{EGRESSD_DNS_STREAM_HELD, 1}}));
  EXPECT_EQ(kernel_->in(server(in_next_, part(stream, 0, 20))), kPassed);
  EXPECT_EQ(kernel_->in(server(in_next_ + 20, part(stream, 20, stream.size()))), kPassed);
  EXPECT_EQ(kernel_->learned().size(), 1U);
}

TEST_F(DnsStreamTest, SegmentsThatComeWhileOneIsReadAreSentAgain) {
  ASSERT_EQ(out(question()), kPassed);
  moved();
  kernel_->io().stream_busy = 1;
  EXPECT_EQ(kernel_->in(server(in_next_, framed(reply()))), kDropped);
  EXPECT_EQ(moved(), (Moved{{EGRESSD_DNS_STREAM_HELD, 1}}));
  kernel_->io().stream_busy = 2;
  EXPECT_EQ(kernel_->in(server(in_next_, framed(reply()))), kPassed);
  EXPECT_EQ(kernel_->learned().size(), 1U);
}

TEST_F(DnsStreamTest, StreamsWithoutABeginningTeachNothing) {
  const auto lost = [&](const char* what) {
    SCOPED_TRACE(what);
    ASSERT_EQ(out(question()), kPassed);
    moved();
    EXPECT_EQ(kernel_->in(server(in_next_, framed(reply()))), kPassed);
    EXPECT_EQ(moved(), (Moved{{EGRESSD_DNS_STREAM_LOST, 1}}));
    EXPECT_THAT(kernel_->learned(), ::testing::IsEmpty());
  };
  kernel_->new_stream();
  lost("a connection older than the programs");
  ASSERT_EQ(kernel_->out(client(7, {}, kSyn)), kPassed);
  lost("no SYN of the resolver's");
  ASSERT_EQ(kernel_->in(server(in_next_ - 1, {}, kSyn)), kPassed);
  lost("a SYN without ACK");
  ASSERT_EQ(kernel_->in(server(in_next_ - 1, {}, kSyn | kAck)), kPassed);
  lost("an answer to another SYN than ours");  // that one's sequence number was 7
  open();
  kernel_->io().sock.type = SOCK_RAW;
  lost("a raw socket");
  kernel_->io().sock.type = SOCK_STREAM;
  kernel_->io().sock.protocol = 262;  // MPTCP
  lost("another protocol");
  kernel_->io().sock.protocol = IPPROTO_TCP;
  EXPECT_EQ(kernel_->in(server(in_next_, framed(reply()))), kPassed);
  EXPECT_EQ(kernel_->learned().size(), 1U);
}

TEST_F(DnsStreamTest, TrustIsAskedForOverTcpAsOverUdp) {
  const auto refused = [&](const Message& packet, std::uint32_t outcome, const char* what) {
    SCOPED_TRACE(what);
    ASSERT_EQ(out(question()), kPassed);
    moved();
    EXPECT_EQ(kernel_->in(packet), kPassed);
    EXPECT_EQ(moved(), (Moved{{outcome, 1}}));
    EXPECT_THAT(kernel_->learned(), ::testing::IsEmpty());
  };
  const auto right = server(in_next_, framed(reply()));
  auto other = right;
  other[15] = 3;  // 192.0.2.3
  refused(other, EGRESSD_DNS_NOT_TRUSTED_SERVER, "another server");
  kernel_->io().netns = DNS_TEST_NETNS + 1;
  refused(right, EGRESSD_DNS_NOT_TRUSTED_LINK, "another namespace");
  kernel_->io().netns = 0;
  kernel_->io().cookie = DNS_TEST_COOKIE + 1;
  ASSERT_EQ(kernel_->in(server(in_next_, framed(reply()))), kPassed);
  EXPECT_THAT(kernel_->learned(), ::testing::IsEmpty());
  kernel_->io().cookie = 0;
  in_next_ += static_cast<std::uint32_t>(framed(reply()).size());
  EXPECT_EQ(kernel_->in(server(in_next_, framed(reply()))), kPassed);
  EXPECT_EQ(kernel_->learned().size(), 1U);
}

TEST_F(DnsStreamTest, HeadersThatLieTeachNothing) {
  for (const std::uint8_t words : std::initializer_list<std::uint8_t>{0, 4, 15}) {
    ASSERT_EQ(out(question()), kPassed);
    DnsPacket p{.from = kServer4,
                .to = kClient4,
                .sport = 53,
                .dport = 40000,
                .protocol = 6,
                .payload = framed(reply()),
                .sequence = in_next_};
    p.payload.resize(words == 15 ? 30 : p.payload.size());
    p.tcp_words = words;
    EXPECT_EQ(in(p), kPassed);
    EXPECT_THAT(kernel_->learned(), ::testing::IsEmpty()) << static_cast<int>(words);
    p = question();
    p.protocol = 6;
    p.sequence = out_next_;
    p.payload = framed(query());
    p.payload.resize(words == 15 ? 30 : p.payload.size());
    p.tcp_words = words;
    moved();
    EXPECT_EQ(out(p), kDropped);
    EXPECT_EQ(moved(), (Moved{{EGRESSD_DNS_DENIED_MALFORMED, 1}}));
  }
  EXPECT_EQ(kernel_->in(server(in_next_, framed(reply()))), kPassed);
  EXPECT_EQ(kernel_->learned().size(), 1U);
}

TEST_F(DnsStreamTest, AnswersThatAreTooLongAreReportedAndTheNextIsLearned) {
  Message large = reply();
  large.resize(EGRESSD_DNS_MSG_MAX + 1);
  Message stream = framed(large);
  const auto next = framed(reply("a.example.net", kId + 1, kPublic + 1));
  stream.insert(stream.end(), next.begin(), next.end());
  ASSERT_EQ(out(question()), kPassed);
  auto p = question();
  p.payload = query("a.example.net", kId + 1);
  ASSERT_EQ(out(p), kPassed);
  moved();
  kernel_->events();
  for (std::size_t at = 0; at < stream.size(); at += 1000) {
    ASSERT_EQ(kernel_->in(server(in_next_ + static_cast<std::uint32_t>(at),
                                 part(stream, at, std::min(at + 1000, stream.size())))),
              kPassed);
  }
  EXPECT_EQ(
      moved(),
      (Moved{{EGRESSD_DNS_TOO_LARGE, 1}, {EGRESSD_DNS_LEARNED, 1}, {EGRESSD_DNS_ADDR_NEW, 1}}));
  const auto events = kernel_->events();
  ASSERT_EQ(events.size(), 2U);
  egressd_dns_event e{};
  std::memcpy(&e, events[0].data(), sizeof(e));
  EXPECT_EQ(e.kind, static_cast<__u32>(EGRESSD_DNS_EVENT_TOO_LARGE));
  EXPECT_EQ(e.proto, IPPROTO_TCP);
  // What the agent needs: the question.
  EXPECT_EQ(std::memcmp(events[0].data() + sizeof(e), large.data(), 40), 0);
}

TEST_F(DnsStreamTest, QuestionsWithoutStateOrWithDataInTheirSynDoNotLeave) {
  moved();
  EXPECT_EQ(kernel_->out(client(out_next_ - 1, framed(query()), kSyn)), kDropped);
  EXPECT_EQ(moved(), (Moved{{EGRESSD_DNS_DENIED_STREAM, 1}}));
  EXPECT_EQ(kernel_->out(client(out_next_ + 1, framed(query()))), kDropped);  // a hole before it
  EXPECT_EQ(moved(), (Moved{{EGRESSD_DNS_DENIED_STREAM, 1}}));
  kernel_->io().sock.type = SOCK_RAW;
  EXPECT_EQ(kernel_->out(client(out_next_, framed(query()))), kDropped);
  EXPECT_EQ(moved(), (Moved{{EGRESSD_DNS_DENIED_STREAM, 1}}));
  kernel_->io().sock.type = SOCK_STREAM;
  EXPECT_EQ(kernel_->out(client(out_next_, framed(query()))), kPassed);
  EXPECT_EQ(moved(), (Moved{{EGRESSD_DNS_ASKED, 1}}));
  kernel_->new_stream();
  EXPECT_EQ(kernel_->out(client(out_next_, framed(query()))), kDropped);
  EXPECT_EQ(moved(), (Moved{{EGRESSD_DNS_DENIED_STREAM, 1}}));
}

TEST_F(DnsStreamTest, QuestionsThatAreTooLongDoNotLeave) {
  Message large = query();
  large.resize(EGRESSD_DNS_TCP_QUERY_MAX);
  EXPECT_EQ(kernel_->out(client(out_next_, framed(large))), kPassed);
  out_next_ += static_cast<std::uint32_t>(large.size() + 2);
  large.resize(EGRESSD_DNS_TCP_QUERY_MAX + 1);
  moved();
  EXPECT_EQ(kernel_->out(client(out_next_, framed(large))), kDropped);
  EXPECT_EQ(moved(), (Moved{{EGRESSD_DNS_DENIED_MALFORMED, 1}}));
  EXPECT_EQ(kernel_->out(client(out_next_, framed(query()))), kPassed);
}

TEST_F(DnsStreamTest, AnswersTeachTheSameHoweverTheStreamIsCut) {
  long segments = 0;
  long held = 0;
  long messages = 0;
  long taught = 0;
  std::uint32_t number = 0;            // names are never used again, ids are
  std::uint32_t address = 0x14000000;  // 20.0.0.0
  for (long round = 0; round < rounds_; ++round) {
    open();
    Message stream;
    std::vector<std::size_t> ends;
    std::vector<std::set<std::uint32_t>> teaches;  // by message
    Message earlier;
    for (std::size_t left = 1 + pick(pick(8) == 0 ? 60 : 12); left > 0; --left) {
      const std::string name = "n" + std::to_string(++number) + ".example.net";
      const auto id = static_cast<std::uint16_t>(number);
      const auto records = static_cast<std::uint16_t>(1 + pick(8));
      const auto kind = pick(10);
      DnsMessage m;
      m.header(id, kOk, 1, records).question(name);
      std::set<std::uint32_t> lesson;
      for (int i = 0; i < records; ++i) {
        m.pointer(12).a(60, ++address);
        lesson.insert(address);
      }
      Message bytes = m.bytes();
      if (kind != 0) {
        auto p = question();
        p.payload = query(name, id);
        ASSERT_EQ(out(p), kPassed);
      }
      switch (kind) {
        case 0:  // nobody asked
          lesson.clear();
          break;
        case 1:  // broken
          bytes.resize(bytes.size() - 1 - pick(10));
          lesson.clear();
          break;
        case 2:  // as long as can be
          bytes.resize(EGRESSD_DNS_MSG_MAX);
          break;
        case 3:  // longer
          bytes.resize(EGRESSD_DNS_MSG_MAX + 1 + pick(EGRESSD_DNS_MSG_MAX));
          lesson.clear();
          break;
        case 4:
          bytes.clear();
          lesson.clear();
          break;
        case 5:  // a second time
          if (!earlier.empty()) {
            bytes = earlier;
            lesson.clear();
          }
          break;
        default:
          earlier = bytes;
      }
      const auto frame = framed(bytes);
      stream.insert(stream.end(), frame.begin(), frame.end());
      ends.push_back(stream.size());
      teaches.push_back(std::move(lesson));
      ++messages;
    }
    std::set<std::uint32_t> want;
    std::size_t whole = 0;
    std::vector<std::pair<std::array<std::uint8_t, 16>, egressd_learned>> taken;
    std::size_t at = 0;
    const auto sequence = [&](std::size_t offset) {
      return in_next_ + static_cast<std::uint32_t>(offset);
    };
    while (at < stream.size()) {
      const std::size_t size = next_size(at, stream.size(), ends);
      // What the network does to streams, before the segment that is due.
      switch (pick(8)) {
        case 0:
          if (at + size < stream.size()) {
            const std::size_t gap = at + 1 + pick(stream.size() - at - 1);
            const std::size_t end = std::min(gap + size, stream.size());
            ASSERT_EQ(kernel_->in(server(sequence(gap), part(stream, gap, end))), kDropped);
            ++held;
          }
          break;
        case 1: {
          const std::size_t from = at - std::min(at, pick(kSegmentMax));
          ASSERT_EQ(kernel_->in(server(sequence(from), part(stream, from, at))), kPassed);
          break;
        }
        case 2:
          ASSERT_EQ(kernel_->in(server(sequence(at), {}, kAck)), kPassed);
          break;
        default:
          break;
      }
      const std::size_t from =
          pick(8) == 0 ? at - std::min({at, pick(200), kSegmentMax - size}) : at;
      kernel_->take_learned(taken);
      ASSERT_TRUE(taken.empty()) << "round " << round << ": taught before its turn";
      ASSERT_EQ(kernel_->in(server(sequence(from), part(stream, from, at + size))), kPassed);
      at += size;
      ++segments;
      want.clear();
      for (; whole < ends.size() && ends[whole] <= at; ++whole) {
        want.insert(teaches[whole].begin(), teaches[whole].end());
      }
      kernel_->take_learned(taken);
      std::set<std::uint32_t> got;
      for (const auto& [key, value] : taken) {
        std::uint32_t word = 0;
        std::memcpy(&word, key.data() + 12, 4);
        got.insert(ntohl(word));
      }
      ASSERT_EQ(got, want) << "round " << round << ", at " << at << " of " << stream.size();
      taught += static_cast<long>(got.size());
    }
    kernel_->events();
  }
  std::printf("%ld streams, %ld messages, %ld segments, %ld held; %ld addresses taught\n", rounds_,
              messages, segments, held, taught);
  EXPECT_GT(held, rounds_ / 10);
  EXPECT_GT(taught, rounds_);
}

TEST_F(DnsStreamTest, NoForbiddenQuestionLeavesHoweverTheStreamIsCut) {
  long refused = 0;
  std::uint16_t id = 0;
  for (long round = 0; round < rounds_; ++round) {
    open();
    Message stream;
    std::vector<std::size_t> ends;
    std::size_t forbidden = 0;  // where the one that may not leave ends; 0: there is none
    const std::size_t count = 1 + pick(pick(8) == 0 ? 60 : 12);
    const std::size_t bad = pick(2) == 0 ? pick(count) : count;
    for (std::size_t i = 0; i < count; ++i) {
      const std::string name =
          "n" + std::to_string(++id) + (i == bad ? ".evil.test" : ".example.net");
      const auto frame = framed(query(name, id));
      stream.insert(stream.end(), frame.begin(), frame.end());
      ends.push_back(stream.size());
      if (i == bad) {
        forbidden = stream.size();
      }
    }
    std::size_t at = 0;
    int tries = 0;
    moved();
    while (at < stream.size() && tries < 5) {
      const std::size_t size = next_size(at, stream.size(), ends);
      if (pick(8) == 0) {
        const std::size_t from = at - std::min(at, pick(500));
        ASSERT_EQ(kernel_->out(
                      client(out_next_ + static_cast<std::uint32_t>(from), part(stream, from, at))),
                  kPassed);
      }
      if (pick(8) == 0 && at + size < stream.size()) {
        ASSERT_EQ(kernel_->out(client(out_next_ + static_cast<std::uint32_t>(at + size),
                                      part(stream, at + size, stream.size()))),
                  kDropped);
      }
      const std::size_t from = pick(8) == 0 ? at - std::min(at, pick(200)) : at;
      const int verdict = kernel_->out(
          client(out_next_ + static_cast<std::uint32_t>(from), part(stream, from, at + size)));
      const bool completes = forbidden != 0 && at + size >= forbidden;
      ASSERT_EQ(verdict, completes ? kDropped : kPassed)
          << "round " << round << ", " << at << "+" << size << " of " << stream.size();
      if (verdict == kPassed) {
        at += size;
      } else {
        ++tries;  // as the stack would: again, cut elsewhere
        ++refused;
      }
    }
    ASSERT_EQ(at == stream.size(), forbidden == 0);
    // Every question that left whole may be answered.
    const auto outcomes = moved();
    const auto left =
        static_cast<std::size_t>(std::upper_bound(ends.begin(), ends.end(), at) - ends.begin());
    const auto asked = outcomes.find(EGRESSD_DNS_ASKED);
    ASSERT_GE(asked == outcomes.end() ? 0 : asked->second, left);
    kernel_->events();
  }
  std::printf("%ld streams, %ld segments refused\n", rounds_, refused);
  EXPECT_GT(refused, rounds_);
}

}  // namespace
}  // namespace egressd::test
