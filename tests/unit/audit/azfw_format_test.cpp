#include "audit/azfw_format.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

namespace egressd::audit {
namespace {

using nlohmann::json;

Record record(const std::string& reason) {
  Record r;
  r.reason = reason;
  r.hook = "connect";
  r.destination = *net::IpAddress::parse("198.51.100.9");
  r.port = 443;
  r.pid = 7;
  r.comm = "curl";
  r.cgroup_id = 9;
  r.container_id = "c0ffee";
  return r;
}

json line(const Record& r) {
  return json::parse(AzfwFormat({"host1", "/subscriptions/s/vm"}).line(r));
}

// Columns of the tables as Azure Monitor's reference lists them, less those ingestion fills.
const std::set<std::string> kCommon{"TimeGenerated", "Type", "_ResourceId", "Computer"};
const std::set<std::string> kNetwork{
    "Action", "ActionReason", "DestinationIp",  "DestinationPort",     "Policy",    "Protocol",
    "Rule",   "SourceIp",     "RuleCollection", "RuleCollectionGroup", "SourcePort"};
const std::set<std::string> kApplication{
    "Action",   "ActionReason", "DestinationPort", "Fqdn",        "IsExplicitProxyRequest",
    "Policy",   "Protocol",     "IsTlsInspected",  "Rule",        "RuleCollection",
    "SourceIp", "SourcePort",   "TargetUrl",       "WebCategory", "RuleCollectionGroup"};
const std::set<std::string> kDns{
    "DnssecOkBit", "EDNS0BufferSize",     "ErrorMessage", "ErrorNumber",
    "Protocol",    "QueryClass",          "QueryId",      "QueryName",
    "QueryType",   "RequestDurationSecs", "RequestSize",  "ResponseCode",
    "SourceIp",    "ResponseFlags",       "ResponseSize", "SourcePort"};

void expect_columns(const json& j, const std::set<std::string>& table) {
  for (const auto& [key, value] : j.items())
    EXPECT_TRUE(kCommon.contains(key) || table.contains(key) || key.starts_with("Egressd")) << key;
}

TEST(AzfwFormat, AddressAloneIsANetworkRule) {
  auto r = record("default_deny");
  r.source = *net::IpAddress::parse("192.0.2.2");
  r.source_port = 40000;
  const auto j = line(r);
  expect_columns(j, kNetwork);
  EXPECT_EQ(j["Type"], "AZFWNetworkRule");
  EXPECT_EQ(j["TimeGenerated"], "1970-01-01T00:00:00.000000Z");
  EXPECT_EQ(j["Computer"], "host1");
  EXPECT_EQ(j["_ResourceId"], "/subscriptions/s/vm");
  EXPECT_EQ(j["Action"], "Deny");
  EXPECT_EQ(j["ActionReason"], "Default Action");
  EXPECT_EQ(j["DestinationIp"], "198.51.100.9");
  EXPECT_EQ(j["DestinationPort"], 443);
  EXPECT_EQ(j["Protocol"], "TCP");
  EXPECT_EQ(j["SourceIp"], "192.0.2.2");
  EXPECT_EQ(j["SourcePort"], 40000);
  EXPECT_EQ(j["EgressdReason"], "default_deny");
  EXPECT_EQ(j["EgressdPid"], 7);
  EXPECT_EQ(j["EgressdCgroupId"], 9);
  EXPECT_EQ(j["EgressdContainerId"], "c0ffee");
  EXPECT_FALSE(j.contains("Policy"));
  EXPECT_FALSE(j.contains("Fqdn"));
}

TEST(AzfwFormat, KnownNameIsAnApplicationRule) {
  auto r = record("deny_rule");
  r.denied = false;
  r.fqdns = {"www.example.com", "example.net"};
  r.collection = "web";
  r.rule = "not this";
  const auto j = line(r);
  expect_columns(j, kApplication);
  EXPECT_EQ(j["Type"], "AZFWApplicationRule");
  EXPECT_EQ(j["Fqdn"], "www.example.com");
  EXPECT_EQ(j["Action"], "Alert");
  EXPECT_EQ(j["EgressdVerdict"], "would_deny");
  EXPECT_EQ(j["RuleCollection"], "web");
  EXPECT_EQ(j["Rule"], "not this");
  EXPECT_FALSE(j.contains("ActionReason"));
  EXPECT_EQ(j["IsTlsInspected"], false);
  EXPECT_EQ(j["EgressdFqdns"].size(), 2u);
  EXPECT_EQ(j["EgressdDestination"], "198.51.100.9");
}

TEST(AzfwFormat, RefusedQuestionIsADnsQuery) {
  auto r = record("dns_name_not_allowed");
  r.protocol = net::Protocol::Udp;
  r.fqdns = {"bad.example"};
  r.length = 40;
  const auto j = line(r);
  expect_columns(j, kDns);
  EXPECT_EQ(j["Type"], "AZFWDnsQuery");
  EXPECT_EQ(j["QueryName"], "bad.example.");
  EXPECT_EQ(j["Protocol"], "udp");
  EXPECT_EQ(j["RequestSize"], 40);
  EXPECT_EQ(j["ErrorMessage"], "a DNS question that no rule allows to ask");
  EXPECT_EQ(line(record("dns_malformed"))["Type"], "AZFWDnsQuery");
  // No question was read: it is about the address.
  EXPECT_EQ(line(record("dns_server_not_allowed"))["Type"], "AZFWNetworkRule");
}

TEST(AzfwFormat, GapHasATableOfItsOwn) {
  const auto text = AzfwFormat({"host1", ""}).line(Notice::gap({}, 3, "kernel"));
  EXPECT_EQ(text, R"({"TimeGenerated":"1970-01-01T00:00:00.000000Z","Type":"EgressdGap",)"
                  R"("Computer":"host1","EgressdCount":3,"EgressdCause":"kernel"})");
}

TEST(AzfwFormat, BytesOfStrangersStayPrintable) {
  auto r = record("default_deny");
  r.comm = "\x1b[2J\xff";
  for (const char c : AzfwFormat({"host1", ""}).line(r)) EXPECT_TRUE(c >= 0x20 && c < 0x7f);
}

}  // namespace
}  // namespace egressd::audit
