#pragma once

#include <string>

#include "base/result.h"
#include "daemon/compiler.h"
#include "policy/policy.h"

namespace egressd::daemon {

struct ResolvConfPaths {
  std::string conf = "/etc/resolv.conf";
  // The servers systemd-resolved asks itself, where `conf` names its stub on loopback only.
  std::string upstream = "/run/systemd/resolve/resolv.conf";
};

struct NameServers {
  DnsServers dns;
  // `conf` names loopback only, and `upstream` says no more: whom the stub asks is not known, so it
  // is refused, if it is judged at all.
  bool stub_alone = false;
  bool operator==(const NameServers&) const = default;
};

// The servers to trust: those of the policy, else those of `conf` and, if these are all on
// loopback, also those of `upstream`. Search domains come from `conf` in any case.
Result<NameServers> find_name_servers(const policy::Policy& policy, const ResolvConfPaths& paths);

}  // namespace egressd::daemon
