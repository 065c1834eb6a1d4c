#pragma once

#include <optional>
#include <string>
#include <vector>

#include "doctor/doctor.h"
#include "policy/policy.h"

// The parts of examine(), each adding what it finds.
namespace egressd::doctor {

using Findings = std::vector<Finding>;

void add(Findings& findings, std::string check, State state, std::string what,
         std::string advice = {});

// What an agent may do, and whether this caller may.
bool check_capabilities(Findings& findings);  // false: what needs them cannot be looked at
void check_kernel(Findings& findings);
void check_cgroup(Findings& findings, const std::string& cgroup, bool privileged);

void check_bpffs(Findings& findings, const Options& options);
void check_state_dir(Findings& findings, const Options& options, bool privileged);
void check_clock(Findings& findings);
void check_neighbours(Findings& findings);  // for information: lockdown, other firewalls

// Empty if the file cannot be used.
std::optional<policy::Policy> check_policy(Findings& findings, const std::string& path);
void check_name_servers(Findings& findings, const policy::Policy& policy,
                        const daemon::ResolvConfPaths& paths);

// What the agent on this machine says of itself.
struct Agent {
  bool answers = false;
  std::string policy_path;
  std::string cgroup;
};
Agent check_agent(Findings& findings, const Options& options);

// What closes the machine at boot.
void check_boot_table(Findings& findings, const Agent& agent);
void check_last_good(Findings& findings, const Options& options);

}  // namespace egressd::doctor
