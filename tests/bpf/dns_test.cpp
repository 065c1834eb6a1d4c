// The DNS programs in the kernel against the reference in tests/support: names and answers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <time.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <random>
#include <set>
#include <thread>

#include "support/dns_message.h"
#include "support/dns_reference.h"
#include "tests/bpf/dns_compare.h"
#include "tests/bpf/dns_kernel.h"

namespace egressd::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

constexpr std::uint16_t kA = 1;
constexpr std::uint16_t kAaaa = 28;
constexpr std::uint16_t kId = 0x1234;
constexpr std::uint16_t kOk = 0x8180;          // response, recursion desired and available
constexpr std::uint32_t kPublic = 0xcb007105;  // 203.0.113.5

std::uint64_t boot_seconds() {
  timespec t{};
  ::clock_gettime(CLOCK_BOOTTIME, &t);
  return static_cast<std::uint64_t>(t.tv_sec);
}

egressd_addr v4(std::uint32_t address) {
  egressd_addr a{};
  a.addr[10] = a.addr[11] = 0xff;
  for (int i = 0; i < 4; ++i) {
    a.addr[12 + i] = static_cast<std::uint8_t>(address >> (24 - 8 * i));
  }
  return a;
}

std::array<std::uint8_t, 16> key_of(const egressd_addr& a) {
  std::array<std::uint8_t, 16> key{};
  std::memcpy(key.data(), a.addr, key.size());
  return key;
}

class DnsTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { kernel_ = DnsKernel::load(&why_).release(); }
  static void TearDownTestSuite() {
    delete kernel_;
    kernel_ = nullptr;
  }
  void SetUp() override {
    if (kernel_ == nullptr) {
      GTEST_SKIP() << why_;
    }
    kernel_->forget();
    kernel_->events();
    std::memset(&kernel_->io(), 0, sizeof(dns_test_io));
    policy({{"www.example.org", 1, false},
            {"*.example.net", 2, false},
            {"private.test", 3, true},
            {"*.search.local", EGRESSD_DNS_ASK_ONLY, false}});
  }

  void policy(std::vector<enforce::NamePattern> patterns) {
    kernel_->set_policy(patterns, kernel_->usual_config());
  }

  static std::vector<std::uint8_t> query(const std::string& name, std::uint16_t type = kA) {
    return DnsMessage().header(kId, 0x0100, 1, 0).question(name, type).bytes();
  }

  // Judges the question; from then on every answer is to it.
  std::uint32_t ask(const std::string& name, std::uint16_t type = kA) {
    EXPECT_TRUE(kernel_->judge(query(name, type)));
    auto& io = kernel_->io();
    io.seed = io.outcome == EGRESSD_DNS_ASKED ? 1 : 0;
    io.key = io.judged_key;
    io.asked = io.judged;
    asked_ = {kId, type, name};
    return io.outcome;
  }

  // Ids a question for the name would grant.
  std::vector<std::uint32_t> ids(const std::string& name) {
    EXPECT_TRUE(kernel_->judge(query(name)));
    std::vector<std::uint32_t> all;
    for (const auto id : kernel_->io().judged.name_ids) {
      if (id != 0) {
        all.push_back(id);
      }
    }
    std::sort(all.begin(), all.end());
    return all;
  }

  // Runs the answer through kernel and reference; both must agree on why and on what.
  DnsVerdict teach(const std::vector<std::uint8_t>& message) {
    EXPECT_TRUE(kernel_->answer(message));
    const DnsLesson want = read_answer(message, asked_);
    const auto& io = kernel_->io();
    EXPECT_EQ(verdict_of(io.outcome), want.verdict);
    if (io.outcome == EGRESSD_DNS_LEARNED) {
      EXPECT_EQ(believed(message), want.addresses);
    }
    return want.verdict;
  }

  std::vector<DnsLesson::Address> believed(const std::vector<std::uint8_t>& message) {
    const auto& io = kernel_->io();
    const std::size_t size = asked_.qtype == kA ? 4 : 16;
    std::vector<DnsLesson::Address> all;
    for (std::uint32_t i = 0; i < io.found && i < DNS_TEST_MAX; ++i) {
      const auto* from = message.data() + io.addresses[i].off;
      all.push_back({{from, from + size}, std::min(io.addresses[i].ttl, io.chain_ttl)});
    }
    return all;
  }

  std::vector<std::uint32_t> grants(std::uint32_t address) {
    std::vector<std::uint32_t> all;
    const auto learned = kernel_->learned();
    const auto it = learned.find(key_of(v4(address)));
    if (it != learned.end()) {
      for (const auto& g : it->second.grants) {
        if (g.name_id != 0) {
          all.push_back(g.name_id);
        }
      }
    }
    return all;
  }

  static DnsKernel* kernel_;
  static std::string why_;
  DnsAsked asked_;
};

DnsKernel* DnsTest::kernel_ = nullptr;
std::string DnsTest::why_;

// ---- the verifier ----

TEST_F(DnsTest, ProgramsNeedLessThanSixtyPercentOfTheVerifiersLimit) {
  for (const auto& [name, instructions] : kernel_->verified_instructions()) {
    if (instructions == 0) GTEST_SKIP() << "Linux before 5.16 does not say";
    EXPECT_GT(instructions, 100U) << name;
    EXPECT_LT(instructions, 600'000U) << name;
    RecordProperty(name, static_cast<int>(instructions));
  }
}

// ---- names ----

TEST_F(DnsTest, ExactNameIsAskedInAnyCase) {
  EXPECT_EQ(ask("www.example.org"), EGRESSD_DNS_ASKED);
  EXPECT_EQ(ask("WwW.eXaMpLe.oRg"), EGRESSD_DNS_ASKED);
  EXPECT_THAT(ids("WWW.EXAMPLE.ORG"), ElementsAre(1));
}

TEST_F(DnsTest, NeighboursOfAnExactNameAreDenied) {
  for (const auto* name :
       {"example.org", "org", "ww.example.org", "wwww.example.org", "a.www.example.org",
        "www.example.orgx", "www.example.com", "wwwexample.org", "www.exampleorg", "www"}) {
    EXPECT_EQ(ask(name), EGRESSD_DNS_DENIED_NAME) << name;
  }
}

TEST_F(DnsTest, WildcardMatchesAnyDepthButNotTheApex) {
  EXPECT_EQ(ask("a.example.net"), EGRESSD_DNS_ASKED);
  EXPECT_EQ(ask("a.b.c.d.e.f.g.example.net"), EGRESSD_DNS_ASKED);
  EXPECT_EQ(ask("example.net"), EGRESSD_DNS_DENIED_NAME);
  EXPECT_EQ(ask("aexample.net"), EGRESSD_DNS_DENIED_NAME);
}

TEST_F(DnsTest, LongestNamesAndMostLabelsAreMatched) {
  std::string labels;  // 120 one-byte labels
  for (int i = 0; i < 120; ++i) {
    labels += "x.";
  }
  EXPECT_EQ(ask(labels + "example.net"), EGRESSD_DNS_ASKED);
  const std::string big(63, 'y');
  // 63 + 63 + 63 + 50 bytes and dots: 253 in all, the longest there is.
  const std::string longest =
      big + "." + big + "." + big + "." + std::string(49, 'y') + ".example.net";
  ASSERT_EQ(longest.size(), 253U);
  EXPECT_EQ(ask(longest), EGRESSD_DNS_ASKED);
  EXPECT_EQ(ask("y" + longest), EGRESSD_DNS_DENIED_MALFORMED);
  std::string deepest = "t";
  std::vector<enforce::NamePattern> patterns;
  for (int i = 0; i < 126; ++i) {
    deepest = "t." + deepest;
  }
  policy({{deepest, 5, false}});
  EXPECT_THAT(ids(deepest), ElementsAre(5));
}

TEST_F(DnsTest, MostSpecificPatternWins) {
  policy({{"*.a.test", 1, false}, {"*.b.a.test", 2, false}, {"c.b.a.test", 3, false}});
  EXPECT_THAT(ids("x.a.test"), ElementsAre(1));
  EXPECT_THAT(ids("b.a.test"), ElementsAre(1));
  EXPECT_THAT(ids("x.b.a.test"), ElementsAre(2));
  EXPECT_THAT(ids("c.b.a.test"), ElementsAre(3));
  EXPECT_THAT(ids("d.c.b.a.test"), ElementsAre(2));
}

TEST_F(DnsTest, InLabelPatternsAreBranchesOfTheirOwn) {
  policy({{"md-*.blob.test", 1, false},
          {"*-x.blob.test", 2, false},
          {"*.md-*.blob.test", 3, false},
          {"*.blob.test", 4, false},
          {"a*.b*.c.test", 5, false}});
  EXPECT_THAT(ids("md-1.blob.test"), ElementsAre(1));
  EXPECT_THAT(ids("md-.blob.test"), ElementsAre(1));
  EXPECT_THAT(ids("MD-1.blob.test"), ElementsAre(1));
  EXPECT_THAT(ids("md.blob.test"), ElementsAre(4));
  EXPECT_THAT(ids("md-1-x.blob.test"), ElementsAre(1, 2));
  EXPECT_THAT(ids("q.md-1.blob.test"), ElementsAre(3));
  EXPECT_THAT(ids("axx.byy.c.test"), ElementsAre(5));
  EXPECT_THAT(ids("xa.byy.c.test"), IsEmpty());
  EXPECT_THAT(ids("a.c.test"), IsEmpty());
  // The name itself is narrower than any pattern beside it.
  policy({{"md-1.blob.test", 7, false}, {"md-*.blob.test", 1, false}, {"*.blob.test", 4, false}});
  EXPECT_THAT(ids("md-1.blob.test"), ElementsAre(7));
  EXPECT_THAT(ids("md-2.blob.test"), ElementsAre(1));
  // A pattern whose rules allow nothing hides wider ones, and its names are not asked.
  policy({{"*.blob.test", 4, false}, {"*.no.blob.test", EGRESSD_DNS_REFUSED, false}});
  EXPECT_THAT(ids("a.blob.test"), ElementsAre(4));
  EXPECT_EQ(ask("a.no.blob.test"), EGRESSD_DNS_DENIED_NAME);
  // The overlap of prefix and suffix must not count twice.
  policy({{"ab*ba.test", 6, false}});
  EXPECT_THAT(ids("aba.test"), IsEmpty());
  EXPECT_THAT(ids("abba.test"), ElementsAre(6));
}

TEST_F(DnsTest, StarOnTheWireIsNoWildcard) {
  policy({{"*.blob.test", 4, false}, {"md-*.x.test", 1, false}});
  EXPECT_THAT(ids("*.x.test"), IsEmpty());
  EXPECT_THAT(ids("md-*.x.test"), ElementsAre(1));  // `*` is one of any characters
  EXPECT_THAT(ids("blob.test"), IsEmpty());
}

TEST_F(DnsTest, SearchDomainsMayBeAskedAndGrantNothing) {
  EXPECT_EQ(ask("www.example.org.search.local"), EGRESSD_DNS_ASKED_NO_GRANT);
  EXPECT_EQ(ask("search.local"), EGRESSD_DNS_DENIED_NAME);
  policy({{"*.corp.test", 8, false}, {"*.deep.corp.test", EGRESSD_DNS_ASK_ONLY, false}});
  EXPECT_EQ(ask("a.deep.corp.test"), EGRESSD_DNS_ASKED);  // the rule, not the search domain
}

TEST_F(DnsTest, SixtyThousandNamesMatchAsTheReferenceSays) {
  std::mt19937 random(7);
  const auto pick = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  const auto label = [&] {
    std::string text;
    for (int i = 1 + pick(3); i > 0; --i) {
      text.push_back(static_cast<char>('a' + pick(3)));
    }
    return text;
  };
  // Few letters and zones, so that names and patterns meet often. Zones keep the reference quick.
  constexpr int kZones = 500;
  std::vector<std::vector<DnsPattern>> zones(kZones);
  std::vector<enforce::NamePattern> patterns;
  std::set<std::string> used;
  for (std::uint32_t id = 1; id <= 10'000; ++id) {
    const int zone = pick(kZones);
    std::string text = "z" + std::to_string(zone) + ".test";
    for (int depth = pick(4); depth > 0; --depth) {
      std::string l = label();
      if (pick(5) == 0) {
        l.insert(static_cast<std::size_t>(pick(static_cast<int>(l.size()) + 1)), "*");
      }
      text = l + "." + text;
    }
    if (pick(3) == 0) {
      text = "*." + text;
    }
    if (!used.insert(text).second) {
      continue;
    }
    const std::vector<enforce::NamePattern> alone{{text, id, false}};
    zones[static_cast<std::size_t>(zone)].push_back({text, id});
    patterns.push_back({text, id, false});
  }
  kernel_->set_policy(patterns, kernel_->usual_config());
  int matched = 0;
  int several = 0;
  int lost = 0;
  for (int n = 0; n < 60'000; ++n) {
    const int zone = pick(kZones);
    std::string name = "z" + std::to_string(zone) + ".test";
    for (int depth = pick(6); depth > 0; --depth) {
      name = label() + "." + name;
    }
    const auto before = kernel_->count(EGRESSD_DNS_BRANCH_LOST);
    const auto want = match_name(zones[static_cast<std::size_t>(zone)], name);
    const auto got = ids(name);
    if (kernel_->count(EGRESSD_DNS_BRANCH_LOST) != before) {
      // More branches than are followed: what is found must still be right.
      ++lost;
      EXPECT_TRUE(std::includes(want.begin(), want.end(), got.begin(), got.end())) << name;
      continue;
    }
    ASSERT_EQ(got, want) << name;
    matched += want.empty() ? 0 : 1;
    several += want.size() > 1 ? 1 : 0;
  }
  EXPECT_GT(matched, 10'000);
  EXPECT_GT(several, 100);
  EXPECT_LT(lost, 600);
}

// ---- questions ----

TEST_F(DnsTest, QuestionsThatAreNotOnePlainQuestionAreRefused) {
  const auto outcome = [&](const DnsMessage& m) {
    EXPECT_TRUE(kernel_->judge(m.bytes()));
    return kernel_->io().outcome;
  };
  const std::string ok = "www.example.org";
  EXPECT_EQ(outcome(DnsMessage().header(1, 0x0100, 1, 0).question(ok)), EGRESSD_DNS_ASKED);
  EXPECT_EQ(outcome(DnsMessage().header(1, 0x0120, 1, 0, 0, 1).question(ok).name("").u16(41)),
            EGRESSD_DNS_ASKED);
  const std::uint32_t bad = EGRESSD_DNS_DENIED_MALFORMED;
  EXPECT_EQ(outcome(DnsMessage().header(1, 0x8100, 1, 0).question(ok)), bad);  // a response
  EXPECT_EQ(outcome(DnsMessage().header(1, 0x2800, 1, 0).question(ok)), bad);  // an update
  EXPECT_EQ(outcome(DnsMessage().header(1, 0x0100, 0, 0).question(ok)), bad);
  EXPECT_EQ(outcome(DnsMessage().header(1, 0x0100, 2, 0).question(ok).question("evil.test")), bad);
  EXPECT_EQ(outcome(DnsMessage().header(1, 0x0100, 1, 1).question(ok)), bad);
  EXPECT_EQ(outcome(DnsMessage().header(1, 0x0100, 1, 0, 1).question(ok)), bad);
  EXPECT_EQ(outcome(DnsMessage().header(1, 0x0100, 1, 0).name(ok).u8(0)), bad);  // cut short
  EXPECT_EQ(outcome(DnsMessage().header(1, 0x0100, 1, 0).pointer(12)), bad);
  EXPECT_EQ(outcome(DnsMessage().u16(1)), bad);
  EXPECT_EQ(outcome(DnsMessage().header(1, 0x0100, 1, 0).u8(64).name(ok)), bad);
}

TEST_F(DnsTest, UnusualTypesAreAskedOnlyIfThePolicySaysSo) {
  EXPECT_EQ(ask("www.example.org", 16), EGRESSD_DNS_DENIED_TYPE);
  EXPECT_EQ(ask("www.example.org", 255), EGRESSD_DNS_DENIED_TYPE);
  EXPECT_EQ(ask("www.example.org", 65), EGRESSD_DNS_ASKED_NO_GRANT);
  EXPECT_EQ(ask("www.example.org", kAaaa), EGRESSD_DNS_ASKED);
  EXPECT_TRUE(
      kernel_->judge(DnsMessage().header(1, 0, 1, 0).question("www.example.org", 1, 3).bytes()));
  EXPECT_EQ(kernel_->io().outcome, static_cast<std::uint32_t>(EGRESSD_DNS_DENIED_TYPE));
  auto config = kernel_->usual_config();
  config.flags = EGRESSD_DNS_F_OTHER_TYPES;
  const std::vector<enforce::NamePattern> patterns{{"www.example.org", 1, false}};
  kernel_->set_policy(patterns, config);
  EXPECT_EQ(ask("www.example.org", 16), EGRESSD_DNS_ASKED_NO_GRANT);
}

// ---- answers ----

TEST_F(DnsTest, OneAddressIsLearnedForTheNameWithItsEnd) {
  ask("www.example.org");
  const auto message =
      DnsMessage().header(kId, kOk, 1, 1).question("www.example.org").pointer(12).a(100, kPublic);
  EXPECT_EQ(teach(message.bytes()), DnsVerdict::Learned);
  const auto learned = kernel_->learned();
  ASSERT_EQ(learned.size(), 1U);
  const auto& grant = learned.at(key_of(v4(kPublic))).grants[0];
  EXPECT_EQ(grant.name_id, 1U);
  EXPECT_NEAR(static_cast<double>(grant.expires_ns) / 1e9,
              static_cast<double>(boot_seconds()) + 400, 2);
}

TEST_F(DnsTest, TtlIsClampedAtBothEnds) {
  const auto end_of = [&](std::uint32_t ttl) {
    kernel_->forget();
    ask("www.example.org");
    teach(DnsMessage()
              .header(kId, kOk, 1, 1)
              .question("www.example.org")
              .pointer(12)
              .a(ttl, kPublic)
              .bytes());
    return static_cast<double>(kernel_->learned().at(key_of(v4(kPublic))).grants[0].expires_ns) /
               1e9 -
           static_cast<double>(boot_seconds());
  };
  EXPECT_NEAR(end_of(0), 360, 2);
  EXPECT_NEAR(end_of(0xffffffff), 360, 2);  // RFC 2181 8: the top bit means 0
  EXPECT_NEAR(end_of(0x7fffffff), 86400 + 300, 2);
  EXPECT_NEAR(end_of(3600), 3900, 2);
}

TEST_F(DnsTest, AnswerIsBelievedOnce) {
  ask("www.example.org");
  const auto message =
      DnsMessage().header(kId, kOk, 1, 1).question("www.example.org").pointer(12).a(100, kPublic);
  EXPECT_EQ(teach(message.bytes()), DnsVerdict::Learned);
  kernel_->io().seed = 0;
  EXPECT_TRUE(kernel_->answer(message.bytes()));
  EXPECT_EQ(kernel_->io().outcome, static_cast<std::uint32_t>(EGRESSD_DNS_NOT_ASKED));
}

TEST_F(DnsTest, LateAnswerTeachesNothing) {
  ask("www.example.org");
  auto config = kernel_->usual_config();
  config.answer_within_s = 0;
  const std::vector<enforce::NamePattern> patterns{{"www.example.org", 1, false}};
  kernel_->set_policy(patterns, config);
  EXPECT_TRUE(kernel_->answer(DnsMessage()
                                  .header(kId, kOk, 1, 1)
                                  .question("www.example.org")
                                  .pointer(12)
                                  .a(9, kPublic)
                                  .bytes()));
  EXPECT_EQ(kernel_->io().outcome, static_cast<std::uint32_t>(EGRESSD_DNS_LATE));
  EXPECT_THAT(kernel_->learned(), IsEmpty());
}

TEST_F(DnsTest, AsManyAddressesAsFitAreLearned) {
  // 254 is what fits into 4096 bytes: a record takes 16 of them at least.
  policy({{"t", 1, false}});
  for (const std::uint16_t count : std::initializer_list<std::uint16_t>{1, 4, 30, 90, 200, 254}) {
    kernel_->forget();
    ask("t");
    DnsMessage m;
    m.header(kId, kOk, 1, count).question("t");
    for (std::uint32_t i = 0; i < count; ++i) {
      m.pointer(12).a(60, kPublic + i);
    }
    ASSERT_LE(m.size(), static_cast<std::size_t>(EGRESSD_DNS_MSG_MAX));
    EXPECT_EQ(teach(m.bytes()), DnsVerdict::Learned);
    EXPECT_EQ(kernel_->learned().size(), count);
  }
}

TEST_F(DnsTest, MoreRecordsThanTheBoundTeachNothing) {
  ask("www.example.org");
  DnsMessage m;
  m.header(kId, kOk, 1, 321).question("www.example.org").pointer(12).a(60, kPublic);
  for (int i = 0; i < 320; ++i) {
    m.name("").record(99, 1, {});
  }
  EXPECT_EQ(teach(m.bytes()), DnsVerdict::TooMany);
  m.bytes()[7] = 64;  // 320: just within
  ask("www.example.org");
  EXPECT_EQ(teach(m.bytes()), DnsVerdict::Learned);
}

TEST_F(DnsTest, CnameChainsAreFollowedInAnyOrder) {
  for (int length = 0; length <= 17; ++length) {
    for (const bool backwards : {false, true}) {
      kernel_->forget();
      ask("www.example.org");
      DnsMessage m;
      m.header(kId, kOk, 1, static_cast<std::uint16_t>(length + 1)).question("www.example.org");
      const auto link = [&](int i) {
        return i == 0 ? std::string("www.example.org") : "c" + std::to_string(i) + ".cdn.test";
      };
      const auto address = [&] { m.name(link(length)).a(60, kPublic); };
      if (backwards) {
        address();
      }
      for (int i = 0; i < length; ++i) {
        const int at = backwards ? length - 1 - i : i;
        m.name(link(at)).cname(60, link(at + 1));
      }
      if (!backwards) {
        address();
      }
      EXPECT_EQ(teach(m.bytes()), length <= 16 ? DnsVerdict::Learned : DnsVerdict::TooMany)
          << length;
      EXPECT_EQ(grants(kPublic).size(), length <= 16 ? 1U : 0U);
    }
  }
}

TEST_F(DnsTest, SmallestTtlOfTheChainCounts) {
  ask("www.example.org");
  std::size_t at = 0;
  DnsMessage m;
  m.header(kId, kOk, 1, 2).question("www.example.org").pointer(12).cname(70, "a.test", &at);
  m.pointer(at).a(9999, kPublic);
  EXPECT_EQ(teach(m.bytes()), DnsVerdict::Learned);
  EXPECT_EQ(believed(m.bytes())[0].ttl, 70U);
}

TEST_F(DnsTest, Ipv6AddressesAreLearnedForIpv6Questions) {
  const std::array<std::uint8_t, 16> address{0x2a, 0x00, 1, 2,  3,  4,  5,  6,
                                             7,    8,    9, 10, 11, 12, 13, 14};
  ask("a.example.net", kAaaa);
  const auto m = DnsMessage()
                     .header(kId, kOk, 1, 1)
                     .question("a.example.net", kAaaa)
                     .pointer(12)
                     .aaaa(60, address);
  EXPECT_EQ(teach(m.bytes()), DnsVerdict::Learned);
  ASSERT_EQ(kernel_->learned().size(), 1U);
  EXPECT_EQ(kernel_->learned().begin()->first, address);
}

TEST_F(DnsTest, SpoofedAndBrokenAnswersTeachNothing) {
  const std::string n = "www.example.org";
  std::size_t at = 0;
  const auto head = [&](std::uint16_t answers, std::uint16_t flags = kOk) {
    DnsMessage m;
    m.header(kId, flags, 1, answers).question(n);
    return m;
  };
  struct Case {
    const char* what;
    DnsMessage message;
    DnsVerdict why;
  };
  const std::vector<std::uint8_t> three{1, 2, 3};
  const std::vector<std::uint8_t> five{1, 2, 3, 4, 5};
  std::vector<Case> cases{
      {"wrong id", DnsMessage().header(kId + 1, kOk, 1, 1).question(n).pointer(12).a(9, kPublic),
       DnsVerdict::NotAsked},
      {"wrong name",
       DnsMessage().header(kId, kOk, 1, 1).question("www.example.com").pointer(12).a(9, kPublic),
       DnsVerdict::NotAsked},
      {"wrong type",
       DnsMessage().header(kId, kOk, 1, 1).question(n, kAaaa).pointer(12).a(9, kPublic),
       DnsVerdict::NotAsked},
      {"wrong class",
       DnsMessage().header(kId, kOk, 1, 1).question(n, kA, 3).pointer(12).a(9, kPublic),
       DnsVerdict::NotAsked},
      {"a query", head(1, 0x0100).pointer(12).a(9, kPublic), DnsVerdict::BadHeader},
      {"other opcode", head(1, 0x8980).pointer(12).a(9, kPublic), DnsVerdict::BadHeader},
      {"no question", DnsMessage().header(kId, kOk, 0, 1).question(n).pointer(12).a(9, kPublic),
       DnsVerdict::BadHeader},
      {"two questions",
       DnsMessage().header(kId, kOk, 2, 1).question(n).question(n).pointer(12).a(9, kPublic),
       DnsVerdict::BadHeader},
      {"truncated", head(1, 0x8380).pointer(12).a(9, kPublic), DnsVerdict::Truncated},
      {"name error", head(1, 0x8183).pointer(12).a(9, kPublic), DnsVerdict::Rcode},
      {"no data", head(0), DnsVerdict::NoAddress},
      {"count without data", head(65535).pointer(12).a(9, kPublic), DnsVerdict::TooMany},
      {"one record too few", head(2).pointer(12).a(9, kPublic), DnsVerdict::BadRecord},
      {"address of three bytes", head(1).pointer(12).record(kA, 9, three), DnsVerdict::BadRecord},
      {"address of five bytes", head(1).pointer(12).record(kA, 9, five), DnsVerdict::BadRecord},
      {"address in another class",
       head(1).pointer(12).record(kA, 9, std::vector<std::uint8_t>{1, 2, 3, 4}, 3),
       DnsVerdict::BadRecord},
      {"IPv6 address to an IPv4 question",
       head(1).pointer(12).aaaa(9, std::vector<std::uint8_t>(16, 0x20)), DnsVerdict::NoAddress},
      {"other owner", head(1).name("evil.test").a(9, kPublic), DnsVerdict::BadOwner},
      {"good and other owner", head(2).pointer(12).a(9, kPublic).name("evil.test").a(9, kPublic),
       DnsVerdict::BadOwner},
      {"CNAME off the chain",
       head(2).pointer(12).a(9, kPublic).name("evil.test").cname(9, "x.test"),
       DnsVerdict::BadOwner},
      {"address before the end of the chain",
       head(2).pointer(12).cname(9, "x.test").pointer(12).a(9, kPublic), DnsVerdict::BadOwner},
      {"two targets",
       head(3)
           .pointer(12)
           .cname(9, "x.test")
           .pointer(12)
           .cname(9, "y.test")
           .name("x.test")
           .a(9, kPublic),
       DnsVerdict::BadOwner},
      {"CNAME loop", head(2).pointer(12).cname(9, "x.test").name("x.test").cname(9, n),
       DnsVerdict::BadOwner},
      {"CNAME with bytes behind its name",
       head(1).pointer(12).record(5, 9, std::vector<std::uint8_t>{1, 'x', 0, 0}),
       DnsVerdict::BadRecord},
      {"CNAME cut short", head(1).pointer(12).record(5, 9, std::vector<std::uint8_t>{1, 'x'}),
       DnsVerdict::BadRecord},
      {"pointer to itself", head(1).pointer(33).a(9, kPublic), DnsVerdict::BadRecord},
      {"pointer forward", head(1).pointer(60).a(9, kPublic), DnsVerdict::BadRecord},
      {"pointer into the header", head(1).pointer(4).a(9, kPublic), DnsVerdict::BadRecord},
      {"reserved label type 0x40", head(1).u8(0x41).name("a").a(9, kPublic), DnsVerdict::BadRecord},
      {"reserved label type 0x80", head(1).u8(0x81).name("a").a(9, kPublic), DnsVerdict::BadRecord},
      {"record length past the end", head(1).pointer(12).u16(1).u16(1).u32(9).u16(400).u32(kPublic),
       DnsVerdict::BadRecord},
      {"nothing behind the owner", head(1).pointer(12), DnsVerdict::BadRecord},
      {"question cut short", DnsMessage().header(kId, kOk, 1, 1).name(n).u16(1),
       DnsVerdict::BadQuestion},
      {"question with a pointer", DnsMessage().header(kId, kOk, 1, 1).pointer(12).u16(1).u16(1),
       DnsVerdict::BadQuestion},
      {"half a header", DnsMessage().u32(0), DnsVerdict::Short},
  };
  // 17 pointers in a row: one more than is followed.
  DnsMessage chain = head(2);
  at = chain.size() + 11;
  chain.name("").record(99, 9, std::vector<std::uint8_t>{});
  std::vector<std::uint8_t> pointers;
  for (std::size_t i = 0; i < 20; ++i) {
    const std::size_t to = i == 0 ? 12 : at + 11 + 2 * (i - 1);
    pointers.push_back(static_cast<std::uint8_t>(0xc0 | to >> 8));
    pointers.push_back(static_cast<std::uint8_t>(to & 0xff));
  }
  chain.name("").record(99, 9, pointers);
  for (const std::size_t hops : {14U, 16U, 17U}) {
    DnsMessage m = chain;
    m.bytes()[7] = 3;
    m.pointer(at + 11 + 2 * (hops - 2)).a(9, kPublic);
    ask(n);
    EXPECT_EQ(teach(m.bytes()), hops <= 16 ? DnsVerdict::Learned : DnsVerdict::BadRecord) << hops;
    kernel_->forget();
  }
  for (const auto& c : cases) {
    ask(n);
    EXPECT_EQ(teach(c.message.bytes()), c.why) << c.what;
    EXPECT_THAT(kernel_->learned(), IsEmpty()) << c.what;
  }
}

TEST_F(DnsTest, GoodAnswersOfEveryShapeAreLearned) {
  const std::string n = "www.example.org";
  std::size_t at = 0;
  std::vector<DnsMessage> messages;
  messages.push_back(DnsMessage().header(kId, kOk, 1, 1).question(n).name(n).a(9, kPublic));
  messages.push_back(
      DnsMessage().header(kId, kOk, 1, 1).question("wWw.ExAmPlE.oRg").pointer(12).a(9, kPublic));
  messages.push_back(
      DnsMessage().header(kId, kOk, 1, 1).question(n).name("WWW.EXAMPLE.ORG").a(9, kPublic));
  messages.push_back(DnsMessage().header(kId, 0x85b0, 1, 1).question(n).pointer(12).a(9, kPublic));
  // Label, then a pointer into the middle of the question.
  messages.push_back(DnsMessage()
                         .header(kId, kOk, 1, 1)
                         .question(n)
                         .u8(3)
                         .u8('w')
                         .u8('w')
                         .u8('w')
                         .pointer(16)
                         .a(9, kPublic));
  // A signature between, EDNS behind.
  messages.push_back(DnsMessage()
                         .header(kId, kOk, 1, 2, 0, 1)
                         .question(n)
                         .pointer(12)
                         .record(46, 9, std::vector<std::uint8_t>(90, 7))
                         .pointer(12)
                         .a(9, kPublic)
                         .name("")
                         .record(41, 0, {}, 1232));
  DnsMessage chained;
  chained.header(kId, kOk, 1, 3).question(n).pointer(12).cname(9, "edge.cdn.test", &at);
  chained.pointer(at).a(9, kPublic).pointer(at).a(9, kPublic + 1);
  messages.push_back(chained);
  for (const auto& m : messages) {
    kernel_->forget();
    ask(n);
    EXPECT_EQ(teach(m.bytes()), DnsVerdict::Learned);
    EXPECT_THAT(grants(kPublic), ElementsAre(1));
  }
}

TEST_F(DnsTest, GuardedAddressesAreNotLearnedUnlessTheNameMay) {
  const std::vector<std::uint32_t> closed{0x7f000001, 0xa9fea9fe, 0xa83f8110,
                                          0xe0000001, 0xffffffff, 0x00000001};
  const std::vector<std::uint32_t> inside{0x0a000001, 0xac10ffff, 0xac1f0001, 0xc0a80101,
                                          0x64400001};
  const auto answer = [&](const std::string& n, std::uint32_t address) {
    kernel_->forget();
    ask(n);
    teach(DnsMessage().header(kId, kOk, 1, 1).question(n).pointer(12).a(9, address).bytes());
    return kernel_->learned().size();
  };
  for (const auto address : closed) {
    EXPECT_EQ(answer("www.example.org", address), 0U) << std::hex << address;
    EXPECT_EQ(answer("private.test", address), 0U) << std::hex << address;
  }
  for (const auto address : inside) {
    EXPECT_EQ(answer("www.example.org", address), 0U) << std::hex << address;
    EXPECT_EQ(answer("private.test", address), 1U) << std::hex << address;
  }
  for (const std::uint32_t address :
       {0x09ffffffU, 0x0b000000U, 0xac0fffffU, 0xac200000U, 0x643fffffU, 0x64800000U, 0xa83f8111U,
        0xa9fd0000U, 0x7e000001U, 0x80000000U, 0xdfffffffU}) {
    EXPECT_EQ(answer("www.example.org", address), 1U) << std::hex << address;
  }
  const auto answer6 = [&](const std::string& n, std::array<std::uint8_t, 16> address) {
    kernel_->forget();
    ask(n, kAaaa);
    teach(DnsMessage()
              .header(kId, kOk, 1, 1)
              .question(n, kAaaa)
              .pointer(12)
              .aaaa(9, address)
              .bytes());
    return kernel_->learned().size();
  };
  using A = std::array<std::uint8_t, 16>;
  const A mapped{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 5};
  const A loopback{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  for (const A& address : {mapped, loopback, A{0, 0x64, 0xff, 0x9b}, A{0xfe, 0x80}, A{0xff, 2},
                           A{0x20, 2}, A{0x20, 1}}) {
    EXPECT_EQ(answer6("private.test", address), 0U);
  }
  EXPECT_EQ(answer6("www.example.org", A{0xfd, 1}), 0U);
  EXPECT_EQ(answer6("private.test", A{0xfd, 1}), 1U);
  EXPECT_EQ(answer6("www.example.org", A{0x2a, 1}), 1U);
}

// ---- grants ----

TEST_F(DnsTest, NamesThatShareAnAddressKeepTheirGrants) {
  std::vector<enforce::NamePattern> patterns;
  for (std::uint32_t i = 1; i <= 10; ++i) {
    patterns.push_back({"n" + std::to_string(i) + ".test", i, false});
  }
  policy(patterns);
  for (std::uint32_t i = 1; i <= 8; ++i) {
    const std::string n = "n" + std::to_string(i) + ".test";
    ask(n);
    teach(DnsMessage().header(kId, kOk, 1, 1).question(n).pointer(12).a(1000 + i, kPublic).bytes());
  }
  EXPECT_THAT(grants(kPublic), UnorderedElementsAre(1, 2, 3, 4, 5, 6, 7, 8));
  // The ninth pushes out the one that would end first, and says so.
  const auto evicted = kernel_->count(EGRESSD_DNS_ADDR_EVICTED);
  ask("n9.test");
  teach(
      DnsMessage().header(kId, kOk, 1, 1).question("n9.test").pointer(12).a(5000, kPublic).bytes());
  EXPECT_THAT(grants(kPublic), UnorderedElementsAre(9, 2, 3, 4, 5, 6, 7, 8));
  EXPECT_EQ(kernel_->count(EGRESSD_DNS_ADDR_EVICTED), evicted + 1);
  // A shorter TTL later does not bring an end closer.
  const auto before = kernel_->learned().begin()->second;
  ask("n9.test");
  teach(DnsMessage().header(kId, kOk, 1, 1).question("n9.test").pointer(12).a(1, kPublic).bytes());
  const auto after = kernel_->learned().begin()->second;
  EXPECT_EQ(std::memcmp(before.grants, after.grants, sizeof(before.grants)), 0);
}

TEST_F(DnsTest, NameAtItsQuotaGivesUpWhatEndsSoonest) {
  auto config = kernel_->usual_config();
  config.name_quota = 5;
  const std::vector<enforce::NamePattern> patterns{{"q.test", 77, false},
                                                   {"other.test", 78, false}};
  kernel_->set_policy(patterns, config);
  const auto learn = [&](const char* name, std::uint32_t ttl, std::uint32_t address) {
    ask(name);
    teach(DnsMessage().header(kId, kOk, 1, 1).question(name).pointer(12).a(ttl, address).bytes());
  };
  const auto displaced = kernel_->count(EGRESSD_DNS_ADDR_QUOTA);
  learn("other.test", 60, kPublic);
  for (std::uint32_t i = 0; i < 5; ++i) learn("q.test", 100 + i, kPublic + i);
  EXPECT_EQ(kernel_->count(EGRESSD_DNS_ADDR_QUOTA), displaced);
  learn("q.test", 5000, kPublic);  // heard again: no new address, and it ends last now
  EXPECT_EQ(kernel_->count(EGRESSD_DNS_ADDR_QUOTA), displaced);
  learn("q.test", 100, kPublic + 10);
  EXPECT_EQ(kernel_->count(EGRESSD_DNS_ADDR_QUOTA), displaced + 1);
  EXPECT_THAT(grants(kPublic + 1), IsEmpty());
  for (const std::uint32_t i : {2, 3, 4, 10})
    EXPECT_THAT(grants(kPublic + i), ElementsAre(77)) << i;
  EXPECT_THAT(grants(kPublic), UnorderedElementsAre(77, 78));
  // Many in one answer: never more than the quota, and the other name's grant is not touched.
  DnsMessage m;
  m.header(kId, kOk, 1, 100).question("q.test");
  for (std::uint32_t i = 0; i < 100; ++i) m.pointer(12).a(6000, kPublic + 100 + i);
  ask("q.test");
  teach(m.bytes());
  EXPECT_EQ(kernel_->learned().size(), 6U);
  EXPECT_THAT(grants(kPublic), ElementsAre(78));
  EXPECT_THAT(grants(kPublic + 199), ElementsAre(77));
}

// Room for 64 addresses, and nobody who sweeps.
TEST(DnsRoomTest, LearningGoesOnWhenTheMapIsFull) {
  constexpr std::uint32_t kRoom = 64;
  std::string why;
  const auto kernel = DnsKernel::load(&why, kRoom);
  if (!kernel) GTEST_SKIP() << why;
  auto config = kernel->usual_config();
  config.name_quota = 0;
  const std::vector<enforce::NamePattern> patterns{{"a.test", 1, false}, {"b.test", 2, false}};
  kernel->set_policy(patterns, config);
  const auto learn = [&](const char* name, std::uint32_t ttl, std::uint32_t address) {
    ASSERT_TRUE(kernel->judge(DnsMessage().header(kId, 0x0100, 1, 0).question(name, kA).bytes()));
    auto& io = kernel->io();
    io.seed = 1;
    io.key = io.judged_key;
    io.asked = io.judged;
    ASSERT_TRUE(kernel->answer(
        DnsMessage().header(kId, kOk, 1, 1).question(name).pointer(12).a(ttl, address).bytes()));
  };
  const auto has = [&](std::uint32_t address) {
    return kernel->learned().contains(key_of(v4(address)));
  };
  // What has ended gives way first.
  const std::uint64_t now = boot_seconds() * 1'000'000'000;
  std::vector<egressd_grant_request> ended;
  for (std::uint32_t i = 0; i < kRoom / 2; ++i)
    ended.push_back({v4(kPublic + 1000 + i), now - 1, 1, EGRESSD_GRANT_ADD});
  ASSERT_TRUE(kernel->grant(ended));
  for (std::uint32_t i = 0; i < kRoom; ++i) learn("a.test", 5000, kPublic + i);
  EXPECT_EQ(kernel->count(EGRESSD_DNS_ADDR_EVICTED), 0U);
  for (std::uint32_t i = 0; i < kRoom; ++i) EXPECT_TRUE(has(kPublic + i)) << i;
  EXPECT_EQ(kernel->learned().size(), kRoom);
  // Then what ends soon; the newest is always there, and nothing is ever refused.
  for (std::uint32_t i = 0; i < 10 * kRoom; ++i) {
    learn("b.test", 5000, kPublic + 2000 + i);
    ASSERT_TRUE(has(kPublic + 2000 + i)) << i;
  }
  EXPECT_EQ(kernel->count(EGRESSD_DNS_ADDR_EVICTED), 10 * kRoom);
  EXPECT_EQ(kernel->count(EGRESSD_DNS_ADDR_FULL), 0U);
  EXPECT_EQ(kernel->learned().size(), kRoom);
}

TEST_F(DnsTest, NameAtItsQuotaLeavesOthersAloneWhileThereIsRoom) {
  auto config = kernel_->usual_config();
  config.name_quota = 20;
  const std::vector<enforce::NamePattern> patterns{{"evil.test", 1, false},
                                                   {"good.test", 2, false}};
  kernel_->set_policy(patterns, config);
  const auto learn = [&](const char* name, std::uint32_t ttl, std::uint32_t address) {
    ask(name);
    teach(DnsMessage().header(kId, kOk, 1, 1).question(name).pointer(12).a(ttl, address).bytes());
  };
  for (std::uint32_t i = 0; i < 8; ++i) learn("evil.test", 9000, kPublic + i);
  for (std::uint32_t i = 0; i < 4; ++i) learn("good.test", 60, kPublic + 1000 + i);
  const auto evicted = kernel_->count(EGRESSD_DNS_ADDR_EVICTED);
  for (std::uint32_t i = 8; i < 500; ++i) {
    learn("evil.test", 9000, kPublic + i);
    ASSERT_THAT(grants(kPublic + i), ElementsAre(1)) << i;
  }
  for (std::uint32_t i = 0; i < 4; ++i) EXPECT_THAT(grants(kPublic + 1000 + i), ElementsAre(2));
  EXPECT_EQ(kernel_->count(EGRESSD_DNS_ADDR_EVICTED), evicted);
  EXPECT_LE(kernel_->learned().size(), 24U);
}

TEST_F(DnsTest, AnswerIsJudgedUnderThePolicyInForce) {
  ask("www.example.org");
  // A reload while the answer is under way: the name belongs to another pattern now.
  auto config = kernel_->usual_config();
  const std::vector<enforce::NamePattern> narrower{{"*.example.org", 1, false},
                                                   {"www.example.org", EGRESSD_DNS_REFUSED, false}};
  kernel_->set_policy(narrower, config, 1, 2);
  const auto answer =
      DnsMessage().header(kId, kOk, 1, 1).question("www.example.org").pointer(12).a(60, kPublic);
  ASSERT_TRUE(kernel_->answer(answer.bytes()));
  EXPECT_EQ(kernel_->io().outcome, static_cast<std::uint32_t>(EGRESSD_DNS_NOT_ASKED));
  EXPECT_TRUE(kernel_->learned().empty());
  const std::vector<enforce::NamePattern> renamed{{"www.example.org", 9, false}};
  kernel_->set_policy(renamed, config, 0, 3);
  teach(answer.bytes());
  EXPECT_THAT(grants(kPublic), ElementsAre(9));
}

TEST_F(DnsTest, AnswerHasToComeBackWhereTheQuestionLeft) {
  ask("www.example.org");
  kernel_->io().asked.ifindex = 7;
  const auto answer =
      DnsMessage().header(kId, kOk, 1, 1).question("www.example.org").pointer(12).a(60, kPublic);
  ASSERT_TRUE(kernel_->answer(answer.bytes()));
  EXPECT_EQ(kernel_->io().outcome, static_cast<std::uint32_t>(EGRESSD_DNS_NOT_TRUSTED_LINK));
  EXPECT_TRUE(kernel_->learned().empty());
  kernel_->io().asked.ifindex = 0;
  teach(answer.bytes());
  EXPECT_THAT(grants(kPublic), ElementsAre(1));
}

TEST_F(DnsTest, AgentAddsAndSweepsThroughTheSameDoor) {
  const std::uint64_t now = boot_seconds() * 1'000'000'000;
  const std::vector<egressd_grant_request> add{
      {v4(kPublic), now + 100'000'000'000, 5, EGRESSD_GRANT_ADD},
      {v4(kPublic), now - 1, 6, EGRESSD_GRANT_ADD},
      {v4(kPublic + 1), now - 1, 5, EGRESSD_GRANT_ADD}};
  ASSERT_TRUE(kernel_->grant(add));
  EXPECT_THAT(grants(kPublic), UnorderedElementsAre(5, 6));
  EXPECT_THAT(grants(kPublic + 1), ElementsAre(5));
  const std::vector<egressd_grant_request> sweep{{v4(kPublic), now, 0, EGRESSD_GRANT_SWEEP},
                                                 {v4(kPublic + 1), now, 0, EGRESSD_GRANT_SWEEP},
                                                 {v4(kPublic + 2), now, 0, EGRESSD_GRANT_SWEEP}};
  ASSERT_TRUE(kernel_->grant(sweep));
  EXPECT_THAT(grants(kPublic), ElementsAre(5));
  EXPECT_EQ(kernel_->learned().size(), 1U);
  const std::vector<egressd_grant_request> nonsense{{v4(kPublic), now, 0, 99}};
  EXPECT_FALSE(kernel_->grant(nonsense));
  std::vector<egressd_grant_request> many(64, add[0]);
  EXPECT_TRUE(kernel_->grant(many));
  many.push_back(add[0]);
  EXPECT_FALSE(kernel_->grant(many));
}

TEST_F(DnsTest, TwoProcessorsTeachingOneAddressLoseNothing) {
  const std::uint64_t end = (boot_seconds() + 1000) * 1'000'000'000;
  for (int round = 0; round < 300; ++round) {
    kernel_->forget();
    const auto half = [&](std::uint32_t first) {
      std::vector<egressd_grant_request> requests;
      for (std::uint32_t i = 0; i < 4; ++i) {
        requests.push_back({v4(kPublic), end, first + i, EGRESSD_GRANT_ADD});
      }
      DnsKernel::grant_from_thread(*kernel_, requests);
    };
    std::thread other([&] { half(1); });
    half(5);
    other.join();
    ASSERT_THAT(grants(kPublic), UnorderedElementsAre(1, 2, 3, 4, 5, 6, 7, 8)) << round;
  }
}

// ---- events ----

TEST_F(DnsTest, LearningIsReportedWithTheMessage) {
  ask("www.example.org");
  const auto m = DnsMessage()
                     .header(kId, kOk, 1, 1)
                     .question("www.example.org")
                     .pointer(12)
                     .a(77, kPublic)
                     .bytes();
  teach(m);
  const auto events = kernel_->events();
  ASSERT_EQ(events.size(), 1U);
  egressd_dns_event e{};
  ASSERT_EQ(events[0].size(), sizeof(e) + m.size());
  std::memcpy(&e, events[0].data(), sizeof(e));
  EXPECT_EQ(e.kind, static_cast<__u32>(EGRESSD_DNS_EVENT_LEARNED));
  EXPECT_EQ(e.name_ids[0], 1U);
  EXPECT_EQ(e.addresses, 1);
  EXPECT_EQ(e.ttl_s, 77U);
  EXPECT_EQ(e.netns, static_cast<__u32>(DNS_TEST_NETNS));
  EXPECT_EQ(e.length, m.size());
  EXPECT_TRUE(std::equal(m.begin(), m.end(), events[0].begin() + sizeof(e)));
}

}  // namespace
}  // namespace egressd::test
