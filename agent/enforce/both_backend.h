#pragma once

#include <memory>

#include "base/result.h"
#include "enforce/backend.h"
#include "enforce/bpf_backend.h"

namespace egressd::enforce {

// The BPF backend decides; behind it nftables stops what its hooks do not see: what is forwarded
// (packets that a container injects with AF_PACKET, virtual machines), and processes outside the
// cgroup. Both ask the same maps. Where nftables cannot be had, eBPF goes on alone and layers()
// says why: nothing fails for it.
Result<std::unique_ptr<Backend>> open_both_backend(BpfOptions options);

}  // namespace egressd::enforce
