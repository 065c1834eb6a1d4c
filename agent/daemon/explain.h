#pragma once

#include <string>
#include <vector>

#include "audit/record.h"
#include "daemon/status.h"
#include "policy/policy.h"

namespace egressd::daemon {

// Why a destination is reachable or not, as far as the agent knows.
struct Explanation {
  policy::Verdict verdict;
  std::string collection, rule;  // that decided; empty if none did
  std::string by;                // the name or address that was judged
  std::vector<ListEntry> grants;
  std::vector<audit::Record> denied;  // the latest, newest first
  std::string to_allow;               // a rule to paste; empty if it is allowed
};

// A name an address is known by, and what to show for it: where an earlier run learned the address,
// only the pattern is known, and any name below it stands for the real one.
struct KnownName {
  std::string fqdn;
  std::string shown;
};

// `policy` with the servers in force. `names`: of the address at the moment; if no network rule
// decides on it, the first of them that is allowed does.
Explanation explain(const policy::Policy& policy, const policy::Destination& destination,
                    const std::vector<KnownName>& names);
std::string to_json(const Explanation& explanation);

}  // namespace egressd::daemon
