#pragma once

#include <string>

#include "metrics/snapshot.h"

namespace egressd::metrics {

// Prometheus' text format, version 0.0.4. `now` says how old the snapshot is.
std::string exposition(const Snapshot& snapshot, BootTime now);

}  // namespace egressd::metrics
