#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "enforce/nft_frame.h"
#include "enforce/rule_set.h"
#include "net/prefix.h"
#include "nft/batch.h"

namespace egressd::enforce {

// What a grant of a name comes to in the sets of learned addresses.
struct NameForm {
  // Allowed and enforced, port by port: elements of allow4/allow6, found by one look-up.
  std::vector<std::pair<net::Protocol, std::uint16_t>> flows;
  // Any other list (ranges, deny, audit): an element of listed4_N/listed6_N, whose rules are
  // walked.
  std::optional<std::uint32_t> list;
  bool operator==(const NameForm&) const = default;
};

// A range of addresses whose rules are one list; `last` is within.
struct AddressRange {
  net::IpAddress first;
  net::IpAddress last;
  std::uint32_t list = 0;
  bool operator==(const AddressRange&) const = default;
};

// The longest prefix decides: as ranges that do not overlap, in order. One family at a time.
std::vector<AddressRange> flatten(
    const std::vector<std::pair<net::Prefix, std::uint32_t>>& prefixes, bool v4);

// Adds them to a set of ranges; `chain_of` says where a map leads to, empty for a set.
void add_ranges(nft::Batch& batch, const nft::Set& set, const std::vector<AddressRange>& ranges,
                const std::function<std::string(std::uint32_t list)>& chain_of);

// A RuleSet as rules of nftables, with the verdicts of bpf/decide.h in the same order.
class NftRules {
 public:
  explicit NftRules(const RuleSet& rules);

  // Chains it needs besides those of the hooks.
  [[nodiscard]] const std::set<std::string>& chains() const { return chains_; }
  // Lists of names that have sets of their own.
  [[nodiscard]] const std::set<std::uint32_t>& listed() const { return listed_; }
  static nft::Set listed_set(bool v4, std::uint32_t list, std::uint32_t max_learned);
  [[nodiscard]] const std::map<std::uint32_t, NameForm>& forms() const { return forms_; }

  // All chains must be there and empty, and so must the maps of networks and the resolvers.
  void add_to(nft::Batch& batch) const;

 private:
  [[nodiscard]] std::string prefix(std::uint32_t verdict, std::uint32_t reason,
                                   std::uint32_t rule = EGRESSD_NO_RULE) const;
  void add_questions(nft::Batch& batch) const;
  void add_judge(nft::Batch& batch) const;
  void add_rules(nft::Batch& batch) const;
  void add_names(nft::Batch& batch) const;
  void add_endings(nft::Batch& batch) const;
  void add_denial(nft::Batch& batch, const char* chain, std::uint32_t reason, bool enforce,
                  bool answer = true) const;
  void add_network_list(nft::Batch& batch, std::uint32_t list) const;
  void add_name_list(nft::Batch& batch, std::uint32_t list) const;
  void add_entry(nft::Batch& batch, const std::string& chain, const RuleEntry& entry,
                 std::uint32_t allow_reason, bool narrow) const;
  void add_networks(nft::Batch& batch, bool v4) const;

  const RuleSet& rules_;
  std::set<std::string> chains_;
  std::set<std::uint32_t> network_lists_;
  std::set<std::uint32_t> listed_;
  std::map<std::uint32_t, NameForm> forms_;
};

}  // namespace egressd::enforce
