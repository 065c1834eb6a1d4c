#include "analysis/report.h"

#include <algorithm>

#include "analysis/judge.h"
#include "analysis/report_page.h"

namespace egressd::analysis {
namespace {

void add_to(ReportRow& row, const audit::Record& record) {
  const auto count = std::max<std::uint64_t>(record.count, 1);
  row.count = saturating_sum(row.count, count);
  if (record.denied) row.denied = saturating_sum(row.denied, count);
  row.first = std::min(row.first, record.time);
  row.last = std::max(row.last, record.last_time.value_or(record.time));
}

ReportTable::Key destination_of(const audit::Record& record) {
  const std::string name =
      record.fqdns.empty() ? record.destination.to_string() : record.fqdns.front();
  if (is_question(record)) return {name, "DNS question"};
  const std::string port = record.port != 0 ? std::to_string(record.port) + "/" : "";
  return {name, port + net::to_string(record.protocol)};
}

ReportTable::Key place_of(const audit::Record& record) {
  if (!record.pod_uid.empty()) return {"pod", record.pod_uid};
  if (!record.container_id.empty()) return {"container", record.container_id};
  if (!record.unit.empty()) return {"unit", record.unit};
  if (!record.cgroup.empty()) return {"cgroup", record.cgroup};
  return {"unknown", "-"};
}

std::string user_of(const audit::Record& record) {
  if (!record.user.empty()) return record.user;
  return record.uid ? "uid " + std::to_string(*record.uid) : "?";
}

}  // namespace

void ReportTable::add(Key key, const audit::Record& record, const std::string& detail) {
  const auto count = std::max<std::uint64_t>(record.count, 1);
  auto it = rows_.find(key);
  if (it == rows_.end()) {
    if (rows_.size() >= kMaxRows) {
      others_ = saturating_sum(others_, count);
      return;
    }
    it = rows_.emplace(std::move(key), ReportRow{}).first;
  }
  add_to(it->second, record);
  if (!detail.empty()) it->second.details.add(detail, count);
}

std::vector<std::pair<ReportTable::Key, ReportRow>> ReportTable::top(std::size_t most) const {
  using Entry = const std::pair<const Key, ReportRow>*;
  std::vector<Entry> all;
  all.reserve(rows_.size());
  for (const auto& row : rows_) all.push_back(&row);
  std::ranges::sort(all, [](Entry a, Entry b) {
    return a->second.count != b->second.count ? a->second.count > b->second.count
                                              : a->first < b->first;
  });
  if (all.size() > most) all.resize(most);
  std::vector<std::pair<Key, ReportRow>> out;
  for (const auto* entry : all) out.emplace_back(entry->first, entry->second);
  return out;
}

void Report::add(const audit::Record& record) {
  const auto destination = destination_of(record);
  const std::string to = destination.first + " " + destination.second;
  const std::string& program = program_of(record);
  add_to(data_.all, record);
  data_.timeline.add(record.time, record.denied, std::max<std::uint64_t>(record.count, 1));
  data_.destinations.add(destination, record, program);
  data_.programs.add({program, user_of(record)}, record, to);
  data_.places.add(place_of(record), record, program);
  data_.reasons.add({record.reason, ""}, record, to);
  if (!record.rule.empty()) data_.rules.add({record.collection, record.rule}, record, to);
  last_ = record.time;
}

void Report::add_gap(std::uint64_t lost) {
  if (data_.gaps.size() < ReportData::kMaxGaps) data_.gaps.push_back({last_, lost});
}

std::string Report::html(const StreamStats& stats, const policy::Policy* policy) const {
  return report_page(data_, stats, policy);
}

}  // namespace egressd::analysis
