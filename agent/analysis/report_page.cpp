#include "analysis/report_page.h"

#include <algorithm>
#include <array>
#include <cstdio>

#include "bpf/egressd_abi.h"

namespace egressd::analysis {
namespace {

constexpr std::size_t kShownRows = 25;
constexpr std::size_t kShownDetails = 3;
constexpr std::size_t kMaxShownBytes = 253;  // of one text; a DNS name has no more

// No script: what the records say could not run even if it were not escaped.
constexpr std::string_view kHead = R"(<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>egressd: what was denied</title>
<style>
:root {
  color-scheme: light dark;
  --back: #f6f7f9; --card: #fff; --ink: #1b2330; --soft: #5b6675; --line: #dfe3e9;
  --denied: #c2343f; --passed: #b87503; --bar: #c2343f1f; --warn: #fff4dc; --warn-line: #e2b24a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #12161d; --card: #1b212b; --ink: #e6eaf0; --soft: #98a3b3; --line: #303947;
    --denied: #f0727c; --passed: #e3a63c; --bar: #f0727c2b; --warn: #362b12; --warn-line: #8d6b1f;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; }
main, header { max-width: 76rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 1.75rem; }
h1 { margin: 0; font-size: 1.6rem; }
h2 { margin: 0 0 .25rem; font-size: 1.1rem; }
p { margin: .25rem 0; color: var(--soft); }
section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; margin: 1rem 0; padding: 1rem 1.25rem; }
.totals { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .75rem; margin: 1rem 0 0; padding: 0; }
.totals div { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .7rem 1rem; }
.totals dt { color: var(--soft); font-size: .85rem; }
.totals dd { margin: 0; font-size: 1.5rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.denied { color: var(--denied); }
.passed { color: var(--passed); }
.warning { background: var(--warn); border-color: var(--warn-line); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin-top: .5rem; }
caption { text-align: left; color: var(--soft); padding-bottom: .4rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
tbody tr:last-child > * { border-bottom: 0; }
thead th { color: var(--soft); font-size: .8rem; font-weight: 600; white-space: nowrap; overflow-wrap: normal; }
tbody th { font-weight: 500; min-width: 7rem; }
[aria-labelledby=reasons] tbody th { min-width: 13rem; }
td:nth-child(2) { min-width: 5.5rem; }
td:last-child { min-width: 12rem; }
.name { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .88rem; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.number { background: linear-gradient(to left, var(--bar) var(--share, 0%), transparent 0); min-width: 6rem; }
.time { white-space: nowrap; font-variant-numeric: tabular-nums; font-size: .85rem; }
.more { color: var(--soft); font-size: .85rem; }
svg { display: block; width: 100%; height: auto; margin-top: .5rem; }
svg text { fill: var(--soft); font-size: 11px; }
svg .grid { stroke: var(--line); }
svg .denied { fill: var(--denied); }
svg .passed { fill: var(--passed); }
.key { display: inline-block; width: .75em; height: .75em; border-radius: .15em; margin: 0 .35em 0 .8em; background: currentColor; }
summary { cursor: pointer; color: var(--soft); margin-top: .5rem; }
:focus-visible { outline: 2px solid var(--passed); outline-offset: 2px; }
</style>
</head>
<body>
)";

std::string number(std::uint64_t value) {
  std::string digits = std::to_string(value);
  for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > 0; at -= 3)
    digits.insert(static_cast<std::size_t>(at), ",");
  return digits;
}

std::string number_of(std::uint64_t count, const std::string& noun) {
  return number(count) + " " + noun + (count == 1 ? "" : "s");
}

std::string shown(std::string_view text) {
  const bool cut = text.size() > kMaxShownBytes;
  return html_text(text.substr(0, kMaxShownBytes)) + (cut ? "&#8230;" : "");
}

std::string share(std::uint64_t part, std::uint64_t whole) {
  std::array<char, 16> out{};
  std::snprintf(out.data(), out.size(), "%.1f",
                whole == 0 ? 0.0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole));
  return out.data();
}

std::string plain_time(SystemTime time) {
  return format_time(time).replace(10, 1, " ").substr(0, 19);
}

std::string time_of(SystemTime time) {
  return "<time datetime=\"" + format_time(time) + "\">" + plain_time(time) + "</time>";
}

const char* text_of_reason(const std::string& reason) {
  for (std::uint32_t i = 0; i < EGRESSD_REASON_MAX; ++i)
    if (reason == audit::reason_name(i)) return audit::reason_text(i);
  return "";
}

std::string duration(std::int64_t seconds) {
  if (seconds % 86'400 == 0) return number_of(static_cast<std::uint64_t>(seconds / 86'400), "day");
  if (seconds % 3600 == 0) return number_of(static_cast<std::uint64_t>(seconds / 3600), "hour");
  if (seconds % 60 == 0) return number_of(static_cast<std::uint64_t>(seconds / 60), "minute");
  return number_of(static_cast<std::uint64_t>(seconds), "second");
}

struct TableText {
  const char* id;
  const char* title;
  const char* caption;
  const char* first;    // head of the first column
  const char* second;   // of the second, "" if there is none
  const char* details;  // of the last
};

class Page {
 public:
  Page(const ReportData& data, const StreamStats& stats, const policy::Policy* policy)
      : data_(data), stats_(stats), policy_(policy), out_(kHead) {}

  std::string run() {
    head();
    out_ += "<main>\n";
    warnings();
    timeline();
    table(data_.destinations,
          {"destinations", "Destinations",
           "Where connections and DNS questions were refused, most often first.", "Name or address",
           "Port", "Programs"});
    table(data_.programs, {"programs", "Programs",
                           "Program file if it could be read, else what the thread calls itself.",
                           "Program", "User", "Destinations"});
    table(data_.places,
          {"places", "Pods, containers and units",
           "What the cgroup says: the pod, else the container, else the systemd unit.", "Kind",
           "Name", "Programs"});
    table(data_.reasons,
          {"reasons", "Reasons", "Why it was refused.", "Reason", "Meaning", "Destinations"});
    if (data_.rules.size() > 0)
      table(data_.rules,
            {"rules", "Rules", "Rules that refused something, or are tried in audit mode.",
             "Collection", "Rule", "Destinations"});
    unused_rules();
    gaps();
    out_ += "</main>\n</body>\n</html>\n";
    return std::move(out_);
  }

 private:
  void total(const char* name, const std::string& value, const char* kind = "") {
    out_ += std::string("<div><dt>") + name + "</dt><dd class=\"" + kind + "\">" + value +
            "</dd></div>\n";
  }

  void head() {
    const auto& all = data_.all;
    out_ += "<header>\n<h1>What was denied</h1>\n<p>";
    out_ += all.count == 0 ? std::string("No audit records.")
                           : time_of(all.first) + " to " + time_of(all.last) + " UTC";
    out_ += "</p>\n<dl class=\"totals\">\n";
    total("Denied", number(all.denied), "denied");
    total("Would be denied", number(all.count - all.denied), "passed");
    total("Records", number(stats_.records));
    total("Destinations",
          number(data_.destinations.size()) + (data_.destinations.others() ? "+" : ""));
    total("Programs", number(data_.programs.size()) + (data_.programs.others() ? "+" : ""));
    total("Lost records", number(stats_.lost));
    out_ += "</dl>\n</header>\n";
  }

  void warnings() {
    if (stats_.bad == 0 && stats_.gaps == 0) return;
    out_ += "<section class=\"warning\" aria-label=\"Warnings\">\n";
    if (stats_.gaps > 0)
      out_ += "<p>The records are not complete: " + number_of(stats_.lost, "record") + " lost in " +
              number_of(stats_.gaps, "gap") + ". Numbers on this page are lower bounds.</p>\n";
    if (stats_.bad > 0)
      out_ +=
          "<p>" + number_of(stats_.bad, "line") + " of the input skipped: no audit records.</p>\n";
    out_ += "</section>\n";
  }

  void bar(const char* kind, double x, double y, double width, double height) {
    std::array<char, 160> text{};
    std::snprintf(text.data(), text.size(),
                  R"(<rect class="%s" x="%.2f" y="%.2f" width="%.2f" height="%.2f"/>)", kind, x, y,
                  width, height);
    out_ += text.data();
  }

  void timeline() {
    const auto& buckets = data_.timeline.buckets();
    if (buckets.empty()) return;
    constexpr double kLeft = 10, kWidth = 980, kTop = 18, kHeight = 150;
    const auto first = buckets.begin()->first;
    const auto steps = std::max<std::int64_t>(buckets.rbegin()->first - first + 1, 30);
    std::uint64_t most = 1;
    for (const auto& [index, b] : buckets)
      most = std::max(most, saturating_sum(b.denied, b.passed));
    const auto width = data_.timeline.seconds_per_bucket();
    const auto time_at = [&](std::int64_t index) {
      return SystemTime(std::chrono::seconds(index * width));
    };
    out_ +=
        "<section aria-labelledby=\"timeline\">\n<h2 id=\"timeline\">Over time</h2>\n<p>Verdicts "
        "per " +
        duration(width) +
        "<span class=\"denied\"><span class=\"key\"></span>denied</span>"
        "<span class=\"passed\"><span class=\"key\"></span>would be denied (audit "
        "mode)</span></p>\n"
        "<svg viewBox=\"0 0 1000 200\" role=\"img\" aria-label=\"Verdicts over time; the numbers "
        "are in "
        "the table below\">\n";
    for (const double part : {0.0, 0.5, 1.0}) {
      std::array<char, 120> text{};
      const double y = kTop + kHeight * (1 - part);
      std::snprintf(text.data(), text.size(),
                    R"(<line class="grid" x1="%.0f" x2="%.0f" y1="%.1f" y2="%.1f"/>)", kLeft,
                    kLeft + kWidth, y, y);
      out_ += text.data();
    }
    out_ += "<text x=\"10\" y=\"12\">" + number(most) + "</text>\n";
    const double step = kWidth / static_cast<double>(steps);
    const auto height = [&](std::uint64_t n) {
      return n == 0 ? 0.0
                    : std::max(1.5, kHeight * static_cast<double>(n) / static_cast<double>(most));
    };
    for (const auto& [index, b] : buckets) {
      const double x = kLeft + step * static_cast<double>(index - first) + step * 0.1;
      const double denied = height(b.denied);
      const double passed = height(b.passed);
      out_ += "<g><title>" + plain_time(time_at(index)) + ": " + number(b.denied) + " denied, " +
              number(b.passed) + " would be denied</title>";
      if (b.denied) bar("denied", x, kTop + kHeight - denied, step * 0.8, denied);
      if (b.passed) bar("passed", x, kTop + kHeight - denied - passed, step * 0.8, passed);
      out_ += "</g>\n";
    }
    out_ += "<text x=\"10\" y=\"188\">" + plain_time(time_at(first)) +
            "</text>\n<text x=\"990\" y=\"188\" text-anchor=\"end\">" +
            plain_time(time_at(first + steps)) + "</text>\n</svg>\n";
    out_ +=
        "<details>\n<summary>Numbers</summary>\n<table>\n<thead><tr><th scope=\"col\">From</th>"
        "<th scope=\"col\" class=\"number\">Denied</th><th scope=\"col\" class=\"number\">Would be "
        "denied</th></tr></thead>\n<tbody>\n";
    for (const auto& [index, b] : buckets)
      out_ += "<tr><th scope=\"row\" class=\"time\">" + time_of(time_at(index)) +
              "</th><td class=\"number\">" + number(b.denied) + "</td><td class=\"number\">" +
              number(b.passed) + "</td></tr>\n";
    out_ += "</tbody>\n</table>\n</details>\n</section>\n";
  }

  void open_section(const char* id, const char* title) {
    out_ += std::string("<section aria-labelledby=\"") + id + "\">\n<h2 id=\"" + id + "\">" +
            title + "</h2>\n<div class=\"scroll\">\n";
  }

  void table(const ReportTable& table, const TableText& text) {
    open_section(text.id, text.title);
    const auto rows = table.top(kShownRows);
    const std::string column = "<th scope=\"col\">";
    const std::string numbers = "<th scope=\"col\" class=\"number\">";
    out_ += std::string("<table>\n<caption>") + text.caption + "</caption>\n<thead><tr>" + column +
            text.first + "</th>" + column + text.second + "</th>" + numbers + "Verdicts</th>" +
            numbers + "Denied</th>" + column + "First</th>" + column + "Last</th>" + column +
            text.details + "</th></tr></thead>\n<tbody>\n";
    for (const auto& [key, row] : rows) {
      const bool reasons = &table == &data_.reasons;
      out_ +=
          "<tr><th scope=\"row\" class=\"name\">" + shown(key.first) + "</th><td" +
          (reasons ? ">" + html_text(text_of_reason(key.first))
                   : " class=\"name\">" + shown(key.second)) +
          "</td><td class=\"number\" style=\"--share:" + share(row.count, rows[0].second.count) +
          "%\">" + number(row.count) + "</td><td class=\"number\">" + number(row.denied) +
          "</td><td class=\"time\">" + time_of(row.first) + "</td><td class=\"time\">" +
          time_of(row.last) + "</td><td class=\"name\">" + details(row) + "</td></tr>\n";
    }
    if (rows.empty()) out_ += "<tr><td colspan=\"7\">None.</td></tr>\n";
    out_ += "</tbody>\n</table>\n</div>\n";
    if (table.size() > rows.size())
      out_ += "<p>" + number(table.size() - rows.size()) + " more not shown.</p>\n";
    if (table.others() > 0)
      out_ +=
          "<p>" + number_of(table.others(), "verdict") + " in more rows than are counted.</p>\n";
    out_ += "</section>\n";
  }

  static std::string details(const ReportRow& row) {
    std::string out;
    for (const auto& [what, count] : row.details.top(kShownDetails))
      out += (out.empty() ? "" : "<br>") + shown(what) + " <span class=\"more\">&#215;" +
             number(count) + "</span>";
    if (row.details.size() > kShownDetails || row.details.others() > 0)
      out += "<br><span class=\"more\">and others</span>";
    return out;
  }

  void unused_rules() {
    if (!policy_) return;
    open_section("unused", "Rules without a record");
    out_ +=
        "<table>\n<caption>Deny rules and rules in audit mode of the given policy that no record "
        "names. "
        "Allow rules in force leave no records: nothing can be said of them.</caption>\n<thead><tr>"
        "<th scope=\"col\">Collection</th><th scope=\"col\">Rule</th><th "
        "scope=\"col\">Kind</th></tr>"
        "</thead>\n<tbody>\n";
    std::size_t found = 0;
    for (const auto& collection : policy_->collections) {
      for (const auto& rule : collection.rules) {
        const bool deny = collection.action == policy::Action::Deny;
        if ((!deny && rule.mode != policy::Mode::Audit) ||
            data_.rules.contains({collection.name, rule.name}))
          continue;
        ++found;
        out_ += "<tr><th scope=\"row\" class=\"name\">" + shown(collection.name) +
                "</th><td class=\"name\">" + shown(rule.name) + "</td><td>" +
                (deny ? "deny" : "allow") + (rule.mode == policy::Mode::Audit ? ", audit" : "") +
                "</td></tr>\n";
      }
    }
    if (found == 0) out_ += "<tr><td colspan=\"3\">None.</td></tr>\n";
    out_ += "</tbody>\n</table>\n</div>\n</section>\n";
  }

  void gaps() {
    if (data_.gaps.empty()) return;
    open_section("gaps", "Gaps");
    out_ +=
        "<table>\n<caption>Where records could not be written.</caption>\n<thead><tr><th "
        "scope=\"col\">After</th><th scope=\"col\" "
        "class=\"number\">Lost</th></tr></thead>\n<tbody>\n";
    for (const auto& gap : data_.gaps)
      out_ += "<tr><th scope=\"row\" class=\"time\">" +
              (gap.after ? time_of(*gap.after) : std::string("the start")) +
              "</th><td class=\"number\">" + number(gap.lost) + "</td></tr>\n";
    out_ += "</tbody>\n</table>\n</div>\n";
    if (stats_.gaps > data_.gaps.size())
      out_ += "<p>" + number(stats_.gaps - data_.gaps.size()) + " more not shown.</p>\n";
    out_ += "</section>\n";
  }

  const ReportData& data_;
  const StreamStats& stats_;
  const policy::Policy* policy_;
  std::string out_;
};

}  // namespace

std::string html_text(std::string_view text) {
  std::string out;
  for (const char c : audit::printable(text)) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out.push_back(c);
    }
  }
  return out;
}

std::string report_page(const ReportData& data, const StreamStats& stats,
                        const policy::Policy* policy) {
  return Page(data, stats, policy).run();
}

}  // namespace egressd::analysis
