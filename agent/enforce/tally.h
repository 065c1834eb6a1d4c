#pragma once

#include <cstdint>
#include <functional>

#include "base/result.h"
#include "bpf/egressd_abi.h"

namespace egressd::enforce {

// Reads the kernel's counts of denials that repeat (struct egressd_tally), each exactly once.
class Tally {
 public:
  // Two equal maps, of which `outer` points to the one in use; all stay the caller's and must
  // outlive this. Points it to one of them if it points nowhere yet.
  static Result<Tally> open(int outer, int first, int second);

  // Tells what was counted since the last call, and forgets it once told: if the agent ends in
  // between, the next tells it again. What is still going on is counted on without a new event.
  using Visit = std::function<void(const egressd_tally&)>;
  Result<void> drain(const Visit& visit);

 private:
  Tally(int outer, int first, int second) : outer_(outer), maps_{first, second} {}
  [[nodiscard]] Result<int> in_use() const;
  static Result<void> empty(int map, const Visit& visit);
  // What is going on in one map is known to the other: it is counted there without a new event.
  static Result<void> carry_over(int from, int to);

  int outer_;
  int maps_[2];
};

}  // namespace egressd::enforce
