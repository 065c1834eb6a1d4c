#include "cli/exec_summary.h"

#include <algorithm>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <ostream>

#include "cli/table.h"

namespace egressd::cli {
namespace {

using audit::Record;
using nlohmann::ordered_json;

std::string name_of(const Record& r) { return r.fqdns.empty() ? std::string() : r.fqdns.front(); }

std::string key_of(const Record& r) {
  std::string key;
  for (const std::string& part :
       {r.destination.to_string(), name_of(r), std::to_string(r.port), net::to_string(r.protocol),
        r.reason, std::string(r.denied ? "denied" : ""), r.comm})
    key += part + '\0';
  return key;
}

std::string endpoint_of(const Record& r) {
  std::string text = r.destination.to_string();
  if (r.port == 0) return text + "/" + net::to_string(r.protocol);
  if (text.find(':') != std::string::npos) text = "[" + text + "]";
  return text + ":" + std::to_string(r.port) + "/" + net::to_string(r.protocol);
}

}  // namespace

void ExecSummary::add(const Record& record) {
  total_ += record.count;
  const auto [found, is_new] = group_of_.try_emplace(key_of(record), groups_.size());
  if (is_new)
    groups_.push_back({record.count, record});
  else
    groups_[found->second].count += record.count;
  // Known only while the process is there: the first record that has it speaks for all.
  if (auto& exe = groups_[found->second].first.exe; exe.empty()) exe = record.exe;
}

void ExecSummary::add_file(const std::string& path) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    if (const auto record = Record::from_json(line)) add(*record);
  }
}

std::vector<ExecSummary::Group> ExecSummary::most_first() const {
  auto sorted = groups_;
  std::ranges::stable_sort(sorted, std::greater{}, &Group::count);
  return sorted;
}

void ExecSummary::print(std::ostream& out, const Outcome& outcome) const {
  const std::uint64_t all = std::max(total_, outcome.counted);
  if (all == 0) {
    out << "egressctl: nothing " << (outcome.audit ? "would have been refused" : "was refused")
        << '\n';
  } else {
    out << "egressctl: " << all << (all == 1 ? " time" : " times")
        << (outcome.audit
                ? " the command went where the policy does not let it (mode audit: it passed):\n"
                : " the command was refused the way out:\n");
  }
  if (!groups_.empty()) {
    std::vector<std::vector<std::string>> rows{
        {"  TIMES", "DESTINATION", "NAME", "REASON", "PROCESS"}};
    for (const Group& group : most_first()) {
      const Record& r = group.first;
      const std::string process = r.exe.empty() ? r.comm : r.comm + " (" + r.exe + ")";
      rows.push_back({"  " + std::to_string(group.count), endpoint_of(r),
                      r.fqdns.empty() ? "-" : name_of(r), r.reason,
                      process.empty() ? "-" : process});
    }
    write_table(out, rows);
  }
  if (outcome.counted > total_)
    out << "egressctl: of " << outcome.counted - total_ << " of these there is no record\n";
  if (!outcome.incomplete.empty())
    out << "egressctl: this may not be all: " << audit::printable(outcome.incomplete) << '\n';
}

void ExecSummary::print_json(std::ostream& out, const Outcome& outcome) const {
  ordered_json j{{"mode", outcome.audit ? "audit" : "enforce"},
                 {"exit_code", outcome.exit_code},
                 {"total", std::max(total_, outcome.counted)},
                 {"recorded", total_}};
  if (!outcome.incomplete.empty()) j["incomplete"] = outcome.incomplete;
  j["denials"] = ordered_json::array();
  for (const Group& group : most_first()) {
    const Record& r = group.first;
    ordered_json d{{"count", group.count},
                   {"verdict", r.denied ? "denied" : "would_deny"},
                   {"destination", r.destination.to_string()},
                   {"port", r.port},
                   {"protocol", net::to_string(r.protocol)},
                   {"reason", r.reason},
                   {"fqdns", r.fqdns},
                   {"comm", r.comm}};
    if (!r.exe.empty()) d["exe"] = r.exe;
    j["denials"].push_back(std::move(d));
  }
  out << j.dump(-1, ' ', true, ordered_json::error_handler_t::replace) << '\n';
}

}  // namespace egressd::cli
