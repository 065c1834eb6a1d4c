#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "net/endpoint.h"
#include "net/ip_address.h"
#include "net/prefix.h"

namespace egressd::enforce {

enum class Action : std::uint8_t { Allow, Deny };

// One (protocol, port range) of one rule, as a backend judges it.
struct RuleEntry {
  std::uint32_t rule_id = 0;  // index into RuleSet::rule_names
  net::Protocol protocol = net::Protocol::Any;
  net::PortRange ports;
  Action action = Action::Allow;
  bool audit = false;  // passes, and is recorded as would-deny
  auto operator<=>(const RuleEntry&) const = default;
};

// In order of judgement: the first entry that matches protocol and port decides.
using RuleList = std::vector<RuleEntry>;

// The policy in the form the kernel judges: everything an address or a name is subject to is
// merged into one ordered list beforehand, so that a verdict is one look-up and one walk.
struct RuleSet {
  std::uint32_t generation = 0;  // > 0, counts up
  bool enforce = false;          // what no rule matches: denied (true) or recorded only

  struct RuleName {
    std::string collection;
    std::string rule;
  };
  std::vector<RuleName> rule_names;

  std::vector<RuleList> lists;
  // Longest prefix first wins, so its list already holds the rules of every wider prefix.
  std::vector<std::pair<net::Prefix, std::uint32_t>> prefixes;  // index into lists

  // An FQDN pattern under its stable id (> 0, dense enough to index an array; see NameIds).
  struct Name {
    std::uint32_t name_id = 0;
    std::uint32_t list = 0;  // index into lists
    std::string pattern;
    // False: nothing its rules say allows anything. Such names are not asked for, and hide wider
    // patterns.
    bool allows = true;
    bool allow_private = false;  // its answers may grant private addresses
  };
  std::vector<Name> names;

  struct Dns {
    std::vector<net::IpAddress> resolvers;  // trusted; port 53 of these is reachable
    enum class Filter : std::uint8_t { Off, Audit, Enforce };
    Filter filter = Filter::Off;  // of questions for names without a rule
    // Names below may be asked, and grant nothing.
    std::vector<std::string> ask_only;
    // A learned address is believed for clamp(TTL, min, max) + grace.
    std::chrono::seconds min_ttl{60};
    std::chrono::seconds max_ttl{86400};
    std::chrono::seconds grace{300};
    // Addresses one pattern may hold at a time, so that one wildcard cannot fill the map.
    std::uint32_t name_quota = 16384;
    // For a backend that reads no DNS itself: whose sockets ask for everybody. Under
    // Filter::Enforce no others may ask the resolvers.
    struct Forwarder {
      std::uint32_t mark = 0;  // SO_MARK
      std::uint32_t uid = 0;
    };
    std::optional<Forwarder> forwarder;
  };
  Dns dns;
};

// One address of one name.
struct LearnedAddress {
  net::IpAddress address;
  std::uint32_t name_id = 0;
  BootTime expires{0};
};

}  // namespace egressd::enforce
