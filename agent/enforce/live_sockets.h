#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "bpf/egressd_abi.h"

namespace egressd::enforce {

// The iterator over open sockets, bpf/egressd_live.bpf.c: an object of its own beside the programs
// that enforce, because not every kernel that can enforce has it.
class LiveSockets {
 public:
  // `map_fd` gives the descriptor of a map of the main object by its name, or -1.
  static Result<std::unique_ptr<LiveSockets>> open(
      const std::function<int(const std::string& name)>& map_fd);
  virtual ~LiveSockets() = default;

  // Goes on with the walk, or begins one: fills `entries` with the next, at most 1024, that end
  // before `until`, with repetitions. None: the walk is over.
  virtual Result<void> next(BootTime until, std::vector<egressd_live>& entries) = 0;
};

}  // namespace egressd::enforce
