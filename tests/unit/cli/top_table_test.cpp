#include "cli/top_table.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

namespace egressd::cli {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using namespace std::chrono_literals;

constexpr auto kWide = std::string::npos;

audit::Record to(const char* address, std::uint16_t port, std::uint64_t count = 1) {
  audit::Record r;
  r.time = std::chrono::sys_days(std::chrono::year(2026) / 1 / 2) + 3h + 4min + 5s;
  r.count = count;
  r.reason = "default_deny";
  r.hook = "connect";
  r.destination = *net::IpAddress::parse(address);
  r.port = port;
  r.pid = 7;
  r.uid = 1000;
  r.comm = "curl";
  return r;
}

std::vector<std::string> keys(const TopTable& table, std::size_t limit = 100) {
  std::vector<std::string> out;
  for (const auto& row : table.rows(limit)) out.push_back(row.key);
  return out;
}

TEST(TopTable, CountsVerdictsNotRecordsAndPutsTheMostFirst) {
  TopTable table(TopBy::Destination);
  table.add(to("192.0.2.1", 80));
  table.add(to("192.0.2.2", 443, 5));
  table.add(to("192.0.2.1", 80, 3));
  auto would = to("2001:db8::1", 53, 2);
  would.denied = false;
  table.add(would);
  EXPECT_THAT(keys(table),
              ElementsAre("192.0.2.2:443/tcp", "192.0.2.1:80/tcp", "[2001:db8::1]:53/tcp"));
  EXPECT_EQ(table.rows(2).size(), 2U);
  EXPECT_EQ(table.rows(2)[1].denied, 4U);
  EXPECT_EQ(table.denied(), 9U);
  EXPECT_EQ(table.would_deny(), 2U);
}

TEST(TopTable, RatesAreOfTheLastIntervalThatIsOver) {
  TopTable table(TopBy::Destination);
  table.add(to("192.0.2.1", 80, 10));
  EXPECT_EQ(table.rows(1)[0].per_second, 0);
  table.end_interval(4s);
  EXPECT_DOUBLE_EQ(table.rows(1)[0].per_second, 2.5);
  table.add(to("192.0.2.1", 80, 1));
  EXPECT_DOUBLE_EQ(table.rows(1)[0].per_second, 2.5);
  table.end_interval(500ms);
  EXPECT_DOUBLE_EQ(table.rows(1)[0].per_second, 2);
  EXPECT_EQ(table.rows(1)[0].denied, 11U);
  table.end_interval(0s);
  EXPECT_EQ(table.rows(1)[0].per_second, 0);
}

TEST(TopTable, Keys) {
  auto r = to("192.0.2.1", 443);
  EXPECT_EQ(top_key(r, TopBy::Process), "curl uid=1000");
  EXPECT_EQ(top_key(r, TopBy::Rule), "(no rule)");
  EXPECT_EQ(top_key(r, TopBy::Reason), "default_deny");
  EXPECT_EQ(top_key(r, TopBy::Pod), "?");
  r.cgroup_id = 9;
  EXPECT_EQ(top_key(r, TopBy::Pod), "cgroup 9");
  r.cgroup = "/a/b";
  EXPECT_EQ(top_key(r, TopBy::Pod), "/a/b");
  r.unit = "app.service";
  EXPECT_EQ(top_key(r, TopBy::Pod), "app.service");
  r.pod_uid = "1-2";
  EXPECT_EQ(top_key(r, TopBy::Pod), "pod 1-2");
  r.fqdns = {"api.example.com", "b.example"};
  EXPECT_EQ(top_key(r, TopBy::Destination), "api.example.com:443/tcp");
  r.collection = "web";
  r.rule = "no";
  EXPECT_EQ(top_key(r, TopBy::Rule), "web/no");
  r.reason = "dns_server_not_allowed";
  EXPECT_EQ(top_key(r, TopBy::Destination), "api.example.com:443/tcp");
  r.reason = "dns_name_not_allowed";
  EXPECT_EQ(top_key(r, TopBy::Destination), "question for api.example.com");
  r = {};
  EXPECT_EQ(top_key(r, TopBy::Process), "?");
}

TEST(TopTable, AScanCannotPushOutWhatIsDeniedMost) {
  TopTable table(TopBy::Destination, 8);
  for (std::uint16_t port = 1; port <= 100; ++port) {
    table.add(to("192.0.2.1", port));
    table.add(to("192.0.2.9", 443));
  }
  EXPECT_EQ(table.rows(1)[0].key, "192.0.2.9:443/tcp");
  EXPECT_EQ(table.rows(1)[0].denied, 100U);
  EXPECT_LE(table.rows(100).size(), 8U);
  std::uint64_t listed = 0;
  for (const auto& row : table.rows(100)) listed += row.total();
  EXPECT_EQ(listed + table.forgotten(), 200U);
  EXPECT_EQ(table.denied(), 200U);
}

TEST(TopTable, TextIsPrintableAndAsWideAsTheTerminal) {
  TopTable table(TopBy::Destination);
  auto r = to("192.0.2.1", 443, 3);
  r.comm = "a\x1b[2J";
  table.add(r);
  table.add_lost(2);
  table.end_interval(2s);
  const auto lines = top_text(table, 75s, 10, kWide, "GAP");
  ASSERT_EQ(lines.size(), 4U);
  EXPECT_EQ(lines[0], "egressd, by destination, since 1m15s: 3 denied, 2 records lost");
  EXPECT_EQ(lines[1], "GAP");
  EXPECT_EQ(lines[2],
            "  DENIED   PER SEC  LAST      DESTINATION        LAST REASON   LAST PROCESS");
  EXPECT_EQ(lines[3],
            "       3       1.5  03:04:05  192.0.2.1:443/tcp  default_deny  a\\x1b[2J[7]");
  for (const auto& line : top_text(table, 1s, 10, 20, std::string(50, 'x')))
    EXPECT_LE(line.size(), 20U) << line;
}

TEST(TopTable, TextHasAColumnForAuditModeIfThereIsSomething) {
  TopTable table(TopBy::Reason);
  EXPECT_THAT(top_text(table, 1s, 10, kWide, "")[2], Not(HasSubstr("WOULD BE")));
  auto r = to("192.0.2.1", 443, 3);
  r.denied = false;
  table.add(r);
  const auto lines = top_text(table, 1s, 10, kWide, "");
  EXPECT_THAT(lines[0], HasSubstr("0 denied, 3 would be denied, 0 records lost"));
  EXPECT_THAT(lines[3], testing::StartsWith("       0         3 "));
}

TEST(TopTable, JsonHasTheLatestRecordWhole) {
  TopTable table(TopBy::Process);
  table.add(to("192.0.2.1", 443, 3));
  table.add(to("192.0.2.2", 80));
  table.end_interval(2s);
  const auto j = json::parse(top_json(table, 5s, 10));
  EXPECT_EQ(j["by"], "process");
  EXPECT_EQ(j["seconds"], 5.0);
  EXPECT_EQ(j["interval_seconds"], 2.0);
  EXPECT_EQ(j["denied"], 4);
  EXPECT_EQ(j["lost"], 0);
  ASSERT_EQ(j["rows"].size(), 1U);
  EXPECT_EQ(j["rows"][0]["process"], "curl uid=1000");
  EXPECT_EQ(j["rows"][0]["denied"], 4);
  EXPECT_EQ(j["rows"][0]["per_second"], 2.0);
  EXPECT_EQ(j["rows"][0]["latest"]["destination"], "192.0.2.2");
}

}  // namespace
}  // namespace egressd::cli
