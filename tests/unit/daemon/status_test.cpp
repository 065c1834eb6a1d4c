#include "daemon/status.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace egressd::daemon {
namespace {

TEST(Status, CountersGoByTheNamesOfTheirReasons) {
  StatusReport report;
  report.enforce = true;
  report.counters.reasons[EGRESSD_DENY_DEFAULT] = 5;
  report.counters.stats[EGRESSD_STAT_EVENTS_LOST] = 2;
  const auto json = nlohmann::json::parse(to_json(report));
  EXPECT_EQ(json["mode"], "enforce");
  EXPECT_EQ(json["last_reload_worked"], true);
  EXPECT_EQ(json["last_good_reload"], "1970-01-01T00:00:00.000000Z");
  EXPECT_EQ(json["counters"]["default_deny"], 5);
  EXPECT_EQ(json["stats"]["events_lost"], 2);
}

TEST(Status, BytesThatAreNoUtf8AreReplaced) {
  StatusReport report;
  report.policy_path = "/tmp/\xff.yaml";
  EXPECT_TRUE(nlohmann::json::accept(to_json(report)));
}

TEST(Status, ListEntryWithoutAnEndHasNone) {
  ListEntry entry;
  entry.address = "10.0.0.0/8";
  EXPECT_FALSE(nlohmann::json::parse(to_json(entry)).contains("expires_in_seconds"));
  entry.expires_in = std::chrono::seconds(9);
  EXPECT_EQ(nlohmann::json::parse(to_json(entry))["expires_in_seconds"], 9);
}

TEST(Status, NamesEachAuditSinkWithItsLosses) {
  StatusReport report;
  report.audit_lost = 2;
  report.audit_sinks = {{"/var/log/egressd.jsonl", 0}, {"journal /run/systemd/journal/socket", 2}};
  const auto json = nlohmann::json::parse(to_json(report));
  EXPECT_EQ(json["stats"]["records_lost"], 2);
  EXPECT_EQ(json["audit_sinks"][0]["name"], "/var/log/egressd.jsonl");
  EXPECT_EQ(json["audit_sinks"][1]["lost"], 2);
}

TEST(Status, FingerprintTellsFilesApart) {
  EXPECT_EQ(fingerprint(""), "cbf29ce484222325");  // FNV-1a offset basis
  EXPECT_NE(fingerprint("a"), fingerprint("b"));
}

}  // namespace
}  // namespace egressd::daemon
