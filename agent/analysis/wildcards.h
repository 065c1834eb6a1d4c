#pragma once

#include <string>
#include <vector>

namespace egressd::analysis {

// Fewer names below a domain stay as they are.
inline constexpr std::size_t kNamesForWildcard = 3;

// One pattern for a rule, and the names that were seen under it.
struct NameGroup {
  std::string pattern;             // a name, or *.x
  std::vector<std::string> names;  // sorted; of an exact pattern just that name
};

// A place where a wildcard would have been natural, but lets in strangers.
struct WildcardRefusal {
  std::string suffix;  // of the wildcard that was not made
  std::string platform;
  std::size_t names = 0;  // kept as they are
  auto operator<=>(const WildcardRefusal&) const = default;
};

struct GroupedNames {
  std::vector<NameGroup> groups;          // sorted by pattern
  std::vector<WildcardRefusal> refusals;  // sorted
};

// Puts names together under *.x where x is a domain somebody registered, or below one, and the
// deepest with kNamesForWildcard of them under it. Never on, below or above a domain where anybody
// can have a name (shared platforms). `names`: canonical, in any order.
GroupedNames group_names(const std::vector<std::string>& names);

// The shared platform `name` is on or below, or "": the platforms of policy/public_suffix.h, the
// private section of the public suffix list, and the table in the .cpp.
std::string shared_platform_of(const std::string& name);

}  // namespace egressd::analysis
