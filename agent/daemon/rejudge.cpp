#include "daemon/rejudge.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace egressd::daemon {
namespace {

using policy::FqdnPattern;

// Patterns to be asked which of them are wider than another one.
class Wider {
 public:
  explicit Wider(const std::vector<const NameMatcher::Entry*>& entries) {
    for (const NameMatcher::Entry* entry : entries) {
      if (entry->pattern.kind() == FqdnPattern::Kind::Subdomains)
        subdomains_.insert(entry->pattern.text());
      else if (entry->pattern.kind() == FqdnPattern::Kind::InLabel)
        in_label_.push_back(&entry->pattern);
    }
  }

  void add_wider_than(const FqdnPattern& narrow, std::set<std::string>& found) const {
    std::string_view rest = narrow.text();
    // "*.a.b" is wider than what ends in ".a.b", which for "*.a.b" itself begins one label up.
    if (rest.starts_with("*.")) rest.remove_prefix(2);
    for (auto dot = rest.find('.'); dot != std::string_view::npos; dot = rest.find('.')) {
      rest.remove_prefix(dot + 1);
      if (const auto it = subdomains_.find("*." + std::string(rest)); it != subdomains_.end())
        found.insert(*it);
    }
    for (const FqdnPattern* other : in_label_) {
      if (*other != narrow && other->covers(narrow)) found.insert(other->text());
    }
  }

 private:
  std::unordered_set<std::string> subdomains_;
  std::vector<const FqdnPattern*> in_label_;
};

}  // namespace

bool still_right(const NameMatcher& names, std::string_view fqdn, const NameMatcher::Entry& entry) {
  return std::ranges::any_of(names.match(fqdn), [&](const NameMatcher::Entry* match) {
    return match->name_id == entry.name_id ||
           (!match->refuses && entry.pattern.covers(match->pattern));
  });
}

std::set<std::string> refusing_patterns(const NameMatcher& names) {
  std::set<std::string> found;
  for (const NameMatcher::Entry& entry : names.entries()) {
    if (entry.refuses) found.insert(entry.pattern.text());
  }
  return found;
}

std::set<std::string> patterns_to_renew(const Compiled& next, const NameIds& ids,
                                        const LearnedNames& learned,
                                        std::span<const enforce::LearnedAddress> grants) {
  std::set<std::string> renew;
  std::unordered_map<std::uint32_t, const NameMatcher::Entry*> by_id;
  for (const NameMatcher::Entry& entry : next.names.entries()) by_id[entry.name_id] = &entry;

  for (const LearnedNames::Known& known : learned.all()) {
    const auto it = by_id.find(known.name_id);
    if (it != by_id.end() && !still_right(next.names, known.origin.fqdn, *it->second))
      renew.insert(it->second->pattern.text());
  }

  std::set<const NameMatcher::Entry*> unexplained;
  for (const enforce::LearnedAddress& grant : grants) {
    const auto it = by_id.find(grant.name_id);
    if (it == by_id.end()) continue;
    if (it->second->allows && !may_grant(*it->second, grant.address))
      renew.insert(it->second->pattern.text());
    if (!learned.explains(grant)) unexplained.insert(it->second);
  }

  const Wider wider({unexplained.begin(), unexplained.end()});
  bool any_new = false;
  for (const NameMatcher::Entry& entry : next.names.entries()) {
    if (!entry.refuses || ids.refusing().contains(entry.pattern.text())) continue;
    any_new = true;
    wider.add_wider_than(entry.pattern, renew);
  }
  if (any_new) {
    for (const auto& [id, pattern] : ids.patterns()) {
      if (!by_id.contains(id)) renew.insert(pattern);
    }
  }
  return renew;
}

}  // namespace egressd::daemon
