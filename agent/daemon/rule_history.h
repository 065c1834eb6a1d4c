#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "base/result.h"
#include "enforce/rule_set.h"

namespace egressd::daemon {

// The rules' names of the last generations: kernel events carry a rule's number only, and may be
// older than this agent. Those of the last two are kept on disk, which is as far back as events
// can reach that were recorded while no agent ran.
class RuleHistory {
 public:
  using RuleName = enforce::RuleSet::RuleName;

  // State of an earlier run, kept in `path`; it counts only if it belongs to the same kernel maps
  // (`instance`, see Backend::instance()) of the same boot. A file that is damaged does not count:
  // some records then lack the names of their rules.
  static RuleHistory load(const std::string& path, const std::string& instance);

  // Nullptr if it is not known.
  [[nodiscard]] const RuleName* find(std::uint32_t generation, std::uint32_t rule_id) const;
  // Of a generation about to come into force. An error means that they are not on disk.
  Result<void> add(std::uint32_t generation, std::vector<RuleName> names);

 private:
  struct Generation {
    std::uint32_t number = 0;
    std::vector<RuleName> names;
    std::string line;  // of the file
  };

  std::string path_;
  std::string header_;
  std::deque<Generation> generations_;  // newest last
};

}  // namespace egressd::daemon
