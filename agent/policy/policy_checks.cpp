#include "policy/policy_checks.h"

#include <algorithm>
#include <map>
#include <memory_resource>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "policy/in_label_tree.h"
#include "policy/limits.h"
#include "policy/merge.h"
#include "policy/suggest.h"

namespace egressd::policy {
namespace {

constexpr std::size_t kMaxOverlapChecks = 4'000'000;

std::string_view domain_key(std::string_view pattern) {
  const auto last = pattern.rfind('.');
  if (last == std::string_view::npos || last == 0) return pattern;
  const auto second = pattern.rfind('.', last - 1);
  return second == std::string_view::npos ? pattern : pattern.substr(second + 1);
}

std::string over_full(const DraftRule& last, const std::vector<MergedEntry>& list,
                      const std::vector<const DraftRule*>& rules, const std::string& destination) {
  std::string others;
  std::size_t count = 0;
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (list[i].rule == list.back().rule || (i > 0 && list[i].rule == list[i - 1].rule)) continue;
    if (++count <= 3)
      others += (others.empty() ? "" : ", ") + quoted(rules[list[i].rule]->rule.name);
  }
  if (count > 3) others += " and " + std::to_string(count - 3) + " more";
  return quoted(destination) + " is subject to rule " + quoted(last.rule.name) + " and to " +
         others + " judged before it: more pairs of protocol and port range than the " +
         std::to_string(kMaxEntries) +
         " the kernel has room for; write neighbouring ports as ranges, or one rule for all of "
         "its ports";
}

// One pattern text of the policy and which actions it is subject to.
struct PatternUse {
  const FqdnPattern* pattern;
  const YamlNode* node[2] = {nullptr, nullptr};  // first rule by Action
  const std::string* rule[2] = {nullptr, nullptr};
};

const YamlNode* any_node(const PatternUse& use) { return use.node[0] ? use.node[0] : use.node[1]; }

void check_pair(Reader& reader, const PatternUse& a, const PatternUse& b) {
  if (!a.pattern->overlaps(*b.pattern) || a.pattern->covers(*b.pattern) ||
      b.pattern->covers(*a.pattern))
    return;
  for (const std::size_t action : {0u, 1u}) {
    const YamlNode* first = a.node[action];
    const YamlNode* second = b.node[1 - action];
    if (!first || !second) continue;
    const bool a_later =
        std::pair(first->line, first->column) > std::pair(second->line, second->column);
    const PatternUse& later = a_later ? a : b;
    const PatternUse& earlier = a_later ? b : a;
    const std::size_t later_action = a_later ? action : 1 - action;
    reader.error(*(a_later ? first : second),
                 quoted(later.pattern->text()) + (later_action == 0 ? " (allow)" : " (deny)") +
                     " and " + quoted(earlier.pattern->text()) + " of rule " +
                     quoted(*earlier.rule[1 - later_action]) +
                     (later_action == 0 ? " (deny)" : " (allow)") +
                     " match the same names, and neither is the more specific: the verdict "
                     "would be a matter of luck; make one a part of the other");
    return;
  }
}

struct Earlier {
  const DraftRule* rule;
  const Collection* collection;
};

bool endpoints_covered(const Rule& by, const Rule& rule) {
  return std::ranges::all_of(rule.protocols,
                             [&](net::Protocol p) {
                               return std::ranges::any_of(by.protocols, [&](net::Protocol q) {
                                 return q == p || q == net::Protocol::Any ||
                                        (q == net::Protocol::Icmp && p == net::Protocol::Icmpv6);
                               });
                             }) &&
         std::ranges::all_of(rule.ports, [&](const net::PortRange& p) {
           // A DNS port by itself opens what a range leaves closed.
           const bool dns =
               p.first == p.last && std::ranges::find(kDnsPorts, p.first) != kDnsPorts.end();
           return std::ranges::any_of(by.ports, [&](const net::PortRange& q) {
             return q.first <= p.first && p.last <= q.last && (!dns || q.first == q.last);
           });
         });
}

}  // namespace

// Every destination's rules, put together as the compiler will, have room in the kernel.
void check_merged(Reader& reader, const std::vector<DraftCollection>& drafts) {
  Merger merger;
  std::vector<const DraftRule*> rules;
  std::size_t network = 0, fqdn = 0;
  for (const DraftCollection& draft : drafts)
    for (const DraftRule& r : draft.rules) {
      merger.add(r.rule, draft.head.action);
      rules.push_back(&r);
      (r.rule.is_network() ? network : fqdn) += r.rule.protocols.size() * r.rule.ports.size();
    }
  if (network <= kMaxEntries && fqdn <= kMaxEntries) return;
  merger.finish();
  std::unordered_set<const DraftRule*> reported;
  std::set<std::vector<std::uint32_t>> checked;  // most destinations share their rules
  const auto check = [&](const Merger::Destination& destination) {
    std::size_t entries = 0;
    for (const std::uint32_t number : destination.rules)
      entries += rules[number]->rule.protocols.size() * rules[number]->rule.ports.size();
    if (entries <= kMaxEntries ||
        !checked.emplace(destination.rules.begin(), destination.rules.end()).second)
      return;
    const auto list = merger.join(destination.rules);
    if (list.size() <= kMaxEntries) return;
    const DraftRule& last = *rules[list.back().rule];
    if (!reported.insert(&last).second) return;
    reader.error(*last.node, over_full(last, list, rules,
                                       destination.prefix ? destination.prefix->to_string()
                                                          : destination.pattern->text()));
  };
  merger.each_prefix(check);
  merger.each_pattern(check);
}

// The kernel grants an address by the most specific pattern that matches its name. Exact names
// and subdomains nest; two patterns of which one has `*` inside a label may cross.
void check_overlaps(Reader& reader, const std::vector<DraftCollection>& drafts) {
  const auto has = [&](Action action) {
    return std::ranges::any_of(
        drafts, [&](const DraftCollection& draft) { return draft.head.action == action; });
  };
  if (!has(Action::Allow) || !has(Action::Deny)) return;
  std::unordered_map<std::string_view, PatternUse> uses;
  bool both[2] = {false, false};
  for (const DraftCollection& draft : drafts)
    for (const DraftRule& r : draft.rules)
      for (const FqdnPattern& pattern : r.rule.fqdns) {
        if (pattern.kind() == FqdnPattern::Kind::Exact) continue;
        const auto action = static_cast<std::size_t>(draft.head.action);
        both[action] = true;
        PatternUse& use = uses.try_emplace(pattern.text(), PatternUse{&pattern}).first->second;
        if (use.node[action]) continue;
        use.node[action] = r.node;
        use.rule[action] = &r.rule.name;
      }
  if (!both[0] || !both[1]) return;
  // `*` never reaches into the last two labels: patterns that differ there cannot cross.
  std::unordered_map<std::string_view, std::vector<const PatternUse*>> by_domain;
  for (const auto& [text, use] : uses) by_domain[domain_key(text)].push_back(&use);
  std::size_t checks = 0;
  for (const auto& [domain, list] : by_domain)
    for (std::size_t i = 0; i < list.size(); ++i) {
      if (list[i]->pattern->kind() != FqdnPattern::Kind::InLabel) continue;
      for (std::size_t k = 0; k < list.size(); ++k) {
        const bool other_in_label = list[k]->pattern->kind() == FqdnPattern::Kind::InLabel;
        if (k == i || (other_in_label && k < i)) continue;
        if (++checks > kMaxOverlapChecks) {
          reader.error(*any_node(*list[i]), "too many patterns with '*' inside a label under " +
                                                quoted(domain) +
                                                "; write them as \"*.…\" or as plain names");
          return;
        }
        check_pair(reader, *list[i], *list[k]);
      }
    }
}

// Cheap cases only: the same pattern or prefix, a wildcard above the name, a wide prefix.
void warn_never_matching(Reader& reader, const std::vector<DraftCollection>& drafts) {
  constexpr std::size_t kMaxCandidates = 16;
  // Many small things that end together.
  std::pmr::monotonic_buffer_resource memory;
  using List = std::pmr::vector<Earlier>;
  std::pmr::unordered_map<std::string_view, List> by_pattern(&memory);
  std::pmr::map<net::Prefix, List> by_prefix(&memory);
  std::vector<std::pair<net::Prefix, Earlier>> wide;
  for (const DraftCollection& draft : drafts)
    for (const DraftRule& r : draft.rules) {
      const Earlier* decider = nullptr;
      const auto decided_by = [&](const List* list) {
        if (!list) return false;
        for (const Earlier& e : *list)
          if (endpoints_covered(e.rule->rule, r.rule)) {
            decider = &e;
            return true;
          }
        return false;
      };
      const auto pattern_list = [&](std::string_view text) {
        const auto it = by_pattern.find(text);
        return it == by_pattern.end() ? nullptr : &it->second;
      };
      const auto prefix_covered = [&](const net::Prefix& prefix) {
        const auto it = by_prefix.find(prefix);
        if (decided_by(it == by_prefix.end() ? nullptr : &it->second)) return true;
        for (const auto& [outer, earlier] : wide)
          if (outer.contains(prefix) && endpoints_covered(earlier.rule->rule, r.rule)) {
            decider = &earlier;
            return true;
          }
        return false;
      };
      const auto pattern_covered = [&](const FqdnPattern& pattern) {
        if (decided_by(pattern_list(pattern.text()))) return true;
        std::string above = "*" + pattern.text();
        for (auto dot = above.find('.'); dot != std::string::npos; dot = above.find('.', 1)) {
          above.erase(1, dot - 1);
          // "*.a.b" is not above itself; below it the labels with wildcards are gone.
          if (above.find('*', 1) == std::string::npos && above != pattern.text() &&
              decided_by(pattern_list(above)))
            return true;
          above.erase(1, 1);
        }
        return false;
      };
      const bool silent =
          !r.from_tag && (r.rule.is_network() ? std::ranges::all_of(r.rule.prefixes, prefix_covered)
                                              : std::ranges::all_of(r.rule.fqdns, pattern_covered));
      if (silent && decider)
        reader.warning(*r.node, "rule " + quoted(r.rule.name) + " never matches: rule " +
                                    quoted(decider->rule->rule.name) + " of collection " +
                                    quoted(decider->collection->name) +
                                    " is judged before it and covers it");
      const Earlier self{&r, &draft.head};
      for (const FqdnPattern& pattern : r.rule.fqdns) {
        auto& list = by_pattern[pattern.text()];
        if (list.size() < kMaxCandidates) list.push_back(self);
      }
      for (const net::Prefix& prefix : r.rule.prefixes) {
        auto& list = by_prefix[prefix];
        if (list.size() < kMaxCandidates) list.push_back(self);
        if (!prefix.is_host() && wide.size() < kMaxCandidates) wide.emplace_back(prefix, self);
      }
    }
}

// Names to resolve ahead of use that no rule allows are of no use.
void warn_unreachable_resolve(Reader& reader, const std::vector<DraftCollection>& drafts,
                              const std::vector<std::string>& names,
                              const std::vector<const YamlNode*>& nodes) {
  if (nodes.empty()) return;
  std::unordered_set<std::string_view> literal;
  InLabelTree in_label;
  for (const DraftCollection& draft : drafts) {
    if (draft.head.action != Action::Allow) continue;
    for (const DraftRule& r : draft.rules)
      for (const FqdnPattern& pattern : r.rule.fqdns)
        if (pattern.kind() == FqdnPattern::Kind::InLabel) {
          in_label.add(pattern.text(), 0, kMaxInLabelSiblings);
        } else {
          literal.insert(pattern.text());
        }
  }
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    const std::string& name = names[i];
    bool known = literal.contains(name);
    for (auto dot = name.find('.'); !known && dot != std::string::npos;
         dot = name.find('.', dot + 1))
      known = literal.contains("*" + name.substr(dot));
    known = known || !in_label.covering(name).empty();
    if (!known)
      reader.warning(*nodes[i], "no rule allows " + quoted(name) +
                                    "; resolving it ahead of use changes nothing");
  }
}

}  // namespace egressd::policy
