#pragma once

#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "daemon/compiler.h"
#include "daemon/learned_names.h"
#include "daemon/name_ids.h"
#include "daemon/status.h"

namespace egressd::daemon {

// The answer to `list`, made line by line as the client reads: what is reachable at the moment,
// with the rule behind it and, if DNS said it, the name and who asked.
class GrantList {
 public:
  struct Sources {
    const Compiled& compiled;
    const NameIds& ids;
    const LearnedNames& names;
    const Clock& clock;
    std::function<AskedBy(const Asker&)> asked_by;
  };

  // `sources` must stay valid as long as next() is called; `grants` as of now.
  GrantList(Sources sources, std::vector<enforce::LearnedAddress> grants,
            bool network_rules = true);
  // False after the last.
  bool next(ListEntry& entry);

 private:
  [[nodiscard]] enforce::RuleSet::RuleName rule_of(std::uint32_t list) const;
  void add(const enforce::LearnedAddress& grant);

  Sources sources_;
  std::vector<enforce::LearnedAddress> grants_;
  std::vector<ListEntry> fixed_;  // network rules
  std::map<std::uint32_t, std::uint32_t> list_of_name_;
  std::deque<ListEntry> ready_;
  std::size_t next_fixed_ = 0;
  std::size_t next_grant_ = 0;
};

}  // namespace egressd::daemon
