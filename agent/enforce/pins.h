#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace egressd::enforce {

inline constexpr const char* kDefaultBpffsDir = "/sys/fs/bpf/egressd";

// Layout below the bpffs directory: v<ABI>/maps/NAME and v<ABI>/links/PROGRAM, each NAME and
// PROGRAM beginning with egressd_. Whatever else is there belongs to others and is left alone.
// A pinned link keeps its program attached whether or not an agent runs.

// Makes sure `dir` exists on a BPF file system, mounting one if there is none: on /sys/fs/bpf for
// directories below it, else on `dir` itself.
Result<void> ensure_bpffs(const std::string& dir);

// One agent at a time keeps its objects below `dir`: the descriptor returned says so until it is
// closed. The error names who else does. Makes sure of `dir` as ensure_bpffs() does.
Result<UniqueFd> lock_pins(const std::string& dir);

// Maps of this name in other versions than that of the directory `except`, below `dir`.
std::vector<UniqueFd> maps_of_other_versions(const std::string& dir, const std::string& except,
                                             const std::string& name);

// Removes the pins of other versions than that of the directory `keep`, below `dir`.
void remove_other_versions(const std::string& dir, const std::string& keep);

// Removes the version directory `version` with its maps, unless programs are pinned there.
void remove_unused_version(const std::string& version);

// Break-glass, needs no running agent and heeds no lock_pins(): detaches every program under `dir`
// (links first, so that nothing is judged by half-removed maps) and removes all pins of every ABI
// version. Returns what was removed, one line each; empty if there was nothing. Goes on past errors
// and reports the first.
Result<std::vector<std::string>> detach_pinned(const std::string& dir);

}  // namespace egressd::enforce
