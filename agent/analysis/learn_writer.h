#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>

#include "analysis/learn.h"

namespace egressd::analysis {

// All that was learned; refers to what the caller has.
struct LearnInput {
  const LearnOptions& options;
  const std::map<std::string, LearnedName>& names;
  const std::map<net::IpAddress, LearnedAddress>& addresses;
  const std::map<std::string, SetAside>& aside;
  const std::set<net::IpAddress>& resolvers;
  const Seen& all;
  std::uint64_t left_out = 0;
  std::uint64_t allowed_already = 0;
};

// The policy as YAML with comments. Nothing of the records but canonical names, addresses and
// numbers gets outside the comments, and nothing but printable ASCII into them.
Learned write_policy(const LearnInput& input);

}  // namespace egressd::analysis
