#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "dns/answer.h"
#include "enforce/rule_set.h"
#include "net/ip_address.h"

namespace egressd::daemon {

// What the kernel's grants do not say: which name gave an address, by which CNAMEs, and how the
// agent came to know. Bounded by what it is told and forget() takes away.
class LearnedNames {
 public:
  struct Origin {
    std::string fqdn;
    std::vector<std::string> cname_chain;
    dns::Answer::Source source = dns::Answer::Source::Resolver;
    BootTime expires{0};
  };

  void record(const dns::Answer& answer, const std::vector<enforce::LearnedAddress>& grants);
  // Names this address was given for under this pattern; latest answer of each name.
  [[nodiscard]] std::vector<Origin> origins(const net::IpAddress& address,
                                            std::uint32_t name_id) const;
  // Names the address is known by, the one believed longest first.
  [[nodiscard]] std::vector<std::string> fqdns(const net::IpAddress& address) const;
  // Every name and address, under the pattern it was last granted for.
  struct Known {
    net::IpAddress address;
    std::uint32_t name_id = 0;
    Origin origin;
  };
  [[nodiscard]] std::vector<Known> all() const;
  // Drops what ended before `now`.
  void forget(BootTime now);

 private:
  using ByName = std::map<std::pair<std::uint32_t, std::string>, Origin>;  // name id, fqdn
  std::unordered_map<net::IpAddress, ByName> addresses_;
};

}  // namespace egressd::daemon
