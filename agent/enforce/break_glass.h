#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "bpf/egressd_abi.h"

namespace egressd::enforce {

// Break-glass: for a time nothing is refused, and what would have been is recorded. Kept by the
// kernel in the pinned maps, so that it needs no agent to begin and none to end.
struct Opening {
  BootTime since{0};
  BootTime until{0};
  std::uint32_t uid = 0;    // who opened
  std::string reason = {};  // theirs; not to be shown on a terminal as it is

  // Of zero: closed.
  static Opening from(const egressd_open& value);
  [[nodiscard]] bool is_open(BootTime now) const { return until > now; }
  bool operator==(const Opening&) const = default;
};

// `opening.reason` longer than kMaxOpenReason is cut at a character.
egressd_open to_value(const Opening& opening);

inline constexpr std::size_t kMaxOpenReason = EGRESSD_OPEN_REASON_LEN - 1;  // bytes

// Opens under every ABI version pinned below `bpffs_dir`. An error if there is none: nothing is in
// force. `opening.reason` longer than kMaxOpenReason is cut at a character.
Result<void> open_glass(const std::string& bpffs_dir, const Opening& opening);
// Closes again; returns what was open, nothing if nothing was.
Result<std::optional<Opening>> close_glass(const std::string& bpffs_dir, BootTime now);
// What is open.
Result<std::optional<Opening>> find_opening(const std::string& bpffs_dir, BootTime now);

}  // namespace egressd::enforce
