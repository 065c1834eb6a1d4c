#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "analysis/record_stream.h"
#include "analysis/tally.h"
#include "analysis/timeline.h"
#include "audit/record.h"
#include "policy/policy.h"

namespace egressd::analysis {

// One row of a table of the report.
struct ReportRow {
  static constexpr std::size_t kMaxDetails = 8;
  std::uint64_t count = 0;   // verdicts
  std::uint64_t denied = 0;  // of these; the rest passed in audit mode
  SystemTime first = SystemTime::max();
  SystemTime last = SystemTime::min();
  Counts details{kMaxDetails};  // what else is worth knowing, by frequency
};

// Rows by one or two texts; what is beyond kMaxRows of them is one number.
class ReportTable {
 public:
  static constexpr std::size_t kMaxRows = 20'000;
  using Key = std::pair<std::string, std::string>;

  void add(Key key, const audit::Record& record, const std::string& detail);
  // By falling count, then by key.
  [[nodiscard]] std::vector<std::pair<Key, ReportRow>> top(std::size_t most) const;
  [[nodiscard]] std::size_t size() const { return rows_.size(); }
  [[nodiscard]] bool contains(const Key& key) const { return rows_.contains(key); }
  [[nodiscard]] std::uint64_t others() const { return others_; }

 private:
  std::map<Key, ReportRow> rows_;
  std::uint64_t others_ = 0;
};

// What the page shows.
struct ReportData {
  struct Gap {
    std::optional<SystemTime> after;  // of the last record before it
    std::uint64_t lost = 0;
  };
  static constexpr std::size_t kMaxGaps = 100;

  ReportRow all;
  Timeline timeline;
  ReportTable destinations;  // name or address; port and protocol
  ReportTable programs;      // program; user
  ReportTable places;        // kind; id
  ReportTable reasons;       // reason
  ReportTable rules;         // collection; rule
  std::vector<Gap> gaps;     // the first kMaxGaps
};

// Sums up audit records for a page. Memory is bounded by the tables' limits.
class Report {
 public:
  void add(const audit::Record& record);
  void add_gap(std::uint64_t lost);
  // One HTML page that needs nothing else and may load nothing else, without any script. All text
  // of records is printable ASCII and escaped. `policy` may be nullptr.
  [[nodiscard]] std::string html(const StreamStats& stats, const policy::Policy* policy) const;

 private:
  ReportData data_;
  std::optional<SystemTime> last_;
};

}  // namespace egressd::analysis
