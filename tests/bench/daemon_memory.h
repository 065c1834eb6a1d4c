#pragma once

#include <chrono>
#include <string>

#include "arena.h"

namespace egressd::bench {

struct DaemonMemory {
  double rss_kib = 0;        // VmRSS
  double anonymous_kib = 0;  // RssAnon: what is its own, without program text shared on disk
  double peak_kib = 0;       // VmHWM
  int questions = 0;         // DNS questions it asked until it settled
  bool settled = false;      // did not move for two seconds before the time was up
};

// Runs the real egressd in a namespace and a cgroup of its own, with all the tags an Azure ML node
// in AKS needs and a name server that answers every question with four addresses, until its
// memory stops growing.
Result<DaemonMemory> measure_daemon(const Arena& arena, const std::string& egressd,
                                    std::chrono::seconds limit);

}  // namespace egressd::bench
