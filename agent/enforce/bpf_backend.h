#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "enforce/backend.h"
#include "enforce/pins.h"

namespace egressd::enforce {

struct BpfOptions {
  std::string cgroup_path;  // cgroup v2 directory to enforce on
  std::string bpffs_dir = kDefaultBpffsDir;
  std::uint32_t max_learned = 131072;       // addresses; a pinned map keeps its own size
  std::chrono::seconds adopt_window{3600};  // see egressd_config.adopt_until_ns
};

// Where its maps are pinned.
std::string bpf_maps_dir(const std::string& bpffs_dir);

// Loads the kernel programs and creates their maps, or adopts pinned ones of the same ABI with
// all they hold. Nothing is attached yet: call apply(), then attach().
Result<std::unique_ptr<Backend>> open_bpf_backend(BpfOptions options);

}  // namespace egressd::enforce
