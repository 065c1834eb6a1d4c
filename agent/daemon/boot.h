#pragma once

#include <string>

#include "base/result.h"
#include "daemon/name_servers.h"
#include "enforce/rule_set.h"

namespace egressd::daemon {

struct BootOptions {
  std::string state_dir;
  std::string policy_path;
  std::string bpffs_dir;
  ResolvConfPaths resolv_conf;
  bool off = false;  // remove what an earlier call put in force
};

// What a machine is closed with before its network comes up.
struct BootPlan {
  enum class What {
    Nothing,  // it was never enforced, or not as a whole: it stays open
    Policy,   // the rules of a policy that have addresses
    Minimal,  // nothing but what the machine itself cannot do without
  };
  What what = What::Nothing;
  std::string why;
  enforce::RuleSet rules;
};

// Reads the last good policy (daemon/last_good.h). Without one: the policy file, if an agent has
// run on this machine, or if the state directory is missing and the file says `mode: enforce`; if
// not, nothing.
BootPlan plan_boot(const BootOptions& options);

// `egressd boot`: puts the plan in force as enforce::BootTable, says on standard error what it did
// and ends. Where an agent's enforcement is in force already it changes nothing.
Result<void> boot(const BootOptions& options);

}  // namespace egressd::daemon
