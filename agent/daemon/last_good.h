#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "net/ip_address.h"

namespace egressd::daemon {

// The last policy that came into force, kept on disk: what a machine is closed with before its
// network comes up, and what the agent starts with when the policy file is of no use.
struct LastGood {
  std::string policy_path;                // where it was read from
  bool enforce = false;                   // as it was in force, which --mode may have said
  bool whole_host = false;                // else only a cgroup of the machine was judged
  std::vector<net::IpAddress> resolvers;  // trusted when it was written
  std::string text;                       // of the policy

  // With its version and a check sum; parse() takes nothing that is not byte for byte that.
  [[nodiscard]] std::string to_text() const;
  static Result<LastGood> parse(std::string_view text);

  // None if there is no file. An error says what is wrong with it.
  static Result<std::optional<LastGood>> load(const std::string& path);
};

std::string last_good_path(const std::string& state_dir);

}  // namespace egressd::daemon
