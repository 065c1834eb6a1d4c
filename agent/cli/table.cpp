#include "cli/table.h"

#include <algorithm>
#include <ostream>

#include "audit/record.h"

namespace egressd::cli {

void write_table(std::ostream& out, const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i)
      widths[i] = std::max(widths[i], audit::printable(row[i]).size());
  }
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      auto cell = audit::printable(row[i]);
      if (i + 1 < row.size()) cell.resize(widths[i] + 2, ' ');
      line += cell;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out << line << '\n';
  }
}

std::string format_seconds(long long seconds) {
  if (seconds <= 0) return "expired";
  constexpr long long kMinute = 60, kHour = 3600, kDay = 86400;
  const auto two = [](long long a, const char* ua, long long b, const char* ub) {
    return std::to_string(a) + ua + (b > 0 ? std::to_string(b) + ub : "");
  };
  if (seconds >= kDay) return two(seconds / kDay, "d", seconds % kDay / kHour, "h");
  if (seconds >= kHour) return two(seconds / kHour, "h", seconds % kHour / kMinute, "m");
  if (seconds >= kMinute) return two(seconds / kMinute, "m", seconds % kMinute, "s");
  return std::to_string(seconds) + "s";
}

}  // namespace egressd::cli
