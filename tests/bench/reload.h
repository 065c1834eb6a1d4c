#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "arena.h"

namespace egressd::bench {

// One reload after the other of a policy of so many rules.
struct Reloads {
  std::uint32_t rules = 0;
  std::vector<double>
      wall_ms;                 // from the rename of the file until the kernel judges by the new one
  std::vector<double> cpu_ms;  // of all threads of the agent in that time
};

// A real egressd for each size, in a namespace and a cgroup of its own. Their policy files are
// replaced in turn by one of which one rule differs. Half of the rules are for networks, half for
// names with wildcards.
Result<std::vector<Reloads>> measure_reloads(const Arena& arena, const std::string& egressd,
                                             std::span<const std::uint32_t> sizes, int rounds);

}  // namespace egressd::bench
