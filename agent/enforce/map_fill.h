#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace egressd::enforce {

struct MapFill {
  std::string map;
  std::uint64_t entries = 0;
  std::uint64_t max_entries = 0;
};

// Counts by reading the map from end to end: milliseconds for a hundred thousand entries. For hash
// maps that are not per CPU. What is added or removed meanwhile is counted, or not.
Result<MapFill> read_fill(int map_fd);

}  // namespace egressd::enforce
