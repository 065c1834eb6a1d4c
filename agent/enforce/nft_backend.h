#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "enforce/backend.h"

namespace egressd::enforce {

struct NftOptions {
  std::string cgroup_path;             // cgroup v2 directory to enforce on
  std::uint32_t max_learned = 131072;  // addresses; a table that is there keeps its own size
};

// The second engine: the same verdicts by `table inet egressd`, in the network namespace of the
// agent. Makes the table, or adopts one with all it holds. Nothing is judged yet: call apply(),
// then attach().
//
// Every packet is judged for itself, by the rules of now: what a new policy does not allow ends
// with its next packet, and no mark of a connection can outlive its reason or meet another
// program's use of it. Conntrack only says which packets answer what the other side began.
//
// What it cannot do, and says so:
//  - DNS is not read: questions are led to RuleSet::Dns::forwarder, which learn()s before it
//  answers.
//    What is forwarded is not led there: it may ask the resolvers for any name, and teaches
//    nothing;
//  - packets know no process: records have its user only;
//  - with a cgroup below the root, what is forwarded is not judged: it has no socket;
//  - there is no break-glass: detach().
Result<std::unique_ptr<Backend>> open_nft_backend(NftOptions options);

}  // namespace egressd::enforce
