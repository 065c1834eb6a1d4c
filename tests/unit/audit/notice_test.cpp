#include "audit/notice.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>
#include <set>

#include "audit/azfw_format.h"

namespace egressd::audit {
namespace {

using Event = Notice::Event;
using testing::HasSubstr;
using testing::Not;

TEST(Notice, EveryEventHasANameAndASentence) {
  std::set<std::string> names;
  for (const Event event :
       {Event::Gap, Event::BreakGlassOpened, Event::BreakGlassClosed, Event::TrialStarted,
        Event::TrialConfirmed, Event::TrialReplaced, Event::TrialRolledBack}) {
    Notice notice;
    notice.event = event;
    EXPECT_TRUE(names.insert(notice.event_name()).second) << notice.event_name();
    EXPECT_NE(notice.to_text(), "");
  }
}

TEST(Notice, KeysThatAreNotKnownAreAbsent) {
  EXPECT_EQ(Notice::gap({}, 3, "kernel", "default_deny").to_json(),
            R"({"schema":1,"event":"gap","time":"1970-01-01T00:00:00.000000Z","count":3,)"
            R"("cause":"kernel","reason":"default_deny"})");
  Notice trial;
  trial.event = Event::TrialConfirmed;
  trial.policy = "/p";
  EXPECT_EQ(trial.to_json(),
            R"({"schema":1,"event":"trial_confirmed","time":"1970-01-01T00:00:00.000000Z",)"
            R"("policy":"/p"})");
}

TEST(Notice, WhatSomebodyWroteReachesNoTerminalAsItIs) {
  Notice open;
  open.event = Event::BreakGlassOpened;
  open.comment = "\x1b[2J\xff\n";
  EXPECT_THAT(open.to_text(), HasSubstr(R"(\x1b[2J\xff\x0a)"));
  EXPECT_TRUE(nlohmann::json::accept(open.to_json()));
  EXPECT_THAT(open.to_json(), Not(HasSubstr("\xff")));
}

TEST(Notice, AQuestionIsADnsQueryInAzfw) {
  Notice notice;
  notice.event = Event::DnsQuestion;
  notice.uid = 7;
  notice.question = {.name = "a.test",
                     .type = "AAAA",
                     .server = *net::IpAddress::parse("192.0.2.1"),
                     .protocol = net::Protocol::Tcp,
                     .source_port = 5,
                     .source = *net::IpAddress::parse("192.0.2.2"),
                     .rcode = "NOERROR",
                     .addresses = {*net::IpAddress::parse("2001:db8::1")},
                     .size = 30,
                     .answer_size = 60,
                     .took = std::chrono::microseconds(1500),
                     .cgroup = "/c"};
  EXPECT_EQ(AzfwFormat({"host1", ""}).line(notice),
            R"({"TimeGenerated":"1970-01-01T00:00:00.000000Z","Type":"AZFWDnsQuery",)"
            R"("Computer":"host1","QueryName":"a.test.","QueryType":"AAAA","QueryClass":"IN",)"
            R"("Protocol":"tcp","ResponseCode":"NOERROR","RequestSize":30,"ResponseSize":60,)"
            R"("RequestDurationSecs":0.0015,"SourceIp":"192.0.2.2","SourcePort":5,)"
            R"("EgressdEvent":"dns_question","EgressdUid":7,"EgressdServer":"192.0.2.1",)"
            R"("EgressdAddresses":["2001:db8::1"],"EgressdCgroup":"/c"})");
  notice.question->name = "\x1b[2J.test";
  EXPECT_EQ(notice.to_text(), R"(DNS AAAA \x1b[2J.test -> NOERROR 2001:db8::1)");
  for (const char c : notice.to_json()) EXPECT_TRUE(c >= 0x20 && c < 0x7f);
}

TEST(Notice, HasATableOfItsOwnInAzfw) {
  Notice trial;
  trial.event = Event::TrialRolledBack;
  trial.policy = "/p";
  EXPECT_EQ(AzfwFormat({"host1", ""}).line(trial),
            R"({"TimeGenerated":"1970-01-01T00:00:00.000000Z","Type":"EgressdEvent",)"
            R"("Computer":"host1","EgressdEvent":"trial_rolled_back","EgressdPolicy":"/p"})");
}

}  // namespace
}  // namespace egressd::audit
