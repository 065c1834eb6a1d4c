#pragma once

#include <iosfwd>
#include <string>
#include <vector>

namespace egressd::cli {

// Writes rows in columns as wide as their longest cell, every cell through audit::printable().
void write_table(std::ostream& out, const std::vector<std::vector<std::string>>& rows);

// "2d3h", "4m10s", "12s", "expired".
std::string format_seconds(long long seconds);

}  // namespace egressd::cli
