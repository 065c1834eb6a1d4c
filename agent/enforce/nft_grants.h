#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "bpf/egressd_abi.h"
#include "enforce/nft_rules.h"
#include "enforce/rule_set.h"
#include "net/ip_address.h"
#include "nft/batch.h"
#include "nft/connection.h"

namespace egressd::enforce {

// What was learned, as the sets in the kernel have it: up to EGRESSD_MAX_GRANTS names to an
// address, each with its own end. The kernel ends each element by itself; what it is for is kept
// there as user data of seen4/seen6, for the next agent.
class NftGrants {
 public:
  explicit NftGrants(std::uint32_t max_learned) : max_learned_(max_learned) {}

  // Reads what an earlier agent left.
  Result<void> load(nft::Connection& connection);

  // Each adds to the batch what makes the sets follow. If the batch is not committed, take_back().
  // Returns how many had no room. One name holds an eighth of the room at most: above, what of it
  // ends first is given up.
  std::size_t learn(nft::Batch& batch, std::span<const LearnedAddress> addresses, BootTime now);
  // Grants that ended before `limit`; returns how many.
  std::size_t expire(nft::Batch& batch, BootTime limit, BootTime now);
  // Every element anew, in sets that are empty by then: names have other rules.
  void refill(nft::Batch& batch, const std::map<std::uint32_t, NameForm>& forms, BootTime now);
  // What refill() leaves out as it outlives rules: what was learned at all. Into sets that are
  // empty.
  void refill_seen(nft::Batch& batch) const;
  void clear() {
    addresses_.clear();
    by_name_.clear();
  }
  // Undoes the last learn() or expire(), or accepts it.
  void take_back();
  void keep() { undo_.clear(); }

  [[nodiscard]] const std::map<std::uint32_t, NameForm>& forms() const { return forms_; }
  void set_forms(std::map<std::uint32_t, NameForm> forms) { forms_ = std::move(forms); }
  [[nodiscard]] std::vector<LearnedAddress> all() const;
  // Grants by which this may be spoken to now and that end before `until`.
  [[nodiscard]] std::vector<LearnedAddress> ending(const net::IpAddress& address,
                                                   net::Protocol protocol, std::uint16_t port,
                                                   BootTime until) const;
  [[nodiscard]] std::size_t count() const;  // grants
  [[nodiscard]] std::size_t addresses() const { return addresses_.size(); }
  [[nodiscard]] std::uint32_t max_learned() const { return max_learned_; }

 private:
  struct Grant {
    std::uint32_t name_id = 0;
    BootTime expires{0};
  };
  struct Grants {
    std::array<Grant, EGRESSD_MAX_GRANTS> grants{};
    std::uint8_t count = 0;
    [[nodiscard]] std::span<const Grant> span() const { return {grants.data(), count}; }
  };
  // An element with an end.
  struct Ending {
    nft::Set set;
    nft::KeyBytes key;
    BootTime expires{0};
  };

  [[nodiscard]] std::vector<Ending> wanted(const net::IpAddress& address,
                                           const Grants& grants) const;
  void add_seen(nft::Batch& batch, const net::IpAddress& address, const Grants& grants) const;
  void change(nft::Batch& batch, const net::IpAddress& address, const Grants& before,
              const Grants& after, BootTime now);

  // Without any grant: forgotten.
  void store(const net::IpAddress& address, const Grants& after);

  std::uint32_t max_learned_;
  std::map<std::uint32_t, NameForm> forms_;  // of the generation in force
  std::unordered_map<net::IpAddress, Grants> addresses_;
  // What each name holds, by end.
  std::unordered_map<std::uint32_t, std::set<std::pair<BootTime, net::IpAddress>>> by_name_;
  std::vector<std::pair<net::IpAddress, Grants>> undo_;  // count 0: was not there
};

}  // namespace egressd::enforce
