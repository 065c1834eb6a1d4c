#include "audit/record.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "audit/cgroup_path.h"
#include "base/clock.h"

namespace egressd::audit {
namespace {

using nlohmann::json;
using testing::HasSubstr;

// The ends of the two ranges of egressd_abi.h. That no enumerator between lacks a name is checked
// by the compiler (-Wswitch).
constexpr std::uint32_t kAllowEnd = EGRESSD_ALLOW_OPEN + 1;
constexpr std::uint32_t kDenyBegin = EGRESSD_DENY_NO_POLICY;

TEST(Reason, EveryNumberHasANameAndASentence) {
  for (std::uint32_t r = 0; r < EGRESSD_REASON_MAX; ++r) {
    EXPECT_NE(std::string(reason_name(r)), "") << r;
    EXPECT_NE(std::string(reason_text(r)), "") << r;
  }
  EXPECT_STREQ(reason_name(EGRESSD_REASON_MAX), "unknown");
  EXPECT_STREQ(reason_name(0xffffffff), "unknown");
  EXPECT_STREQ(reason_name(kAllowEnd), "unknown");
}

TEST(Reason, NamesAreDistinctSnakeCase) {
  std::set<std::string> seen;
  for (std::uint32_t r = 0; r < EGRESSD_REASON_MAX; ++r) {
    const std::string name = reason_name(r);
    EXPECT_EQ(name.find_first_not_of("abcdefghijklmnopqrstuvwxyz_"), std::string::npos) << name;
    EXPECT_TRUE(name == "unknown" || seen.insert(name).second) << name;
  }
  for (std::uint32_t r = 0; r < kAllowEnd; ++r) EXPECT_STRNE(reason_name(r), "unknown") << r;
  for (std::uint32_t r = kDenyBegin; r <= EGRESSD_DENY_DNS_MALFORMED; ++r)
    EXPECT_STRNE(reason_name(r), "unknown") << r;
  EXPECT_STREQ(reason_name(EGRESSD_DENY_DEFAULT), "default_deny");
  EXPECT_STREQ(reason_name(EGRESSD_DENY_PORT), "port_not_allowed");
}

egressd_event event_to(const char* address, std::uint16_t port) {
  egressd_event event{};
  event.time_ns = static_cast<std::uint64_t>(SystemClock().now().count());
  const auto bytes = net::IpAddress::parse(address)->bytes();
  std::memcpy(event.daddr.addr, bytes.data(), bytes.size());
  event.dport = htons(port);
  event.proto = IPPROTO_TCP;
  event.hook = EGRESSD_HOOK_CONNECT;
  event.verdict = EGRESSD_ACTION_DENY;
  event.reason = EGRESSD_DENY_DEFAULT;
  event.rule_id = EGRESSD_NO_RULE;
  return event;
}

void set_comm(egressd_event& event, std::string_view comm) {
  std::memset(event.comm, 0, sizeof(event.comm));
  std::memcpy(event.comm, comm.data(), std::min(comm.size(), sizeof(event.comm)));
}

TEST(MakeRecord, CarriesWhatTheEventSays) {
  auto event = event_to("203.0.113.9", 443);
  event.generation = 7;
  event.reason = EGRESSD_DENY_PORT;
  event.socket_cookie = 99;
  event.sport = htons(40000);
  const auto source = net::IpAddress::parse("192.0.2.1")->bytes();
  std::memcpy(event.saddr.addr, source.data(), source.size());
  event.hook = EGRESSD_HOOK_PACKET;
  event.length = 60;
  const auto r =
      make_record(event, {.collection = "web", .rule = "py", .fqdns = {"a.example", "b.example"}});
  EXPECT_TRUE(r.denied);
  EXPECT_EQ(r.reason, "port_not_allowed");
  EXPECT_EQ(r.hook, "packet");
  EXPECT_EQ(r.destination.to_string(), "203.0.113.9");
  EXPECT_EQ(r.port, 443);
  ASSERT_TRUE(r.source);
  EXPECT_EQ(r.source->to_string(), "192.0.2.1");
  EXPECT_EQ(r.source_port, 40000);
  EXPECT_EQ(r.generation, 7u);
  EXPECT_EQ(r.length, 60u);
  EXPECT_EQ(r.collection, "web");
  EXPECT_EQ(r.fqdns.size(), 2u);
}

TEST(MakeRecord, BootTimeBecomesWallClock) {
  auto event = event_to("203.0.113.9", 443);
  event.time_ns -= 90'000'000'000;
  const auto r = make_record(event, {});
  const auto ago = std::chrono::system_clock::now() - r.time;
  EXPECT_GE(ago, std::chrono::milliseconds(89'900));
  EXPECT_LE(ago, std::chrono::milliseconds(91'000));
}

TEST(MakeRecord, UnknownProcessHasNoUid) {
  const auto r = make_record(event_to("2001:db8::1", 53), {});
  EXPECT_EQ(r.pid, 0u);
  EXPECT_FALSE(r.uid);
  const auto j = json::parse(r.to_json());
  EXPECT_FALSE(j.contains("uid"));
  EXPECT_FALSE(j.contains("pid"));
  EXPECT_FALSE(j.contains("source"));
}

TEST(MakeRecord, RootsUidIsNotMistakenForUnknown) {
  auto event = event_to("2001:db8::1", 53);
  event.tgid = 0x7ffffff0;  // beyond pid_max: no such process
  event.uid = 0;
  const auto r = make_record(event, {});
  ASSERT_TRUE(r.uid);
  EXPECT_EQ(*r.uid, 0u);
  EXPECT_EQ(r.exe, "");
  EXPECT_EQ(json::parse(r.to_json())["uid"], 0);
}

TEST(MakeRecord, AuditedEventIsWouldDeny) {
  auto event = event_to("203.0.113.9", 443);
  event.verdict = EGRESSD_ACTION_ALLOW;
  const auto r = make_record(event, {});
  EXPECT_FALSE(r.denied);
  EXPECT_EQ(json::parse(r.to_json())["verdict"], "would_deny");
  EXPECT_THAT(r.to_text(), HasSubstr("WOULD-DENY"));
}

TEST(MakeRecord, CommWithoutTerminatorIsBounded) {
  auto event = event_to("203.0.113.9", 443);
  event.tgid = 0x7ffffff0;
  set_comm(event, "0123456789abcdef");
  EXPECT_EQ(make_record(event, {}).comm, "0123456789abcdef");
}

TEST(RecordJson, IsOneLineWithSchemaAndUtcMicroseconds) {
  Record r;
  r.time = std::chrono::system_clock::time_point(std::chrono::microseconds(1'767'225'599'000'042));
  const auto text = r.to_json();
  EXPECT_EQ(text.find('\n'), std::string::npos);
  const auto j = json::parse(text);
  EXPECT_EQ(j["schema"], 1);
  EXPECT_EQ(j["time"], "2025-12-31T23:59:59.000042Z");
}

TEST(RecordJson, HostileNamesStayOneAsciiLineAndValidJson) {
  auto event = event_to("203.0.113.9", 443);
  event.tgid = 0x7ffffff0;
  set_comm(event, "\x1b[2J\"\n\\\xff\xc2\x9b\x7f");
  auto r = make_record(event, {});
  r.exe = "/tmp/\x1b]0;x\x07\xe2\x80\xae";
  const auto text = r.to_json();
  for (const char c : text) {
    EXPECT_GE(static_cast<unsigned char>(c), 0x20) << text;
    EXPECT_LT(static_cast<unsigned char>(c), 0x7f) << text;
  }
  const auto j = json::parse(text);
  EXPECT_THAT(j["comm"].get<std::string>(), HasSubstr("\x1b[2J\"\n\\"));
}

TEST(RecordText, HostileNamesNeverReachTheTerminalRaw) {
  Record r;
  r.reason = "default_deny";
  r.hook = "packet\x1b";
  r.comm = "\x1b[2J\nDENIED\r\x9b\x7f";
  r.exe = "/tmp/\xe2\x80\xae\x1b]0;x\x07";
  r.cgroup = "/a\nb";
  r.collection = "\x1b";
  r.rule = "\x1b";
  r.fqdns = {"\x1b.example"};
  const auto text = r.to_text();
  for (const char c : text) {
    EXPECT_GE(static_cast<unsigned char>(c), 0x20) << text;
    EXPECT_LT(static_cast<unsigned char>(c), 0x7f) << text;
  }
  EXPECT_THAT(text, HasSubstr("\\x1b[2J\\x0aDENIED\\x0d\\x9b\\x7f"));
}

TEST(RecordText, EscapingCannotBeForged) {
  EXPECT_EQ(printable("\\x1b"), "\\x5cx1b");
  EXPECT_NE(printable("\\x1b"), printable("\x1b"));
}

TEST(RecordText, BracketsIpv6WithPort) {
  Record r;
  r.destination = *net::IpAddress::parse("2001:db8::1");
  r.port = 443;
  EXPECT_THAT(r.to_text(), HasSubstr("[2001:db8::1]:443"));
  r.port = 0;
  r.protocol = net::Protocol::Icmpv6;
  EXPECT_THAT(r.to_text(), HasSubstr("icmp 2001:db8::1 "));
}

TEST(RecordJson, ReadsBackWhatItWrote) {
  auto event = event_to("2001:db8::7", 8443);
  event.tgid = 0x7ffffff0;
  event.pid = 0x7ffffff1;
  event.uid = 1000;
  event.cgroup_id = 0xfffffffffffffff0;
  event.proto = 47;
  set_comm(event, "gre \"x\"");
  auto r = make_record(event, {.collection = "c", .rule = "r", .fqdns = {"a.example"}});
  r.exe = "/usr/bin/gre";
  r.cmdline = "gre -v";
  r.user = "somebody";
  r.cgroup = "/x";
  r.unit = "x.service";
  r.container_id = std::string(64, 'a');
  r.pod_uid = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
  r.cname_chain = {"b.example", "c.example"};
  r.count = 70000000000;
  r.last_time = r.time + std::chrono::seconds(3);
  r.length = 9;
  r.socket_cookie = 5;
  const auto back = Record::from_json(r.to_json());
  ASSERT_TRUE(back);
  EXPECT_EQ(back->to_json(), r.to_json());
  EXPECT_EQ(back->to_text(), r.to_text());
}

TEST(RecordJson, RefusesWhatIsNoRecord) {
  const auto good = json::parse(Record{}.to_json());
  ASSERT_TRUE(Record::from_json(good.dump()));
  for (const char* text : {"", "{", "[]", "null", "{}", "{\"dropped\":4}", "\xff"})
    EXPECT_FALSE(Record::from_json(text)) << text;
  for (const auto& [key, value] : std::initializer_list<std::pair<const char*, json>>{
           {"schema", 2},
           {"time", "yesterday"},
           {"time", "2025-12-31T23:59:59.000042Zjunk"},
           {"verdict", "maybe"},
           {"destination", "example.com"},
           {"protocol", "300"},
           {"protocol", 6}}) {
    auto bad = good;
    bad[key] = value;
    EXPECT_FALSE(Record::from_json(bad.dump())) << bad;
  }
}

TEST(RecordJson, MembersOfTheWrongTypeAreIgnored) {
  auto j = json::parse(Record{}.to_json());
  j["port"] = 70000;
  j["comm"] = json::array({1});
  j["pid"] = -4;
  j["uid"] = "root";
  j["fqdns"] = json::array({1, "a.example"});
  const auto r = Record::from_json(j.dump());
  ASSERT_TRUE(r);
  EXPECT_EQ(r->port, 0);
  EXPECT_EQ(r->pid, 0u);
  EXPECT_FALSE(r->uid);
  EXPECT_THAT(r->fqdns, testing::ElementsAre("a.example"));
}

}  // namespace
}  // namespace egressd::audit
