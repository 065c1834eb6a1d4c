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
