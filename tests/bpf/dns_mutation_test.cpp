// Answers and questions, mutated: kernel and reference must take the same from each.
// EGRESSD_DNS_FUZZ_COUNT: how many instead of kCount, from another place each time.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "support/dns_message.h"
#include "tests/bpf/dns_compare.h"

namespace egressd::test {
namespace {

constexpr std::uint16_t kA = 1;
constexpr std::uint16_t kAaaa = 28;
constexpr std::uint16_t kId = 0x1234;
constexpr std::uint16_t kOk = 0x8180;
constexpr long kCount = 3'000'000;  // about 35 s
// Every address of the largest answer, and then some.
constexpr std::uint32_t kLearnedEntries = 512;

using Message = std::vector<std::uint8_t>;

class DnsMutationTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string why;
    kernel_ = DnsKernel::load(&why, kLearnedEntries);
    if (kernel_ == nullptr) {
      GTEST_SKIP() << why;
    }
    both_.emplace(*kernel_);
    // One name with one rule; one that may learn private addresses; one of two rules, of which one
    // may; a refused one; a search domain.
    both_->set_policy({{"www.example.org", 1, false},
                       {"private.test", 2, true},
                       {"a-*.both.test", 3, false},
                       {"*-b.both.test", 4, true},
                       {"*.both.test", 5, false},
                       {"no.both.test", EGRESSD_DNS_REFUSED, false},
                       {"*.search.test", EGRESSD_DNS_ASK_ONLY, false}});
    const char* wish = std::getenv("EGRESSD_DNS_FUZZ_COUNT");
    count_ = wish != nullptr ? std::atol(wish) : kCount;
    const unsigned seed = wish != nullptr ? std::random_device{}() : 42;
    random_.seed(seed);
    std::printf("seed %u\n", seed);
  }

  std::size_t pick(std::size_t n) { return static_cast<std::size_t>(random_() % n); }

  // Up to `most` edits, mostly behind `from`, where the parser's work is.
  void mutate(Message& m, std::size_t from, std::size_t most) {
    for (std::size_t edits = pick(most + 1); edits > 0; --edits) {
      const std::size_t where =
          pick(8) == 0 || m.size() <= from ? pick(m.size()) : from + pick(m.size() - from);
      const auto at = m.begin() + static_cast<std::ptrdiff_t>(where);
      switch (pick(9)) {
        case 0:
          m[where] ^= static_cast<std::uint8_t>(1U << pick(8));
          break;
        case 1:
          m[where] = static_cast<std::uint8_t>(random_());
          break;
        case 2:
          m[where] = static_cast<std::uint8_t>(0xc0 | pick(2));
          break;
        case 3:
          m[where] = static_cast<std::uint8_t>(pick(70));
          break;
        case 4:
          m.resize(where + 1);
          break;
        case 5:
          m.insert(at, static_cast<std::uint8_t>(random_()));
          break;
        case 6:
          m.erase(at);
          break;
        case 7: {
          const std::size_t begin = pick(m.size());
          const std::size_t size = std::min(pick(40), m.size() - begin);
          const Message part(m.begin() + static_cast<std::ptrdiff_t>(begin),
                             m.begin() + static_cast<std::ptrdiff_t>(begin + size));
          m.insert(at, part.begin(), part.end());
          break;
        }
        default:
          if (m.size() > 7) {
            m[7] = static_cast<std::uint8_t>(pick(24));
          }
      }
      if (m.empty()) {
        m.push_back(0);
      }
    }
  }

  std::unique_ptr<DnsKernel> kernel_;
  std::optional<DnsComparison> both_;
  std::mt19937_64 random_;
  long count_ = 0;
};

// Addresses of every kind the guard knows, at random.
void put_address(Message& to, std::uint16_t type, std::mt19937_64& random) {
  static const std::vector<Message> kFour{
      {203, 0, 113},   {198, 51, 100},     {10},     {172, 20}, {192, 168, 1}, {100, 100}, {127},
      {169, 254, 169}, {168, 63, 129, 16}, {224, 0}, {255, 255}};
  static const std::vector<Message> kSix{
      {0x2a, 0x00}, {0x20, 0x01, 0x0d, 0xb8}, {0xfd, 0}, {0xfe, 0x80},
      {0x20, 0x02}, {0x20, 0x01, 0, 0},       {0, 0},    {0xff, 0x02}};
  const auto& kinds = type == kA ? kFour : kSix;
  // Half of them public.
  const auto& start = kinds[random() % 2 == 0 ? random() % 2 : random() % kinds.size()];
  const std::size_t size = type == kA ? 4 : 16;
  for (std::size_t i = 0; i < size; ++i) {
    to.push_back(i < start.size() ? start[i] : static_cast<std::uint8_t>(random() % 3));
  }
}

struct Seed {
  Message question;
  Message answer;
};

Seed seed_of(const std::string& n, std::uint16_t type, int shape, std::mt19937_64& random) {
  const auto address = [&] {
    Message data;
    put_address(data, type, random);
    return data;
  };
  const auto ttl = [&] { return static_cast<std::uint32_t>(random() >> (32 + random() % 32)); };
  DnsMessage m;
  std::size_t at = 0;
  switch (shape) {
    case 0:
      m.header(kId, kOk, 1, 1).question(n, type).pointer(12).record(type, ttl(), address());
      break;
    case 1:  // a chain, compressed, with a signature in it
      m.header(kId, kOk, 1, 5).question(n, type).pointer(12).cname(ttl(), "a.cdn.test", &at);
      m.pointer(at).cname(ttl(), "b.cdn.test", &at);
      m.pointer(at).record(46, 9, std::vector<std::uint8_t>(20, 1));
      m.pointer(at).record(type, ttl(), address()).pointer(at).record(type, ttl(), address());
      break;
    case 2:  // the same without compression, backwards, with EDNS
      m.header(kId, kOk, 1, 4, 0, 1).question(n, type);
      m.name("Y.Test").record(type, ttl(), address()).name("y.test").record(type, 7, address());
      m.name("x.test").cname(8, "y.test").name(n).cname(9, "x.test");
      m.name("").record(41, 0, {}, 4096);
      break;
    default: {  // many, some of them twice
      const auto many = static_cast<std::uint16_t>(1 + random() % 30);
      m.header(kId, kOk, 1, many).question(n, type);
      for (int i = 0; i < many; ++i) {
        m.pointer(12).record(type, ttl(), address());
      }
    }
  }
  return {DnsMessage().header(kId, 0x0100, 1, 0).question(n, type).bytes(), m.bytes()};
}

const std::vector<std::string> kNames{"www.example.org", "private.test", "a-b.both.test",
                                      "q.a-b.both.test"};

TEST_F(DnsMutationTest, AnswersTeachTheKernelWhatTheReferenceReads) {
  std::map<DnsVerdict, long> seen;
  long taught = 0;
  long addresses = 0;
  Seed seed;
  std::size_t length = 0;
  const auto started = std::chrono::steady_clock::now();
  for (long i = 0; i < count_; ++i) {
    // A new question now and then: asking costs as much as answering.
    if (i % 16 == 0) {
      const auto& name = kNames[pick(kNames.size())];
      seed = seed_of(name, pick(2) == 0 ? kA : kAaaa, static_cast<int>(pick(4)), random_);
      length = seed.question.size();
      const auto differs = both_->ask(seed.question);
      ASSERT_EQ(differs, "") << hex_of(seed.question);
      ASSERT_TRUE(both_->asking());
    }
    Message m = seed.answer;
    mutate(m, length, 3);
    if (pick(50) == 0 && m.size() > 3) {
      m[2 + pick(2)] ^= static_cast<std::uint8_t>(1U << pick(8));
    }
    if (m.size() > EGRESSD_DNS_MSG_MAX) {
      continue;
    }
    const auto differs = both_->answer(m);
    ASSERT_EQ(differs, "") << hex_of(seed.question) << " " << hex_of(m);
    ++seen[both_->verdict()];
    taught += both_->learned() != 0 ? 1 : 0;
    addresses += static_cast<long>(both_->learned());
    if (i % 1000 == 0) {
      kernel_->events();
    }
  }
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - started;
  std::printf("%ld answers, %.0f per second; %ld taught %ld addresses; 0 differences\n", count_,
              static_cast<double>(count_) / spent.count(), taught, addresses);
  if (count_ >= 100'000) {
    for (int v = 0; v <= static_cast<int>(DnsVerdict::NoAddress); ++v) {
      EXPECT_GT(seen[static_cast<DnsVerdict>(v)], 20) << v;
    }
    EXPECT_GT(taught, count_ / 10);
  }
}

TEST_F(DnsMutationTest, QuestionsAreJudgedAsTheReferenceJudgesThem) {
  const std::vector<std::string> names{"www.example.org", "private.test",    "a-b.both.test",
                                       "a-.both.test",    "x.a-b.both.test", "no.both.test",
                                       "q.search.test",   "search.test",     "other.test"};
  const std::vector<std::uint16_t> types{kA, kAaaa, 5, 12, 16, 33, 65, 255};
  std::map<std::uint32_t, long> seen;
  const long count = count_ / 4;
  for (long i = 0; i < count; ++i) {
    const std::size_t extra = pick(2);
    DnsMessage q;
    q.header(kId, 0x0100, 1, 0, 0, static_cast<std::uint16_t>(extra));
    q.question(names[pick(names.size())], types[pick(4) == 0 ? pick(types.size()) : pick(2)]);
    if (extra != 0) {
      q.name("").record(41, 0, {}, 1232);
    }
    Message m = q.bytes();
    mutate(m, pick(3) == 0 ? 0 : 12, 2);
    if (pick(4) == 0) {
      auto& letter = m[pick(m.size())];
      if ((letter | 0x20) >= 'a' && (letter | 0x20) <= 'z') {
        letter ^= 0x20;
      }
    }
    const auto differs = both_->ask(m);
    ASSERT_EQ(differs, "") << hex_of(m);
    ++seen[both_->outcome()];
  }
  if (count >= 25'000) {
    for (const std::uint32_t outcome :
         {EGRESSD_DNS_ASKED, EGRESSD_DNS_ASKED_NO_GRANT, EGRESSD_DNS_DENIED_NAME,
          EGRESSD_DNS_DENIED_TYPE, EGRESSD_DNS_DENIED_MALFORMED}) {
      EXPECT_GT(seen[outcome], 20) << outcome;
    }
  }
}

}  // namespace
}  // namespace egressd::test
