#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "daemon/name_ids.h"
#include "enforce/rule_set.h"
#include "policy/in_label_tree.h"
#include "policy/policy.h"

namespace egressd::daemon {

// Which FQDN patterns of a policy a name falls under.
class NameMatcher {
 public:
  struct Entry {
    policy::FqdnPattern pattern;
    std::uint32_t name_id = 0;
    bool allow_private = false;  // some allow rule for it opts out of the rebinding guard
    bool allows = false;         // its rules allow something; else the name is as good as unknown
    bool refuses = false;        // its rules refuse something
  };

  void add(Entry entry);
  // The most specific patterns that match: none of them covers another. Usually one; several only
  // where in-label patterns cross. `name` must be canonical.
  [[nodiscard]] std::vector<const Entry*> match(std::string_view name) const;
  [[nodiscard]] const std::vector<Entry>& entries() const { return entries_; }

 private:
  std::vector<Entry> entries_;
  std::unordered_map<std::string, std::size_t> exact_;       // name
  std::unordered_map<std::string, std::size_t> subdomains_;  // what follows "*."
  policy::InLabelTree in_label_;
};

// True if a name under this pattern may make the address reachable.
[[nodiscard]] bool may_grant(const NameMatcher::Entry& entry, const net::IpAddress& address);

struct Compiled {
  enforce::RuleSet rules;
  NameMatcher names;
  // Names to keep resolved: exact patterns that some rule allows, and dns.resolve.
  std::vector<std::string> resolve;
};

// Where names are asked: trusted servers, and the search list appended to short names there.
struct DnsServers {
  std::vector<net::IpAddress> addresses;
  std::vector<std::string> search_domains;
  bool operator==(const DnsServers&) const = default;
};

// The policy as the kernel judges it (enforce/rule_set.h), equal in meaning to policy::evaluate().
// Numbers of patterns come from `ids`, which grows. Fails when a destination would be subject to
// more port ranges than the kernel walks (EGRESSD_MAX_LIST); the error names it. The reader of the
// policy file accepts no such policy.
Result<Compiled> compile(const policy::Policy& policy, std::uint32_t generation, DnsServers servers,
                         NameIds& ids);

}  // namespace egressd::daemon
