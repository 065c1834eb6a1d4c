#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace egressd::bench {

struct MapMemory {
  std::string name;
  std::uint64_t bytes = 0;
};

// All maps pinned by a backend below `bpffs`, as the kernel accounts them (memlock in fdinfo), the
// inner maps of both slots included; largest first.
Result<std::vector<MapMemory>> map_memory(const std::string& bpffs);

}  // namespace egressd::bench
