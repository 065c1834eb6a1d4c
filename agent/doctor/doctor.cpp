#include "doctor/doctor.h"

#include <utility>

#include "doctor/checks.h"
#include "enforce/cgroup.h"

namespace egressd::doctor {

const char* to_string(State state) {
  switch (state) {
    case State::Ok:
      return "ok";
    case State::Degraded:
      return "degraded";
    case State::Broken:
      return "broken";
  }
  return "broken";
}

void add(Findings& findings, std::string check, State state, std::string what, std::string advice) {
  findings.push_back({std::move(check), state, std::move(what), std::move(advice)});
}

std::vector<Finding> examine(const Options& options) {
  Findings findings;
  const bool privileged = check_capabilities(findings);
  if (privileged) check_kernel(findings);
  Findings of_agent;
  const Agent agent = check_agent(of_agent, options);
  if (privileged) check_boot_table(of_agent, agent);

  const auto mount = enforce::find_cgroup2_mount();
  if (!mount) {
    add(findings, "cgroup", State::Broken, mount.error().message,
        "mount it, or boot with systemd.unified_cgroup_hierarchy=1");
  } else {
    check_cgroup(findings,
                 !options.cgroup.empty() ? options.cgroup
                 : !agent.cgroup.empty() ? agent.cgroup
                                         : *mount,
                 privileged);
  }
  check_bpffs(findings, options);
  check_state_dir(findings, options, privileged);
  if (privileged) check_last_good(findings, options);
  check_clock(findings);

  const std::string path = !options.policy.empty()      ? options.policy
                           : !agent.policy_path.empty() ? agent.policy_path
                                                        : kDefaultPolicy;
  const auto policy = check_policy(findings, path);
  check_name_servers(findings, policy.value_or(policy::Policy{}), options.resolv_conf);
  for (Finding& finding : of_agent) findings.push_back(std::move(finding));
  check_neighbours(findings);
  return findings;
}

}  // namespace egressd::doctor
