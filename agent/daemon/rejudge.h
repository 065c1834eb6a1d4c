#pragma once

#include <set>
#include <span>
#include <string>
#include <string_view>

#include "daemon/compiler.h"
#include "daemon/learned_names.h"
#include "daemon/name_ids.h"
#include "enforce/rule_set.h"

// What was learned before a policy, held against the policy. Grants and live connections know the
// number of a pattern only, not the name; so a pattern that may have been granted addresses of
// names it no longer stands for gets a new number. What rests on the old one ends with it, and the
// names that are known and still belong to it are granted again under the new one.
namespace egressd::daemon {

// True if a grant of this name under that pattern opens nothing that `names` would not: the pattern
// is one of those the name is judged by, or gave way to a narrower one that refuses nothing (whose
// rules are its own and more).
[[nodiscard]] bool still_right(const NameMatcher& names, std::string_view fqdn,
                               const NameMatcher::Entry& entry);

// Patterns that need a new number before `next` comes into force:
//  - one under which a name is known that is not still_right();
//  - one with a grant nobody knows the name of (heard by an earlier run, lost, forgotten), when a
//    narrower pattern that refuses something is new (not in ids.refusing());
//  - one with a grant it may not give any more (allowPrivate was taken back);
//  - in the second case also those that are not in `next`, whatever they were granted.
// Empty if `next` has the patterns and rules of what is in force.
[[nodiscard]] std::set<std::string> patterns_to_renew(
    const Compiled& next, const NameIds& ids, const LearnedNames& learned,
    std::span<const enforce::LearnedAddress> grants);

// Texts of the entries that refuse something.
[[nodiscard]] std::set<std::string> refusing_patterns(const NameMatcher& names);

}  // namespace egressd::daemon
