#include "analysis/tally.h"

#include <time.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <limits>

namespace egressd::analysis {

std::uint64_t saturating_sum(std::uint64_t a, std::uint64_t b) {
  return b > std::numeric_limits<std::uint64_t>::max() - a
             ? std::numeric_limits<std::uint64_t>::max()
             : a + b;
}

std::string format_time(SystemTime time) {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(time.time_since_epoch());
  const std::time_t value = seconds.count();
  tm utc{};
  ::gmtime_r(&value, &utc);
  std::array<char, 80> out{};
  std::snprintf(out.data(), out.size(), "%04d-%02d-%02dT%02d:%02d:%02dZ", utc.tm_year + 1900,
                utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec);
  return out.data();
}

std::string counted(std::uint64_t count, const std::string& noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

const std::string& program_of(const audit::Record& record) {
  static const std::string kUnknown = "?";
  if (!record.exe.empty()) return record.exe;
  return record.comm.empty() ? kUnknown : record.comm;
}

void Counts::add(const std::string& text, std::uint64_t count) {
  auto it = counts_.find(text);
  if (it == counts_.end()) {
    if (counts_.size() >= limit_) {
      others_ = saturating_sum(others_, count);
      return;
    }
    it = counts_.emplace(text, 0).first;
  }
  it->second = saturating_sum(it->second, count);
}

std::vector<std::pair<std::string, std::uint64_t>> Counts::top(std::size_t most) const {
  std::vector<std::pair<std::string, std::uint64_t>> all(counts_.begin(), counts_.end());
  std::ranges::sort(all, [](const auto& a, const auto& b) {
    return a.second != b.second ? a.second > b.second : a.first < b.first;
  });
  if (all.size() > most) all.resize(most);
  return all;
}

void Counts::merge(const Counts& other) {
  for (const auto& [text, count] : other.counts_) add(text, count);
  others_ = saturating_sum(others_, other.others_);
}

void Seen::add(const audit::Record& record) {
  const auto n = std::max<std::uint64_t>(record.count, 1);
  count = saturating_sum(count, n);
  first = std::min(first, record.time);
  last = std::max(last, record.last_time.value_or(record.time));
  programs.add(program_of(record), n);
}

void Seen::merge(const Seen& other) {
  count = saturating_sum(count, other.count);
  first = std::min(first, other.first);
  last = std::max(last, other.last);
  programs.merge(other.programs);
}

std::string Seen::to_text(const std::string& noun) const {
  constexpr std::size_t kShown = 3;
  constexpr std::size_t kMaxShownBytes = 80;
  std::string out = counted(count, noun);
  if (count == 0) return out;
  out += ", " + format_time(first);
  if (const auto end = format_time(last); end != format_time(first)) out += " to " + end;
  std::string by;
  for (const auto& [program, times] : programs.top(kShown)) {
    by += by.empty() ? "; by " : ", ";
    by += audit::printable(program).substr(0, kMaxShownBytes) + " (" + std::to_string(times) + ")";
  }
  if (programs.size() > kShown || programs.others() > 0) by += " and others";
  return out + by;
}

}  // namespace egressd::analysis
