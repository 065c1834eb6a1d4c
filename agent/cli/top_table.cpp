#include "cli/top_table.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <sstream>

#include "analysis/tally.h"
#include "cli/ask.h"
#include "cli/destination.h"
#include "cli/live_text.h"
#include "cli/table.h"

namespace egressd::cli {
namespace {

using analysis::saturating_sum;
using nlohmann::ordered_json;
using Row = TopTable::Row;

std::string destination_of(const audit::Record& record) {
  // Of a question the destination is the resolver; what counts is the name.
  if (!record.fqdns.empty() &&
      (record.reason == "dns_name_not_allowed" || record.reason == "dns_malformed"))
    return "question for " + record.fqdns.front();
  AskedDestination asked;
  asked.destination.port = record.port;
  asked.destination.protocol = record.protocol;
  if (record.fqdns.empty())
    asked.destination.address = record.destination;
  else
    asked.destination.fqdn = record.fqdns.front();
  return asked.to_string();
}

std::string process_of(const audit::Record& record) {
  return (record.comm.empty() ? "?" : record.comm) + "[" +
         (record.pid == 0 ? "?" : std::to_string(record.pid)) + "]";
}

std::string pod_of(const audit::Record& record) {
  if (!record.pod_uid.empty()) return "pod " + record.pod_uid;
  if (!record.unit.empty()) return record.unit;
  if (!record.container_id.empty()) return "container " + record.container_id;
  if (!record.cgroup.empty()) return record.cgroup;
  return record.cgroup_id == 0 ? "?" : "cgroup " + std::to_string(record.cgroup_id);
}

std::chrono::system_clock::time_point last_time_of(const audit::Record& record) {
  return record.last_time.value_or(record.time);
}

std::string format_rate(double rate) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), rate < 100 ? "%.1f" : "%.0f", rate);
  return text.data();
}

std::string right(const std::string& text, std::size_t width) {
  return std::string(width - std::min(width, text.size()), ' ') + text;
}

bool before(const Row& a, const Row& b) {
  if (a.total() != b.total()) return a.total() > b.total();
  if (a.per_second > b.per_second || a.per_second < b.per_second)
    return a.per_second > b.per_second;
  return a.key < b.key;
}

const char* heading(TopBy by) {
  switch (by) {
    case TopBy::Process:
      return "PROCESS";
    case TopBy::Pod:
      return "POD, UNIT OR CGROUP";
    case TopBy::Rule:
      return "RULE";
    case TopBy::Reason:
      return "REASON";
    case TopBy::Destination:
      break;
  }
  return "DESTINATION";
}

}  // namespace

const char* to_string(TopBy by) {
  switch (by) {
    case TopBy::Process:
      return "process";
    case TopBy::Pod:
      return "pod";
    case TopBy::Rule:
      return "rule";
    case TopBy::Reason:
      return "reason";
    case TopBy::Destination:
      break;
  }
  return "destination";
}

std::string top_key(const audit::Record& record, TopBy by) {
  switch (by) {
    case TopBy::Process:
      // By name, not by number: a script that runs curl again and again is one row.
      return (record.comm.empty() ? "?" : record.comm) +
             (record.uid ? " uid=" + std::to_string(*record.uid) : "");
    case TopBy::Pod:
      return pod_of(record);
    case TopBy::Rule:
      return record.rule.empty() ? "(no rule)" : record.collection + "/" + record.rule;
    case TopBy::Reason:
      return record.reason;
    case TopBy::Destination:
      break;
  }
  return destination_of(record);
}

std::uint64_t Row::total() const { return saturating_sum(denied, would_deny); }

void TopTable::add(const audit::Record& record) {
  auto key = top_key(record, by_);
  auto it = rows_.find(key);
  if (it == rows_.end()) {
    if (rows_.size() >= max_rows_) forget_half();
    it = rows_.emplace(key, Row{.key = key}).first;
  }
  Row& row = it->second;
  auto& of_row = record.denied ? row.denied : row.would_deny;
  auto& of_all = record.denied ? denied_ : would_deny_;
  of_row = saturating_sum(of_row, record.count);
  of_all = saturating_sum(of_all, record.count);
  row.recent = saturating_sum(row.recent, record.count);
  row.latest = record;
}

void TopTable::add_lost(std::uint64_t records) { lost_ = saturating_sum(lost_, records); }

void TopTable::end_interval(std::chrono::duration<double> interval) {
  interval_ = interval;
  for (auto& [key, row] : rows_) {
    row.per_second = interval.count() > 0 ? static_cast<double>(row.recent) / interval.count() : 0;
    row.recent = 0;
  }
}

void TopTable::forget_half() {
  auto all = rows(rows_.size());
  for (std::size_t i = all.size() / 2; i < all.size(); ++i) {
    forgotten_ = saturating_sum(forgotten_, all[i].total());
    rows_.erase(all[i].key);
  }
}

std::vector<Row> TopTable::rows(std::size_t limit) const {
  std::vector<const Row*> all;
  all.reserve(rows_.size());
  for (const auto& [key, row] : rows_) all.push_back(&row);
  limit = std::min(limit, all.size());
  std::ranges::partial_sort(all, all.begin() + static_cast<std::ptrdiff_t>(limit),
                            [](const Row* a, const Row* b) { return before(*a, *b); });
  std::vector<Row> out;
  out.reserve(limit);
  for (std::size_t i = 0; i < limit; ++i) out.push_back(*all[i]);
  return out;
}

std::vector<std::string> top_text(const TopTable& table, std::chrono::seconds running,
                                  std::size_t limit, std::size_t width, const std::string& event) {
  const auto seconds = std::max(1LL, static_cast<long long>(running.count()));
  const bool audited = table.would_deny() > 0;
  std::string head = "egressd, by " + std::string(to_string(table.by())) + ", since " +
                     format_seconds(seconds) + ": " + std::to_string(table.denied()) + " denied";
  if (audited) head += ", " + std::to_string(table.would_deny()) + " would be denied";
  head += ", " + analysis::counted(table.lost(), "record") + " lost";
  if (table.forgotten() > 0) head += ", " + std::to_string(table.forgotten()) + " not listed";

  constexpr std::size_t kNumber = 8;
  std::vector<std::vector<std::string>> rows;
  std::vector<std::string> titles{right("DENIED", kNumber)};
  if (audited) titles.push_back(right("WOULD BE", kNumber));
  titles.push_back(right("PER SEC", kNumber));
  titles.insert(titles.end(), {"LAST", heading(table.by())});
  if (table.by() != TopBy::Reason) titles.emplace_back("LAST REASON");
  if (table.by() != TopBy::Destination) titles.emplace_back("LAST DESTINATION");
  titles.emplace_back("LAST PROCESS");
  rows.push_back(titles);
  for (const Row& row : table.rows(limit)) {
    const auto& latest = row.latest;
    std::vector<std::string> cells{right(std::to_string(row.denied), kNumber)};
    if (audited) cells.push_back(right(std::to_string(row.would_deny), kNumber));
    cells.push_back(right(format_rate(row.per_second), kNumber));
    // The time of the day, UTC.
    cells.push_back(audit::format_time(last_time_of(latest)).substr(11, 8));
    cells.push_back(row.key);
    if (table.by() != TopBy::Reason) cells.push_back(latest.reason);
    if (table.by() != TopBy::Destination) cells.push_back(destination_of(latest));
    cells.push_back(process_of(latest));
    rows.push_back(std::move(cells));
  }
  std::ostringstream text;
  write_table(text, rows);

  std::vector<std::string> lines{head, event};
  std::istringstream in(text.str());
  for (std::string line; std::getline(in, line);) lines.push_back(std::move(line));
  for (auto& line : lines) line.resize(std::min(line.size(), width));
  return lines;
}

std::string top_json(const TopTable& table, std::chrono::duration<double> running,
                     std::size_t limit) {
  auto rows = ordered_json::array();
  for (const Row& row : table.rows(limit))
    rows.push_back({{to_string(table.by()), row.key},
                    {"denied", row.denied},
                    {"would_deny", row.would_deny},
                    {"per_second", row.per_second},
                    {"last_time", audit::format_time(last_time_of(row.latest))},
                    {"latest", ordered_json::parse(row.latest.to_json(), nullptr, false)}});
  return dump({{"by", to_string(table.by())},
               {"seconds", running.count()},
               {"interval_seconds", table.interval().count()},
               {"denied", table.denied()},
               {"would_deny", table.would_deny()},
               {"lost", table.lost()},
               {"not_listed", table.forgotten()},
               {"rows", std::move(rows)}});
}

}  // namespace egressd::cli
