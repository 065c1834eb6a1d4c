#include "metrics/exposition.h"

#include <gmock/gmock.h>
#include <prometheus/check_names.h>

#include <map>
#include <set>
#include <sstream>

namespace egressd::metrics {
namespace {

using testing::HasSubstr;

// One of everything.
Snapshot full() {
  Snapshot s;
  s.taken = std::chrono::seconds(10);
  s.version = "1.2.3";
  s.generation = 7;
  s.policy_hash = "abc";
  s.enforce = true;
  s.programs = {{"egressd_connect4", true, ""}, {"egressd_connect6", false, "gone"}};
  s.unready = {"gone"};
  s.kernel.emplace();
  s.kernel->verdicts = {{"default_deny", true, 5}, {"network_rule", false, 6}};
  s.kernel->dns_outcomes = {{"learned", 3}};
  s.kernel->ring_lost = {{"denials", 1}, {"dns", 2}};
  s.maps = {{"egressd_learned", 3, 1024}};
  s.rule_denials = {{"block", "metadata", 2, 1}};
  s.failures = {{"example.com", 3}};
  s.dns_proxy = {.questions = {{"answered", 8}, {"refused", 4}},
                 .under_way = 2,
                 .held = 6,
                 .held_seconds = 0.25};
  return s;
}

struct Parsed {
  std::map<std::string, std::string> types;
  std::set<std::string> helped;
  std::map<std::string, double> samples;  // by name and labels
};

Parsed parse(const std::string& text) {
  Parsed parsed;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string hash;
    std::string kind;
    std::string name;
    std::string rest;
    if (line.starts_with("#")) {
      words >> hash >> kind >> name >> rest;
      EXPECT_FALSE(rest.empty()) << line;
      if (kind == "HELP") parsed.helped.insert(name);
      if (kind == "TYPE") parsed.types[name] = rest;
    } else {
      const std::size_t space = line.rfind(' ');
      EXPECT_TRUE(
          parsed.samples.emplace(line.substr(0, space), std::stod(line.substr(space))).second)
          << "twice: " << line;
    }
  }
  return parsed;
}

TEST(Exposition, EveryFamilyHasANameATypeAndHelp) {
  const Parsed parsed = parse(exposition(full(), std::chrono::seconds(12)));
  EXPECT_GT(parsed.types.size(), 20u);
  for (const auto& [name, type] : parsed.types) {
    EXPECT_TRUE(prometheus::CheckMetricName(name)) << name;
    EXPECT_TRUE(name.starts_with("egressd_")) << name;
    EXPECT_TRUE(parsed.helped.contains(name)) << name;
    EXPECT_EQ(type == "counter", name.ends_with("_total")) << name;
  }
  for (const auto& [sample, value] : parsed.samples)
    EXPECT_TRUE(parsed.types.contains(sample.substr(0, sample.find('{')))) << sample;
}

TEST(Exposition, Values) {
  const auto samples = parse(exposition(full(), std::chrono::milliseconds(12500))).samples;
  EXPECT_EQ(samples.at(R"(egressd_build_info{version="1.2.3"})"), 1);
  EXPECT_EQ(samples.at("egressd_snapshot_age_seconds"), 2.5);
  EXPECT_EQ(samples.at("egressd_policy_generation"), 7);
  EXPECT_EQ(samples.at(R"(egressd_policy_info{hash="abc"})"), 1);
  EXPECT_EQ(samples.at(R"(egressd_mode{mode="enforce"})"), 1);
  EXPECT_EQ(samples.at(R"(egressd_mode{mode="audit"})"), 0);
  EXPECT_EQ(samples.at("egressd_ready"), 0);
  EXPECT_EQ(samples.at(R"(egressd_program_attached{program="egressd_connect4"})"), 1);
  EXPECT_EQ(samples.at(R"(egressd_program_attached{program="egressd_connect6"})"), 0);
  EXPECT_EQ(samples.at(R"(egressd_verdicts_total{verdict="denied",reason="default_deny"})"), 5);
  EXPECT_EQ(samples.at(R"(egressd_verdicts_total{verdict="allowed",reason="network_rule"})"), 6);
  EXPECT_EQ(samples.at(R"(egressd_ring_records_lost_total{ring="dns"})"), 2);
  EXPECT_EQ(samples.at(R"(egressd_dns_proxy_questions_total{result="refused"})"), 4);
  EXPECT_EQ(samples.at("egressd_dns_proxy_under_way"), 2);
  EXPECT_EQ(samples.at("egressd_dns_proxy_held_answers_total"), 6);
  EXPECT_EQ(samples.at("egressd_dns_proxy_held_seconds_total"), 0.25);
  EXPECT_EQ(samples.at(R"(egressd_map_max_entries{map="egressd_learned"})"), 1024);
  EXPECT_EQ(
      samples.at(
          R"(egressd_rule_denials_total{collection="block",rule="metadata",verdict="denied"})"),
      2);
  EXPECT_EQ(samples.at(R"(egressd_resolver_consecutive_failures{name="example.com"})"), 3);
}

TEST(Exposition, LargeCountsKeepTheirDigits) {
  Snapshot s = full();
  s.kernel->verdicts = {{"default_deny", true, 9007199254740992}};  // 2^53, all a sample can hold
  EXPECT_THAT(exposition(s, s.taken), HasSubstr("default_deny\"} 9007199254740992\n"));
}

// Between two scrapes a counter may only grow; where the kernel was not asked it is absent, not 0.
TEST(Exposition, CountersNeverFall) {
  Snapshot s = full();
  const Parsed before = parse(exposition(s, s.taken));
  s.kernel.reset();
  const Parsed unknown = parse(exposition(s, s.taken));
  s = full();
  s.kernel->verdicts[0].value += 2;
  s.rule_denials[0].denied += 1;
  const Parsed after = parse(exposition(s, s.taken));
  for (const auto& [sample, value] : before.samples) {
    const std::string name = sample.substr(0, sample.find('{'));
    if (before.types.at(name) != "counter") continue;
    EXPECT_GE(after.samples.at(sample), value) << sample;
    if (unknown.samples.contains(sample)) {
      EXPECT_GE(unknown.samples.at(sample), value) << sample;
    }
  }
  EXPECT_FALSE(unknown.types.contains("egressd_verdicts_total"));
}

TEST(Exposition, NoHeadWithoutABody) {
  const std::string text = exposition(Snapshot{}, BootTime{0});
  const Parsed parsed = parse(text);
  for (const auto& [name, type] : parsed.types) {
    EXPECT_TRUE(std::ranges::any_of(parsed.samples, [&](const auto& sample) {
      return sample.first.substr(0, sample.first.find('{')) == name;
    })) << name;
  }
}

TEST(Exposition, LabelsAreEscaped) {
  Snapshot s = full();
  s.rule_denials = {{"a\"b", "c\\d\ne", 1, 0}};
  const std::string text = exposition(s, s.taken);
  EXPECT_THAT(text, HasSubstr(R"(collection="a\"b",rule="c\\d\ne")"));
}

}  // namespace
}  // namespace egressd::metrics
