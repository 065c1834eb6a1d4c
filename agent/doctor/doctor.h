#pragma once

#include <string>
#include <vector>

#include "daemon/name_servers.h"

namespace egressd::doctor {

enum class State { Ok, Degraded, Broken };
const char* to_string(State state);

// One thing looked at. Texts are for a person and hold names others chose: not fit for a terminal
// as they are.
struct Finding {
  std::string check;  // stable name, for programs
  State state = State::Ok;
  std::string what;
  std::string advice;  // what to do; empty if nothing
};

struct Options {
  std::string policy;  // empty: the daemon's, or kDefaultPolicy
  std::string cgroup;  // empty: the daemon's, or the root of the hierarchy
  std::string bpffs;
  std::string state_dir;
  std::string socket;
  daemon::ResolvConfPaths resolv_conf;
};

inline constexpr const char* kDefaultPolicy = "/etc/egressd/policy.yaml";
inline constexpr const char* kDefaultStateDir = "/var/lib/egressd";

// Looks at the machine and at the agent on it. Changes nothing; asks each DNS server one question
// and takes a second for each that does not answer.
std::vector<Finding> examine(const Options& options);

}  // namespace egressd::doctor
