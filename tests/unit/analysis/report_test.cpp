#include "analysis/report.h"

#include <gmock/gmock.h>

#include "analysis/report_page.h"
#include "records.h"

namespace egressd::analysis {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr char kHostile[] = "<script>document.title='pwned'</script>";

std::string page_of(const std::vector<audit::Record>& records,
                    const policy::Policy* policy = nullptr) {
  Report report;
  StreamStats stats;
  for (const auto& record : records) report.add(record);
  stats.records = records.size();
  return report.html(stats, policy);
}

TEST(HtmlText, EscapesAndKeepsAscii) {
  EXPECT_EQ(html_text("a<b>&\"'\n\xc3\xa9"), "a&lt;b&gt;&amp;&quot;&#39;\\x0a\\xc3\\xa9");
}

TEST(Report, NothingOfARecordIsMarkup) {
  auto r = connection("203.0.113.1", 443, {kHostile});
  r.comm = r.user = r.exe = r.unit = r.cgroup = r.container_id = r.pod_uid = r.cmdline = kHostile;
  r.reason = r.collection = r.rule = r.hook = kHostile;
  auto no_exe = r;
  no_exe.exe.clear();
  no_exe.pod_uid.clear();
  auto no_container = no_exe;
  no_container.container_id.clear();
  auto no_unit = no_container;
  no_unit.unit.clear();
  const auto page = page_of({r, no_exe, no_container, no_unit});
  EXPECT_THAT(page, Not(HasSubstr("<script")));
  EXPECT_THAT(page, HasSubstr("&lt;script&gt;document.title=&#39;pwned&#39;&lt;/script&gt;"));
  EXPECT_THAT(page, HasSubstr("default-src 'none'; style-src 'unsafe-inline'"));
  for (const char c : page) EXPECT_TRUE(c == '\n' || (c >= ' ' && c <= '~'));
}

TEST(Report, CountsVerdictsNotRecords) {
  auto many = connection("203.0.113.1", 443, {"a.example.com"});
  many.count = 1234567;
  many.denied = true;
  const auto page = page_of({many, connection("203.0.113.2", 443)});
  EXPECT_THAT(page, HasSubstr("<dt>Denied</dt><dd class=\"denied\">1,234,567</dd>"));
  EXPECT_THAT(page, HasSubstr("<dt>Would be denied</dt><dd class=\"passed\">1</dd>"));
  EXPECT_LT(page.find(">a.example.com<"), page.find(">203.0.113.2<"));
}

TEST(Report, RulesWithoutARecord) {
  const auto policy = policy_of(
      "version: 1\nmode: enforce\ncollections:\n"
      "  - {name: d, priority: 100, action: deny, rules: [{name: hit, fqdns: [a.example.com], "
      "ports: [443]},"
      " {name: unhit, fqdns: [b.example.com], ports: [443]}]}\n"
      "  - {name: c, priority: 200, action: allow, rules: [{name: quiet, fqdns: [c.example.com], "
      "ports: [443]},"
      " {name: tried, fqdns: [d.example.com], ports: [443], mode: audit}]}\n");
  auto r = connection("203.0.113.1", 443, {"a.example.com"});
  r.collection = "d";
  r.rule = "hit";
  const auto page = page_of({r}, &policy);
  const auto unused = page.substr(page.find("Rules without a record"));
  EXPECT_THAT(unused, HasSubstr(">unhit<"));
  EXPECT_THAT(unused, HasSubstr(">tried<"));
  EXPECT_THAT(unused, Not(HasSubstr(">hit<")));
  EXPECT_THAT(unused, Not(HasSubstr(">quiet<")));
}

TEST(Report, GapsAreShownWhereTheyWere) {
  Report report;
  StreamStats stats;
  report.add_gap(3);
  report.add(connection("203.0.113.1", 443));
  report.add_gap(4);
  stats.gaps = 2;
  stats.lost = 7;
  const auto page = report.html(stats, nullptr);
  EXPECT_THAT(page, HasSubstr("7 records lost in 2 gaps"));
  EXPECT_THAT(page, HasSubstr("the start</th><td class=\"number\">3<"));
  EXPECT_THAT(page, HasSubstr("2026-01-01 00:00:00</time></th><td class=\"number\">4<"));
}

TEST(Report, ManyDestinationsAreCountedButNotKept) {
  Report report;
  for (std::uint32_t i = 0; i < ReportTable::kMaxRows + 500; ++i) {
    auto r = connection("203.0.113.1", 443);
    r.destination = net::IpAddress::v4(0x0b000000 + i);
    report.add(r);
  }
  const auto page = report.html({}, nullptr);
  EXPECT_THAT(page, HasSubstr("500 verdicts in more rows than are counted"));
  EXPECT_LT(page.size(), 100'000u);
}

TEST(Report, OfNothing) { EXPECT_THAT(page_of({}), HasSubstr("No audit records.")); }

}  // namespace
}  // namespace egressd::analysis
