#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "policy/in_label_tree.h"
#include "policy/policy.h"

namespace egressd::policy {

// One protocol and port range of one rule.
struct MergedEntry {
  std::uint32_t rule = 0;  // as Merger::add() numbered it
  net::Protocol protocol = net::Protocol::Any;
  net::PortRange ports;
  Action action = Action::Allow;
  Mode mode = Mode::Enforce;
  auto operator<=>(const MergedEntry&) const = default;
};

// The kernel looks a destination up once and finds the narrowest prefix or pattern only. So each
// of them carries the rules of all that are wider: this is where they are put together, for the
// compiler and, since a list has a limit, for whoever says beforehand that a policy fits.
class Merger {
 public:
  // Numbers the rules 0, 1, … in order of judgement. They must stay where they are.
  std::uint32_t add(const Rule& rule, Action action);
  // To be called once, after the last add().
  void finish();

  struct Destination {
    const net::Prefix* prefix = nullptr;  // one of the two
    const FqdnPattern* pattern = nullptr;
    // Ascending: those that may decide something here. Of rules that one of the same prefix or
    // pattern makes pointless the first kMaxEntries at most.
    std::span<const std::uint32_t> rules;
    bool allow_private = false;  // an allow rule for it opts out of the rebinding guard
  };
  using Visit = std::function<void(const Destination&)>;
  void each_prefix(const Visit& visit) const;
  void each_pattern(const Visit& visit) const;

  // The entries of these rules without those that can never decide. Longer than kMaxEntries by
  // one if they do not fit, with the first that has no room at the end.
  [[nodiscard]] std::vector<MergedEntry> join(std::span<const std::uint32_t> rules) const;

 private:
  struct Numbered {
    const Rule* rule;
    Action action;
  };
  struct Own {  // one prefix or pattern with the rules that name it
    const net::Prefix* prefix;
    const FqdnPattern* pattern;
    std::uint32_t first, count;  // in own_rules_
    bool allow_private;
  };
  template <typename Target>
  void group(std::vector<std::pair<Target, std::uint32_t>>& targets, std::vector<Own>& out);
  [[nodiscard]] std::span<const std::uint32_t> rules_of(const Own& own) const {
    return {own_rules_.data() + own.first, own.count};
  }

  std::vector<Numbered> rules_;
  std::vector<Own> prefixes_;
  std::vector<Own> patterns_;
  std::vector<std::uint32_t> own_rules_;
  std::unordered_map<std::string_view, std::uint32_t> subdomains_;  // what follows "*."
  InLabelTree in_label_;
};

}  // namespace egressd::policy
