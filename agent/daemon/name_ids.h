#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <unordered_map>

#include "base/result.h"

namespace egressd::daemon {

// Stable number of each FQDN pattern. Grants and live sockets in the kernel refer to patterns by
// it across reloads and restarts, so a number is never given to another pattern while the kernel
// maps it was used with exist.
class NameIds {
 public:
  // State of an earlier run, kept in `path`; it counts only if it belongs to the same kernel maps
  // (`instance`, see Backend::instance()) of the same boot and knows every number these may hold,
  // up to `highest` (Backend::highest_name_id()). Otherwise numbering starts afresh above that and
  // was_kept() is false: whatever the maps have learned then has no meaning and must be forgotten.
  static Result<NameIds> load(const std::string& path, const std::string& instance,
                              std::uint32_t highest = 0);

  [[nodiscard]] bool was_kept() const { return kept_; }
  // The pattern's number, > 0; gives it one if it has none yet.
  std::uint32_t id_of(const std::string& pattern);
  // Numbers from here on have not been given yet.
  [[nodiscard]] std::uint32_t next() const { return next_; }
  // Takes the pattern's number away: it gets a fresh one when next asked for. Whatever the kernel
  // holds under the old number means nothing any more once a policy without it is in force.
  void renew(const std::string& pattern);
  // Every number given and not taken away, with its pattern.
  [[nodiscard]] const std::map<std::uint32_t, std::string>& patterns() const { return patterns_; }
  // Patterns of the policy in force whose rules refuse something (NameMatcher::Entry::refuses).
  // What a wider pattern was granted before such a pattern came may belong to names it refuses.
  [[nodiscard]] const std::set<std::string>& refusing() const { return refusing_; }
  void set_refusing(std::set<std::string> patterns);
  // Empty if there is no such number.
  [[nodiscard]] const std::string& pattern_of(std::uint32_t id) const;
  // Writes the file anew (temporary file, rename) if something changed since. Must succeed
  // before the numbers reach the kernel, and before a refusing pattern leaves it.
  Result<void> save();

 private:
  std::string path_;
  std::string header_;
  bool kept_ = false;
  bool changed_ = false;
  std::uint32_t next_ = 1;
  std::unordered_map<std::string, std::uint32_t> ids_;
  std::map<std::uint32_t, std::string> patterns_;
  std::set<std::string> refusing_;
};

// First line of a state file: what it is, and the kernel maps and the boot it belongs to.
std::string state_header(const std::string& what, const std::string& instance);

// What a file must survive. State with state_header() means nothing after the next boot: without
// waiting for the disk it is as safe from an agent that is killed at any moment.
enum class Outlives { Agent, Machine };

// Replaces the file as a whole: readers see the old content or the new, also after a crash of what
// it outlives. It is the agent's alone (0600), or has owner and mode of `like`.
Result<void> write_file_atomically(const std::string& path, const std::string& content,
                                   Outlives outlives = Outlives::Machine,
                                   const struct stat* like = nullptr);

}  // namespace egressd::daemon
