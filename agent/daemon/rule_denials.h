#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "enforce/rule_set.h"

namespace egressd::daemon {

// How often single rules refused something, as far as there are records of it. Only rules of the
// policy in force that can refuse are counted, and only so many: whoever sends packets cannot make
// it grow.
class RuleDenials {
 public:
  static constexpr std::size_t kMaxRules = 1000;

  struct Counts {
    std::uint64_t denied = 0;
    std::uint64_t would_deny = 0;
  };
  using Name = std::pair<std::string, std::string>;  // collection, rule

  // From now on these rules. Those of before keep their counts if they have the same name.
  void follow(const enforce::RuleSet& rules);
  void count(const enforce::RuleSet::RuleName& rule, bool denied, std::uint64_t times = 1);
  // With zeros. Rules beyond the limit share one entry without a name.
  [[nodiscard]] const std::map<Name, Counts>& all() const { return counts_; }

 private:
  std::map<Name, Counts> counts_;
};

}  // namespace egressd::daemon
