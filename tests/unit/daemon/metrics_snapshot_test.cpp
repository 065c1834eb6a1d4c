#include "daemon/metrics_snapshot.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "metrics/exposition.h"

namespace egressd::daemon {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

StatusReport in_force() {
  StatusReport report;
  report.generation = 3;
  report.attached = true;
  report.counters_known = true;
  report.layers = {{.program = "egressd_conn4", .attached = true, .detail = "program 5"}};
  return report;
}

dns::Resolver::NameStatus name(const std::string& fqdn, bool resolved, std::uint32_t failures) {
  dns::Resolver::NameStatus status;
  status.fqdn = fqdn;
  status.resolved = resolved;
  status.consecutive_failures = failures;
  return status;
}

std::string text(const StatusReport& report, const std::vector<std::string>& names = {}) {
  return metrics::exposition(snapshot_of(report, names, {}, BootTime{0}), BootTime{0});
}

TEST(MetricsSnapshot, ReadyOnlyIfEverythingIsInPlace) {
  StatusReport report = in_force();
  EXPECT_THAT(snapshot_of(report, {}, {}, BootTime{0}).unready, IsEmpty());
  report.layers.push_back({.program = "egressd_conn6", .detail = "not attached to /x"});
  EXPECT_THAT(snapshot_of(report, {}, {}, BootTime{0}).unready,
              ElementsAre("egressd_conn6: not attached to /x; restart egressd"));
  report = in_force();
  report.attached = false;
  EXPECT_THAT(snapshot_of(report, {}, {}, BootTime{0}).unready, ElementsAre(HasSubstr("waiting")));
  report = in_force();
  report.generation = 0;
  EXPECT_THAT(snapshot_of(report, {}, {}, BootTime{0}).unready, ElementsAre(HasSubstr("policy")));
}

TEST(MetricsSnapshot, EveryReasonAndOutcomeHasASeries) {
  StatusReport report = in_force();
  report.counters.reasons[EGRESSD_DENY_DEFAULT] = 5;
  report.counters.reasons[EGRESSD_ALLOW_NETWORK_RULE] = 6;
  report.counters.dns[EGRESSD_DNS_ADDR_EVICTED] = 7;
  report.counters.dns[EGRESSD_DNS_EVENTS_LOST] = 8;
  const std::string all = text(report);
  EXPECT_THAT(all,
              HasSubstr(R"(egressd_verdicts_total{verdict="denied",reason="default_deny"} 5)"));
  EXPECT_THAT(all,
              HasSubstr(R"(egressd_verdicts_total{verdict="allowed",reason="network_rule"} 6)"));
  EXPECT_THAT(all, HasSubstr(R"(egressd_dns_outcomes_total{outcome="address_evicted"} 7)"));
  EXPECT_THAT(all, HasSubstr(R"(egressd_ring_records_lost_total{ring="dns"} 8)"));
  const auto json = nlohmann::json::parse(to_json(report));
  for (const auto& [reason, value] : json["counters"].items())
    EXPECT_THAT(all, HasSubstr("reason=\"" + reason + "\"")) << reason;
}

TEST(MetricsSnapshot, WhatTheKernelDidNotTellIsAbsent) {
  StatusReport report = in_force();
  report.counters_known = false;
  const std::string all = text(report);
  EXPECT_THAT(all, Not(HasSubstr("egressd_verdicts_total")));
  EXPECT_THAT(all, HasSubstr("egressd_policy_generation 3"));
}

TEST(MetricsSnapshot, OnlyNamesOfThePolicyAreShown) {
  StatusReport report = in_force();
  report.resolver = {name("a.example", true, 0), name("b.example", false, 2),
                     name("asked.by.a.process", false, 1)};
  const std::string all = text(report, {"a.example", "b.example"});
  EXPECT_THAT(all, HasSubstr("egressd_resolver_names 3"));
  EXPECT_THAT(all, HasSubstr("egressd_resolver_names_unresolved 2"));
  EXPECT_THAT(all, HasSubstr("egressd_resolver_names_failing 2"));
  EXPECT_THAT(all, HasSubstr(R"(egressd_resolver_consecutive_failures{name="b.example"} 2)"));
  EXPECT_THAT(all, Not(HasSubstr("process")));
}

TEST(MetricsSnapshot, OfManyNamesTheWorst) {
  StatusReport report = in_force();
  std::vector<std::string> names;
  for (std::uint32_t i = 0; i < 1000; ++i) {
    names.push_back("n" + std::to_string(i) + ".example");
    report.resolver.push_back(name(names.back(), true, i == 777 ? 9 : 0));
  }
  const auto s = snapshot_of(report, names, {}, BootTime{0});
  EXPECT_EQ(s.names, 1000u);
  ASSERT_EQ(s.failures.size(), 200u);
  EXPECT_EQ(s.failures[0].name, "n777.example");
}

TEST(MetricsSnapshot, BytesThatAreNoUtf8AreReplaced) {
  StatusReport report = in_force();
  report.rule_denials[{"c\xff", "\xc3\xa4"}] = {1, 0};
  const std::string all = text(report);
  EXPECT_THAT(all, HasSubstr("collection=\"c\xef\xbf\xbd\",rule=\"\xc3\xa4\""));
}

}  // namespace
}  // namespace egressd::daemon
