#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "enforce/nft_frame.h"
#include "nft/batch.h"
#include "nft/sockets.h"

// Which sockets of this host the table judges, and what it must know of those that are open.
namespace egressd::enforce::frame {

// How deep the cgroup is below the root of the hierarchy, and its id.
Result<Scope> scope_of(const std::string& cgroup_path);

// TCP ports somebody listens on.
std::set<std::uint16_t> served_ports(const std::vector<nft::OpenSocket>& open);

// Conntrack sees connections only since its hooks came with the first rule that asks it, and takes
// who speaks first for the one who began: the sets accepted() and ours() say it for these.
void add_old_connections(nft::Batch& batch, const std::vector<nft::OpenSocket>& open);

}  // namespace egressd::enforce::frame
