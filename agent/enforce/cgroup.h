#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace egressd::enforce {

// Where cgroup v2 is mounted, from /proc/self/mountinfo: /sys/fs/cgroup on most hosts,
// /sys/fs/cgroup/unified on hybrid ones. The shortest path wins when there are several.
Result<std::string> find_cgroup2_mount(const std::string& mountinfo = "/proc/self/mountinfo");

// The id bpf_get_current_cgroup_id() gives for processes of this cgroup v2 directory.
Result<std::uint64_t> cgroup_id(const std::string& path);

}  // namespace egressd::enforce
