#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

// What this kernel has and what is on a cgroup, found out by asking it. Nothing stays behind.
namespace egressd::enforce {

struct Feature {
  std::string name;  // "programs of type cgroup_skb"
  bool there = false;
  bool required = true;  // else something lesser is lost without it
  std::string without;   // what, or since which kernel it is there
};

// Needs the rights of an agent: without them all looks missing.
std::vector<Feature> probe_features();

// Whether programs are translated to machine code; nothing if that cannot be told.
std::optional<bool> probe_jit();

// A program on one of the hooks egressd uses.
struct OnCgroup {
  std::string hook;  // "connect4"
  std::uint32_t id = 0;
  std::string name;        // as given by whoever loaded it; cut after 15 characters
  bool ours = false;       // by its name
  bool rewrites = false;   // the hook lets it change the destination
  bool exclusive = false;  // attached so that no other may be on this cgroup and this hook
};

// All programs on `cgroup` itself.
Result<std::vector<OnCgroup>> programs_on(const std::string& cgroup);

// Names of the links pinned by egressd below `bpffs_dir`, of any version.
std::vector<std::string> pinned_links(const std::string& bpffs_dir);

}  // namespace egressd::enforce
