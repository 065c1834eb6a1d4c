#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "audit/record.h"

namespace egressd::cli {

// What the rows of `top` are.
enum class TopBy { Destination, Process, Pod, Rule, Reason };
const char* to_string(TopBy by);

// The row a record counts for; made of untrusted bytes.
std::string top_key(const audit::Record& record, TopBy by);

// Counts records by destination, process and so on. Memory is bounded: if there are more than
// `max_rows`, the lower half is forgotten and its verdicts are only part of the sums. A row that
// comes back begins anew.
class TopTable {
 public:
  static constexpr std::size_t kMaxRows = 4096;

  struct Row {
    std::string key = {};
    std::uint64_t denied = 0;
    std::uint64_t would_deny = 0;
    std::uint64_t recent = 0;  // of both, in the interval that is not over yet
    double per_second = 0;     // of both, in the last that is
    audit::Record latest = {};

    [[nodiscard]] std::uint64_t total() const;
  };

  explicit TopTable(TopBy by, std::size_t max_rows = kMaxRows) : by_(by), max_rows_(max_rows) {}

  void add(const audit::Record& record);
  void add_lost(std::uint64_t records);
  // Makes rates of what came since the last call, which was `interval` ago.
  void end_interval(std::chrono::duration<double> interval);

  // Largest first.
  [[nodiscard]] std::vector<Row> rows(std::size_t limit) const;
  [[nodiscard]] TopBy by() const { return by_; }
  [[nodiscard]] std::chrono::duration<double> interval() const { return interval_; }
  [[nodiscard]] std::uint64_t denied() const { return denied_; }
  [[nodiscard]] std::uint64_t would_deny() const { return would_deny_; }
  [[nodiscard]] std::uint64_t lost() const { return lost_; }
  // Verdicts of rows that were forgotten.
  [[nodiscard]] std::uint64_t forgotten() const { return forgotten_; }

 private:
  void forget_half();

  TopBy by_;
  std::size_t max_rows_;
  std::map<std::string, Row> rows_;
  std::chrono::duration<double> interval_{0};  // the rates are of
  std::uint64_t denied_ = 0;
  std::uint64_t would_deny_ = 0;
  std::uint64_t lost_ = 0;
  std::uint64_t forgotten_ = 0;
};

// As lines without newlines, printable and none longer than `width`: two of heading (the second is
// `event`, the latest that was no record, or empty), the names of the columns, `limit` rows at
// most.
std::vector<std::string> top_text(const TopTable& table, std::chrono::seconds running,
                                  std::size_t limit, std::size_t width, const std::string& event);
// One object in one line.
std::string top_json(const TopTable& table, std::chrono::duration<double> running,
                     std::size_t limit);

}  // namespace egressd::cli
