#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "bpf/egressd_abi.h"
#include "nft/batch.h"
#include "nft/values.h"

// The names in `table inet egressd`, and what of it does not depend on the policy's rules.
namespace egressd::enforce::frame {

// Packets that were refused, or would have been, come to this NFLOG group.
inline constexpr std::uint16_t kLogGroup = 9477;

// What is judged.
struct Scope {
  bool whole_host = true;  // also what is forwarded
  std::uint32_t level =
      0;  // else: of the cgroup below the root of the hierarchy, 1 for its children
  std::uint64_t cgroup_id = 0;
};

// A name per family: f(true, "local4"), f(false, "local6").
template <typename F>
void each_family(const char* name, F f) {
  f(true, std::string(name) + "4");
  f(false, std::string(name) + "6");
}

// Named counters, by the reason they count: the words of audit/reason.cpp.
std::span<const std::pair<std::uint32_t, const char*>> counters();
const char* counter_name(std::uint32_t reason);

// Sets that are there from the beginning; `max_learned` addresses are made room for.
nft::Set local(bool v4);      // the host's own addresses
nft::Set resolvers(bool v4);  // trusted, port 53
nft::Set networks(bool v4);   // map of ranges to the chains of their rules
nft::Set accepted(bool v4);   // answers on connections that were there before: peer, port of ours
nft::Set ours(bool v4);       // not answers, though conntrack thinks so: likewise
// Learned addresses: what they may be spoken to by, those with a name, and those that had one,
// which keep what is known of them as user data.
nft::Set allow(bool v4, std::uint32_t max_learned);
nft::Set known(bool v4, std::uint32_t max_learned);
nft::Set seen(bool v4, std::uint32_t max_learned);
nft::Set uplinks();     // interfaces a default route leads to: what comes in there is from outside
nft::Set generation();  // one element: the number in force
nft::Set names();       // one element: the highest number of a name so far

// "egressd:VERDICT:REASON:RULE:GENERATION:", VERDICT being enum egressd_action.
// Generation 0, of no agent: "egressd-boot:…", which an agent does not take for its own.
std::string log_prefix(std::uint32_t verdict, std::uint32_t reason, std::uint32_t rule,
                       std::uint32_t generation);
inline constexpr std::uint32_t kSnaplen = 128;  // bytes of a packet in a record

// The empty table: sets, counters, and no rule.
void add_table(nft::Batch& batch, std::uint32_t max_learned);
// Chains at the hooks, which make all of it judge. Their rules are add_hook_rules().
void add_hooks(nft::Batch& batch, const Scope& scope);
void add_hook_rules(nft::Batch& batch, const Scope& scope);

inline constexpr const char* kOutput = "output";
inline constexpr const char* kForward = "forward";

}  // namespace egressd::enforce::frame
