#pragma once

#include <span>
#include <string>
#include <vector>

#include "daemon/status.h"
#include "enforce/map_fill.h"
#include "metrics/snapshot.h"

namespace egressd::daemon {

// The status as metrics. `policy_names` are those shown one by one: names that processes asked for
// are not for everybody to read.
metrics::Snapshot snapshot_of(const StatusReport& report, std::span<const std::string> policy_names,
                              const std::vector<enforce::MapFill>& maps, BootTime taken);

}  // namespace egressd::daemon
