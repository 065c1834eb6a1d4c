#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/result.h"

namespace egressd::daemon {

// A policy that is in force for a time only, unless it is confirmed. What was in force before is
// kept on disk meanwhile: whoever starts next has it even if the policy file is of no use then.
class Trial {
 public:
  using Text = std::shared_ptr<const std::string>;

  // Writes `before` to `state_path`. An error begins nothing.
  static Result<Trial> begin(const std::string& state_path, std::string path, Text before,
                             Text tried, BootTime deadline);
  // What was in force before a trial that no agent has ended; nothing if there was none.
  static std::optional<std::string> left_behind(const std::string& state_path);
  static void forget(const std::string& state_path);

  // Makes the policy on trial the one of `policy_path`: in one step, with the file's owner and
  // mode. Where the path is a symbolic link, the file it leads to.
  [[nodiscard]] Result<void> keep(const std::string& policy_path) const;

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] const Text& before() const { return before_; }
  [[nodiscard]] BootTime deadline() const { return deadline_; }

 private:
  std::string path_;  // of the policy on trial
  Text before_;
  Text tried_;
  BootTime deadline_{0};
};

}  // namespace egressd::daemon
