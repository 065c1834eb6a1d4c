#pragma once

#include <cstdint>
#include <set>
#include <vector>

#include "nft/batch.h"
#include "nft/sockets.h"

namespace egressd::enforce {

// TCP ports somebody listens on.
std::set<std::uint16_t> served_ports(const std::vector<nft::OpenSocket>& open);

// Conntrack sees connections from its first rule on only, and takes who speaks first for the one
// who began: says of those that are there already which side it was (sets `accepted`, `ours`).
void add_old_connections(nft::Batch& batch, const std::vector<nft::OpenSocket>& open);

}  // namespace egressd::enforce
