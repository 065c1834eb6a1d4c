#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "dns/answer.h"
#include "enforce/rule_set.h"
#include "net/ip_address.h"

namespace egressd::daemon {

// Who asked a DNS question, as the kernel noted it; all zero if nobody knows.
struct Asker {
  std::uint32_t pid = 0;  // process (tgid)
  std::uint32_t uid = 0;
  std::uint64_t cgroup_id = 0;
  std::string comm;
};

// What the kernel's grants do not say: which name gave an address, by which CNAMEs, who asked, and
// how the agent came to know. Bounded: beyond kMaxNames a pattern gives up what it heard longest
// ago of the address, beyond kMaxOrigins the pattern with the most the one heard longest ago, so
// that a flood under one wildcard forgets nobody else's; only the description goes, never the
// grant.
class LearnedNames {
 public:
  static constexpr std::size_t kMaxOrigins = 65536;
  // In place of a pattern's number: the name has no rule, its addresses are known and not granted.
  static constexpr std::uint32_t kNoPattern = 0;
  // Of one address under one pattern: a zone that has the same addresses for every name is asked
  // for as many names as somebody likes, and each denial is to be told with them.
  static constexpr std::size_t kMaxNames = 64;
  // Of one address in fqdns().
  static constexpr std::size_t kMaxTold = 16;

  struct Origin {
    std::string fqdn;
    std::vector<std::string> cname_chain;
    dns::Answer::Source source = dns::Answer::Source::Resolver;
    BootTime expires{0};
    Asker asker;
    BootTime heard{0};                     // the latest answer
    std::optional<net::IpAddress> server;  // who gave it, if known
  };

  explicit LearnedNames(std::size_t max_origins = kMaxOrigins) : max_origins_(max_origins) {}

  // A grant's end never moves closer, in the kernel neither. True if a name gave an address it had
  // not given before.
  bool record(const dns::Answer& answer, const std::vector<enforce::LearnedAddress>& grants,
              const Asker& asker = {});
  // Names this address was given for under this pattern; latest answer of each name.
  [[nodiscard]] std::vector<Origin> origins(const net::IpAddress& address,
                                            std::uint32_t name_id) const;
  // True if the names origins() tells account for the whole grant: one of them gave it its end.
  [[nodiscard]] bool explains(const enforce::LearnedAddress& grant) const;
  // Names the address is known by, best guess first: those asked for from the cgroup of this id (0:
  // any), of these the one believed longest; kMaxTold at most.
  [[nodiscard]] std::vector<std::string> fqdns(const net::IpAddress& address,
                                               std::uint64_t cgroup_id = 0) const;
  // By which names `fqdn` came to the address in the latest answer; empty if directly.
  [[nodiscard]] std::vector<std::string> cname_chain(const net::IpAddress& address,
                                                     std::string_view fqdn) const;
  // Every name and address, under the pattern it was last granted for.
  struct Known {
    net::IpAddress address;
    std::uint32_t name_id = 0;
    Origin origin;
  };
  [[nodiscard]] std::vector<Known> all() const;
  // Those of origins() that have not ended; all, if every one has. None where the grant was found
  // in the kernel, left there by an earlier run, or its description had to go.
  [[nodiscard]] std::vector<Origin> standing(const net::IpAddress& address, std::uint32_t name_id,
                                             BootTime now) const;
  // The grant ends at `until` and no sooner, and so do the names it stands by: as if just heard.
  void extend(const net::IpAddress& address, std::uint32_t name_id, BootTime now, BootTime until);
  // Drops what ended before `now`.
  void forget(BootTime now);
  [[nodiscard]] std::size_t size() const { return size_; }

 private:
  struct Entry;
  using ByName = std::map<std::pair<std::uint32_t, std::string>, Entry>;  // name id, fqdn
  using Heard = std::list<std::pair<net::IpAddress, ByName::const_iterator>>;
  struct Entry {
    Origin origin;
    Heard::iterator heard;
  };

  void give_up_one(ByName& names, ByName::const_iterator added);

  std::size_t max_origins_;
  std::unordered_map<net::IpAddress, ByName> addresses_;
  // By name id: every entry, the one heard longest ago first.
  std::unordered_map<std::uint32_t, Heard> heard_;
  std::size_t size_ = 0;
};

}  // namespace egressd::daemon
