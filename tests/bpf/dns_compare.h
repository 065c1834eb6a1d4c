#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "support/dns_reference.h"
#include "tests/bpf/dns_kernel.h"

namespace egressd::test {

// The reference's name for an outcome of an answer; nothing for one the reference does not know.
std::optional<DnsVerdict> verdict_of(std::uint32_t outcome);

// 16 bytes, as keys of the kernel's map.
std::array<std::uint8_t, 16> map_key(std::span<const std::uint8_t> address);

// One policy, held by the kernel and by the reference, and messages shown to both. The kernel's map
// of addresses is empty before and after each message; load it with few entries, or this is slow.
class DnsComparison {
 public:
  explicit DnsComparison(DnsKernel& kernel) : kernel_(kernel) {}

  // Names that may learn private addresses are those with is_private set.
  void set_policy(std::vector<enforce::NamePattern> patterns);

  // Shows a question to both. Empty, or what they disagree about. What may be asked is outstanding
  // from then on, for every answer.
  std::string ask(std::span<const std::uint8_t> message);

  // Shows an answer to what was asked last: same verdict, same records believed, and in the map
  // exactly the believed addresses that are not guarded, each for the question's names and until
  // its end. Empty, or what they disagree about.
  std::string answer(std::span<const std::uint8_t> message);

  // Of the last message.
  [[nodiscard]] DnsVerdict verdict() const { return verdict_; }
  [[nodiscard]] std::size_t learned() const { return taken_.size(); }
  [[nodiscard]] std::uint32_t outcome() const { return kernel_.io().outcome; }
  [[nodiscard]] bool asking() const { return !ids_.empty(); }

 private:
  DnsKernel& kernel_;
  std::vector<DnsPattern> patterns_;
  std::map<std::uint32_t, bool> private_;
  DnsAsked asked_;
  std::vector<std::uint32_t> ids_;
  DnsVerdict verdict_ = DnsVerdict::Short;
  std::vector<std::pair<std::array<std::uint8_t, 16>, egressd_learned>> taken_;
};

std::string hex_of(std::span<const std::uint8_t> message);

}  // namespace egressd::test
