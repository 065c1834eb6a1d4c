#pragma once

#include <cstdint>
#include <list>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

#include "base/unique_fd.h"

namespace egressd::audit {

// Finds the path of a cgroup by the id the kernel reports (bpf_get_current_cgroup_id()), which is
// the kernfs id of its directory and never used twice while the machine runs.
//
// open_by_handle_at() answers in one call but needs CAP_DAC_READ_SEARCH; without it the hierarchy
// is walked, at most kMaxWalk directories a look-up. Found paths are kept, so a cgroup that is
// gone by the time of its last events still has its name; failures are not.
class CgroupPaths {
 public:
  static constexpr std::size_t kMaxCached = 4096;
  static constexpr std::size_t kMaxWalk = 4096;

  // `mount`: where cgroup2 is mounted, absolute. A mount that is not there finds nothing.
  explicit CgroupPaths(std::string mount);

  // Path below the mount with a leading slash ("/" for the root); nothing if the cgroup is gone.
  std::optional<std::string> find(std::uint64_t id);
  [[nodiscard]] const std::string& mount() const { return mount_; }
  [[nodiscard]] std::size_t cached() const { return index_.size(); }

 private:
  using Entry = std::pair<std::uint64_t, std::string>;

  // The two ways of finding; public to tests through friend only.
  friend struct CgroupPathsTest;
  std::optional<std::string> by_handle(std::uint64_t id, bool& not_permitted) const;
  std::optional<std::string> by_walk(std::uint64_t id) const;

  std::string mount_;
  UniqueFd mount_fd_;
  std::list<Entry> recent_;  // most recently used first
  std::unordered_map<std::uint64_t, std::list<Entry>::iterator> index_;
};

// Mount point of the cgroup2 hierarchy according to /proc/self/mountinfo; empty if there is none.
std::string cgroup2_mount();

}  // namespace egressd::audit
