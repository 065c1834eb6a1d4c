#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "arena.h"

namespace egressd::bench {

// The real egressd, with a cgroup, a bpffs directory, state and logs of its own. Killed and removed
// with this object.
class Daemon {
 public:
  // `name` tells daemons of one arena apart. Does not wait: see is_up().
  static Result<std::unique_ptr<Daemon>> start(const Arena& arena, const std::string& name,
                                               const Netns& netns, const std::string& egressd,
                                               const std::string& policy);
  ~Daemon();
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  [[nodiscard]] pid_t pid() const { return pid_; }
  // Its control socket is there: the policy is in force.
  [[nodiscard]] bool is_up() const;
  [[nodiscard]] bool ended();
  // Everything it has logged so far.
  [[nodiscard]] std::string log() const;

 private:
  Daemon(const Arena& arena, const std::string& name);

  std::string base_;
  std::string cgroup_;
  pid_t pid_ = -1;
};

}  // namespace egressd::bench
