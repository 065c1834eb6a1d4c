#include "daemon/rejudge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>

#include "policy/parser.h"

namespace egressd::daemon {
namespace {

using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

// One policy after the other, as the daemon puts them in force.
class RejudgeTest : public ::testing::Test {
 protected:
  RejudgeTest() {
    char dir[] = "/tmp/egressd-rejudge-XXXXXX";
    dir_ = ::mkdtemp(dir);
    ids_ = std::make_unique<NameIds>(*NameIds::load(dir_ + "/names", "1"));
  }
  ~RejudgeTest() override { std::filesystem::remove_all(dir_); }

  // Patterns of rules: "!" in front denies, "private " allows private addresses.
  Compiled compile_patterns(const std::vector<std::string>& patterns) {
    std::string deny, allow;
    int n = 0;
    for (std::string pattern : patterns) {
      const bool refused = pattern.starts_with('!');
      const bool is_private = pattern.starts_with("private ");
      pattern = pattern.substr(refused ? 1 : is_private ? 8 : 0);
      (refused ? deny : allow) += "      - {name: r" + std::to_string(n++) + ", fqdns: ['" +
                                  pattern + "'], ports: ['*']" +
                                  (is_private ? ", allowPrivate: true" : "") + "}\n";
    }
    std::string text = "version: 1\nmode: enforce\ncollections:\n";
    if (!deny.empty())
      text += "  - name: d\n    priority: 100\n    action: deny\n    rules:\n" + deny;
    if (!allow.empty())
      text += "  - name: a\n    priority: 200\n    action: allow\n    rules:\n" + allow;
    const auto parsed = policy::parse_policy(text, "test.yaml", policy::TagCatalog::builtin());
    if (!parsed) {
      for (const auto& d : parsed.error()) ADD_FAILURE() << d.to_string();
      return {};
    }
    auto compiled = compile(parsed->policy, 1, {}, *ids_);
    EXPECT_TRUE(compiled);
    return std::move(*compiled);
  }
  void in_force(const std::vector<std::string>& patterns) {
    ids_->set_refusing(refusing_patterns(compile_patterns(patterns).names));
  }
  // An address granted to a pattern, whether or not the name is known.
  void granted(const std::string& pattern, const std::string& fqdn, const char* address) {
    grants_.push_back({*net::IpAddress::parse(address), ids_->id_of(pattern), seconds(100)});
    if (fqdn.empty()) return;
    dns::Answer answer;
    answer.fqdn = fqdn;
    learned_.record(answer, {grants_.back()});
  }
  // Of those that were granted something.
  std::set<std::string> renewed(const std::vector<std::string>& patterns) {
    auto renewed = patterns_to_renew(compile_patterns(patterns), *ids_, learned_, grants_);
    std::erase_if(renewed, [&](const std::string& pattern) {
      return std::ranges::find(grants_, ids_->id_of(pattern), &enforce::LearnedAddress::name_id) ==
             grants_.end();
    });
    return renewed;
  }

  std::string dir_;
  std::unique_ptr<NameIds> ids_;
  LearnedNames learned_;
  std::vector<enforce::LearnedAddress> grants_;
};

TEST_F(RejudgeTest, TheSamePolicyKeepsEverything) {
  const std::vector<std::string> policy{"*.x.test", "!bad.x.test", "a-*.x.test", "private p.test"};
  in_force(policy);
  granted("*.x.test", "", "203.0.113.1");
  granted("*.x.test", "good.x.test", "203.0.113.2");
  granted("a-*.x.test", "", "203.0.113.3");
  granted("p.test", "", "10.0.0.1");
  EXPECT_THAT(renewed(policy), IsEmpty());
}

TEST_F(RejudgeTest, ADenyRuleTakesItsNameFromTheWiderPattern) {
  in_force({"*.x.test", "*.y.test"});
  granted("*.x.test", "bad.x.test", "203.0.113.1");
  granted("*.x.test", "good.x.test", "203.0.113.2");
  granted("*.y.test", "", "203.0.113.3");
  EXPECT_THAT(renewed({"*.x.test", "*.y.test", "!bad.x.test"}), ElementsAre("*.x.test"));
  EXPECT_THAT(renewed({"*.x.test", "*.y.test", "!other.x.test"}), IsEmpty())
      << "every name is known, and none is refused";
}

TEST_F(RejudgeTest, UnknownNamesOfAWiderPatternAreTakenForRefused) {
  in_force({"*.x.test", "*.sub.x.test", "a-*.x.test", "*.y.test"});
  granted("*.x.test", "", "203.0.113.1");
  granted("*.sub.x.test", "", "203.0.113.2");
  granted("a-*.x.test", "", "203.0.113.3");
  granted("*.y.test", "", "203.0.113.4");
  const std::vector<std::string> before{"*.x.test", "*.sub.x.test", "a-*.x.test", "*.y.test"};
  auto with = [&](const std::string& more) {
    auto policy = before;
    policy.push_back(more);
    return renewed(policy);
  };
  EXPECT_THAT(with("!bad.x.test"), ElementsAre("*.x.test"));
  EXPECT_THAT(with("!a-1.x.test"), UnorderedElementsAre("*.x.test", "a-*.x.test"));
  EXPECT_THAT(with("!*.bad.sub.x.test"), UnorderedElementsAre("*.x.test", "*.sub.x.test"));
  EXPECT_THAT(with("!a-b*.x.test"), UnorderedElementsAre("*.x.test", "a-*.x.test"));
  EXPECT_THAT(with("!x.test"), IsEmpty());
}

TEST_F(RejudgeTest, ANarrowerPatternThatOnlyAllowsTakesNothing) {
  in_force({"*.x.test"});
  granted("*.x.test", "", "203.0.113.1");
  granted("*.x.test", "api.x.test", "203.0.113.2");
  EXPECT_THAT(renewed({"*.x.test", "api.x.test"}), IsEmpty());
  // … until it refuses.
  in_force({"*.x.test", "api.x.test"});
  EXPECT_THAT(renewed({"*.x.test", "api.x.test", "!api.x.test"}), ElementsAre("*.x.test"));
}

TEST_F(RejudgeTest, ANameKnownOnlyForAShorterTimeDoesNotExplainTheGrant) {
  in_force({"*.x.test"});
  granted("*.x.test", "good.x.test", "203.0.113.1");
  grants_.back().expires += seconds(50);
  EXPECT_THAT(renewed({"*.x.test", "!bad.x.test"}), ElementsAre("*.x.test"));
}

TEST_F(RejudgeTest, WhatLeftThePolicyComesBackUnlessSomethingRefusingCameMeanwhile) {
  in_force({"*.x.test", "*.y.test"});
  granted("*.x.test", "", "203.0.113.1");
  in_force({"*.y.test"});
  EXPECT_THAT(renewed({"*.x.test", "*.y.test"}), IsEmpty());
  EXPECT_THAT(renewed({"*.y.test", "!bad.x.test"}), ElementsAre("*.x.test"));
}

TEST_F(RejudgeTest, PrivateAddressesEndWhenTheyAreNoLongerMeant) {
  in_force({"private *.x.test"});
  granted("*.x.test", "", "10.0.0.1");
  EXPECT_THAT(renewed({"private *.x.test"}), IsEmpty());
  EXPECT_THAT(renewed({"*.x.test"}), ElementsAre("*.x.test"));
}

TEST_F(RejudgeTest, AGrantIsRightUnderAPatternTheNameBelongsTo) {
  const auto next = compile_patterns({"*.x.test", "!bad.x.test", "api.x.test", "a-*.x.test"});
  const auto entry = [&](const std::string& pattern) -> const NameMatcher::Entry& {
    return *std::ranges::find(next.names.entries(), pattern,
                              [](const auto& e) { return e.pattern.text(); });
  };
  EXPECT_TRUE(still_right(next.names, "good.x.test", entry("*.x.test")));
  EXPECT_TRUE(still_right(next.names, "api.x.test", entry("*.x.test")));
  EXPECT_TRUE(still_right(next.names, "a-1.x.test", entry("*.x.test")));
  EXPECT_FALSE(still_right(next.names, "bad.x.test", entry("*.x.test")));
  EXPECT_FALSE(still_right(next.names, "good.y.test", entry("*.x.test")));
  EXPECT_FALSE(still_right(next.names, "good.x.test", entry("a-*.x.test")));
}

}  // namespace
}  // namespace egressd::daemon
