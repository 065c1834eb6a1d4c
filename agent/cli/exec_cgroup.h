#pragma once

#include <cstddef>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace egressd::cli {

// A fresh cgroup v2 directory for one command. Made below the caller's own, so that the caller's
// limits, and what is enforced there already, hold for the command too; below the mount where that
// is not possible.
class ExecCgroup {
 public:
  static Result<ExecCgroup> create(const std::string& name);

  [[nodiscard]] const std::string& path() const { return path_; }

  // Moves the calling process in; async-signal-safe. False: errno says why.
  [[nodiscard]] bool enter() const;

  // Kills all that is in it or below and waits until it is empty; returns how many processes
  // there were.
  Result<std::size_t> kill_all() const;

  // Removes it with all below. It must be empty of processes.
  [[nodiscard]] Result<void> remove() const;

 private:
  ExecCgroup(std::string path, UniqueFd procs) : path_(std::move(path)), procs_(std::move(procs)) {}

  std::string path_;
  UniqueFd procs_;  // cgroup.procs, for writing
};

// The path /proc/self/cgroup gives for cgroup v2: "/" for the root of the caller's cgroup
// namespace, empty if there is none or it lies outside.
std::string own_cgroup(const std::string& proc_file = "/proc/self/cgroup");

}  // namespace egressd::cli
