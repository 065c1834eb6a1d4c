#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "analysis/judge.h"
#include "audit/record.h"
#include "policy/policy.h"

namespace egressd::analysis {

// Connections to one place that are judged alike, before and after.
struct ReplayGroup {
  std::string destination;  // name, or address if it had none; not fit for a terminal
  std::uint16_t port = 0;   // host byte order; 0: the protocol has none
  net::Protocol protocol = net::Protocol::Tcp;
  bool question = false;  // a DNS question for the name; port and protocol are the resolver's
  Outcome before = Outcome::Denied;
  Outcome after = Outcome::Denied;
  std::string before_reason;  // with COLLECTION/RULE, if one decided
  std::string after_rule;     // COLLECTION/RULE, empty if none decided
  std::string why;            // of `after`, one sentence
  std::uint64_t count = 0;    // verdicts
};

// Judges recorded connections under another policy.
class Replay {
 public:
  // Kinds of connections told apart; what is beyond is counted in `others`.
  static constexpr std::size_t kMaxGroups = 100'000;

  struct Totals {
    std::uint64_t verdicts = 0;   // all judged
    std::uint64_t changed = 0;    // their verdict would change
    std::uint64_t uncertain = 0;  // names disagree
    std::uint64_t nameless = 0;   // known by address only, and no network rule decided
    std::uint64_t unjudged = 0;   // no policy decides them
    std::uint64_t others = 0;     // changed or uncertain, but not in changes()
  };

  // `policy` must outlive it.
  explicit Replay(const policy::Policy& policy) : judge_(policy) {}

  void add(const audit::Record& record);
  [[nodiscard]] const Totals& totals() const { return totals_; }
  // What would change or is uncertain; by falling count, then by destination.
  [[nodiscard]] std::vector<ReplayGroup> changes() const;

 private:
  using Key =
      std::tuple<std::string, bool, std::uint16_t, net::Protocol, Outcome, Outcome, std::string>;
  Judge judge_;
  Totals totals_;
  std::map<Key, ReplayGroup> groups_;
};

}  // namespace egressd::analysis
