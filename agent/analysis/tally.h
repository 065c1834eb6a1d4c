#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "audit/record.h"

namespace egressd::analysis {

using SystemTime = std::chrono::system_clock::time_point;

// Counts come from files anybody may have written: they stop at the end instead of wrapping.
std::uint64_t saturating_sum(std::uint64_t a, std::uint64_t b);

// RFC 3339, UTC, whole seconds.
std::string format_time(SystemTime time);

// "1 denial", "12 denials".
std::string counted(std::uint64_t count, const std::string& noun);

// Program file of the record, else what the thread calls itself, else "?". Not fit for a terminal.
const std::string& program_of(const audit::Record& record);

// Counts per text, for at most `limit` texts: those that come first. The rest is one number.
class Counts {
 public:
  explicit Counts(std::size_t limit) : limit_(limit) {}
  void add(const std::string& text, std::uint64_t count);
  // By falling count, then by text; at most `most`.
  [[nodiscard]] std::vector<std::pair<std::string, std::uint64_t>> top(std::size_t most) const;
  [[nodiscard]] std::size_t size() const { return counts_.size(); }
  [[nodiscard]] std::uint64_t others() const { return others_; }
  void merge(const Counts& other);

 private:
  std::size_t limit_;
  std::map<std::string, std::uint64_t> counts_;
  std::uint64_t others_ = 0;
};

// How often, when and by whom.
struct Seen {
  static constexpr std::size_t kMaxPrograms = 16;

  std::uint64_t count = 0;  // verdicts, not records
  SystemTime first = SystemTime::max();
  SystemTime last = SystemTime::min();
  Counts programs{kMaxPrograms};

  void add(const audit::Record& record);
  void merge(const Seen& other);
  // "12 denials, first … last …; by /usr/bin/curl (10), python3 (2)"; printable.
  [[nodiscard]] std::string to_text(const std::string& noun = "denial") const;
};

}  // namespace egressd::analysis
