#pragma once

#include <string>
#include <vector>

#include "cli/commands.h"

namespace egressd::cli {

inline constexpr const char* kDefaultPolicy = "/etc/egressd/policy.yaml";

// What `exec` itself returns, as env(1) and sudo do; beside them the command's own status, or
// 128 + signal.
inline constexpr int kExecFailed = 125;     // egressctl exec could not do its part
inline constexpr int kExecCannotRun = 126;  // the command was found but cannot be run
inline constexpr int kExecNoCommand = 127;  // the command was not found

struct ExecOptions {
  std::vector<std::string> command;
  std::string policy = kDefaultPolicy;
  bool audit = false;   // record instead of refusing, whatever the policy says
  std::string summary;  // file, "-" for standard output; empty: standard error, if there is any
  std::string records;  // file for the audit records, as `learn` reads them; empty: none
  std::string egressd;  // the agent's program; empty: beside this one, else in PATH
  std::string user;     // who the command runs as; empty: the caller
  bool json = false;    // form of the summary
};

// Runs one command in a cgroup of its own, under an agent of its own, and leaves nothing behind.
int exec(const ExecOptions& options, Streams io);

}  // namespace egressd::cli
