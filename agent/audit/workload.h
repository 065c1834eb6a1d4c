#pragma once

#include <string>
#include <string_view>

namespace egressd::audit {

// What the path of a cgroup says about who lives in it; what it does not say is empty.
struct Workload {
  std::string unit;          // systemd unit; behind a user's manager and '/', that manager's unit
  std::string container_id;  // 64 hexadecimal digits
  std::string pod_uid;       // with dashes, or 32 digits without (static pods)
};

// Reads the path below the cgroup2 mount from the top: systemd units, Kubernetes pods (both cgroup
// drivers) and containers of containerd, CRI-O, docker and podman. The walk ends at the first unit
// and the first container: what is below was named by them, not by the host.
Workload workload_of(std::string_view cgroup_path);

}  // namespace egressd::audit
