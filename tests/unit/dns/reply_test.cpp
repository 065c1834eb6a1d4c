#include "dns/reply.h"

#include <gmock/gmock.h>

namespace egressd::dns {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// Writes a DNS message by hand, so that it can be wrong on purpose.
class Message {
 public:
  Message(std::string_view name, std::uint16_t type, std::uint16_t answers) {
    for (const int v : {0x1234, 0x8180, 1, int{answers}, 0, 0}) u16(v);
    this->name(name).u16(type).u16(1);
  }
  Message& u8(int v) {
    bytes_.push_back(static_cast<std::uint8_t>(v));
    return *this;
  }
  Message& u16(int v) { return u8(v >> 8).u8(v & 0xff); }
  Message& u32(std::uint32_t v) {
    return u16(static_cast<int>(v >> 16)).u16(static_cast<int>(v & 0xffff));
  }
  Message& name(std::string_view text) {
    while (!text.empty()) {
      const auto label = text.substr(0, text.find('.'));
      u8(static_cast<int>(label.size()));
      for (const char c : label) u8(static_cast<unsigned char>(c));
      text.remove_prefix(std::min(label.size() + 1, text.size()));
    }
    return u8(0);
  }
  Message& a(std::string_view owner, std::uint32_t ttl, int last, int size = 4, int cls = 1) {
    name(owner).u16(1).u16(cls).u32(ttl).u16(size);
    return u8(192).u8(0).u8(2).u8(last);
  }
  Message& aaaa(std::string_view owner, std::uint32_t ttl, const char* address) {
    name(owner).u16(28).u16(1).u32(ttl).u16(16);
    const auto parsed = *net::IpAddress::parse(address);
    for (const std::uint8_t byte : parsed.bytes()) u8(byte);
    return *this;
  }
  Message& cname(std::string_view owner, std::uint32_t ttl, std::string_view target) {
    name(owner).u16(5).u16(1).u32(ttl).u16(static_cast<int>(target.size()) + 2);
    return name(target);
  }
  std::vector<std::uint8_t> bytes_;
};

std::vector<std::string> text_of(const Reply& reply) {
  std::vector<std::string> result;
  for (const auto& address : reply.addresses) result.push_back(address.to_string());
  return result;
}

TEST(ParseReply, ChainIsFollowedInWhateverOrderItComes) {
  Message m("www.example", 1, 3);
  m.a("b.example", 300, 1)
      .cname("a.example", 20, "B.Example")
      .cname("www.example", 60, "a.example");
  const auto reply = parse_reply(m.bytes_, "www.example", RecordType::A);
  ASSERT_TRUE(reply) << reply.error();
  EXPECT_THAT(reply->cname_chain, ElementsAre("a.example", "b.example"));
  EXPECT_THAT(text_of(*reply), ElementsAre("192.0.2.1"));
  EXPECT_EQ(reply->ttl, 20U);
}

TEST(ParseReply, AnIPv4AddressInAnAaaaRecordIsLeftOut) {
  Message m("www.example", 28, 2);
  m.aaaa("www.example", 1, "::ffff:203.0.113.1").aaaa("www.example", 300, "2001:db8::1");
  const auto reply = parse_reply(m.bytes_, "www.example", RecordType::Aaaa);
  ASSERT_TRUE(reply) << reply.error();
  EXPECT_THAT(text_of(*reply), ElementsAre("2001:db8::1"));
  EXPECT_EQ(reply->ttl, 300U);
}

TEST(ParseReply, RecordsOfOtherOwnersAndClassesAreLeftOut) {
  Message m("www.example", 1, 5);
  m.a("evil.example", 1, 66).a("www.example", 300, 1).a("www.example", 1, 67, 4, 3);
  m.cname("other.example", 1, "evil.example").a("www.example", 200, 1);
  const auto reply = parse_reply(m.bytes_, "www.example", RecordType::A);
  ASSERT_TRUE(reply) << reply.error();
  EXPECT_THAT(reply->cname_chain, IsEmpty());
  EXPECT_THAT(text_of(*reply), ElementsAre("192.0.2.1"));
  EXPECT_EQ(reply->ttl, 200U);
}

TEST(ParseReply, AddressOfTheNameItselfDoesNotCountBesideItsCname) {
  Message m("www.example", 1, 2);
  m.a("www.example", 300, 1).cname("www.example", 300, "a.example");
  const auto reply = parse_reply(m.bytes_, "www.example", RecordType::A);
  ASSERT_TRUE(reply) << reply.error();
  EXPECT_THAT(reply->addresses, IsEmpty());
  EXPECT_THAT(reply->cname_chain, ElementsAre("a.example"));
}

TEST(ParseReply, CompressedNamesAreRead) {
  Message m("www.example", 1, 1);
  m.u16(0xc00c).u16(1).u16(1).u32(5).u16(4).u32(0xc0000205);
  const auto reply = parse_reply(m.bytes_, "www.example", RecordType::A);
  ASSERT_TRUE(reply) << reply.error();
  EXPECT_THAT(text_of(*reply), ElementsAre("192.0.2.5"));
}

TEST(ParseReply, CompressionLoopsAndForwardPointersAreRefused) {
  for (const int target : {0xc01d, 0xc01f, 0xc0ff}) {  // the record starts at 0x1d
    Message m("www.example", 1, 1);
    ASSERT_EQ(m.bytes_.size(), 0x1dU);
    m.u16(target).u16(1).u16(1).u32(5).u16(4).u32(0xc0000205);
    EXPECT_FALSE(parse_reply(m.bytes_, "www.example", RecordType::A)) << target;
  }
}

TEST(ParseReply, TtlWithTheTopBitIsZero) {
  Message m("www.example", 1, 1);
  m.a("www.example", 0x80000000, 1);
  EXPECT_EQ(parse_reply(m.bytes_, "www.example", RecordType::A)->ttl, 0U);
}

TEST(ParseReply, CnameLoopIsRefused) {
  Message m("www.example", 1, 2);
  m.cname("www.example", 5, "a.example").cname("a.example", 5, "www.example");
  const auto reply = parse_reply(m.bytes_, "www.example", RecordType::A);
  ASSERT_FALSE(reply);
  EXPECT_THAT(reply.error(), HasSubstr("endless"));
}

TEST(ParseReply, DotInsideALabelDoesNotPassForTwoLabels) {
  Message m("www.example", 1, 1);
  m.u8(11);
  for (const char c : std::string_view("www.example")) m.u8(c);
  m.u8(0).u16(1).u16(1).u32(5).u16(4).u32(0xc0000205);
  const auto reply = parse_reply(m.bytes_, "www.example", RecordType::A);
  ASSERT_TRUE(reply) << reply.error();
  EXPECT_THAT(reply->addresses, IsEmpty());
}

TEST(ParseReply, AnswerToAnotherQuestionIsRefused) {
  Message m("www.example", 1, 0);
  EXPECT_TRUE(parse_reply(m.bytes_, "www.example", RecordType::A));
  EXPECT_FALSE(parse_reply(m.bytes_, "ww.example", RecordType::A));
  EXPECT_FALSE(parse_reply(m.bytes_, "www.example", RecordType::Aaaa));
  m.bytes_[2] = 0x01;  // QR off
  EXPECT_FALSE(parse_reply(m.bytes_, "www.example", RecordType::A));
}

TEST(ParseReply, AddressOfTheWrongSizeIsRefused) {
  Message m("www.example", 1, 1);
  m.a("www.example", 5, 1, 5).u8(0);
  EXPECT_FALSE(parse_reply(m.bytes_, "www.example", RecordType::A));
}

TEST(ParseReply, EveryTruncationIsRefused) {
  Message m("www.example", 1, 2);
  m.cname("www.example", 5, "a.example").a("a.example", 5, 1);
  ASSERT_TRUE(parse_reply(m.bytes_, "www.example", RecordType::A));
  for (std::size_t size = 0; size < m.bytes_.size(); ++size) {
    // A copy of exactly this size, so that the sanitizer sees a read past the end.
    const std::vector<std::uint8_t> cut(m.bytes_.begin(),
                                        m.bytes_.begin() + static_cast<std::ptrdiff_t>(size));
    EXPECT_FALSE(parse_reply(cut, "www.example", RecordType::A)) << size;
  }
}

TEST(ParseReply, EveryFlippedByteIsSurvived) {
  Message m("www.example", 1, 2);
  m.cname("www.example", 5, "a.example").a("a.example", 5, 1);
  for (std::size_t i = 0; i < m.bytes_.size(); ++i) {
    for (int v = 0; v < 256; ++v) {
      auto bytes = m.bytes_;
      bytes[i] = static_cast<std::uint8_t>(v);
      const auto reply = parse_reply(bytes, "www.example", RecordType::A);
      if (reply) {
        EXPECT_LE(reply->addresses.size(), 1U);
      }
    }
  }
}

}  // namespace
}  // namespace egressd::dns
