#include "daemon/learned_names.h"

#include <algorithm>

namespace egressd::daemon {

void LearnedNames::record(const dns::Answer& answer,
                          const std::vector<enforce::LearnedAddress>& grants) {
  for (const enforce::LearnedAddress& grant : grants)
    addresses_[grant.address][{grant.name_id, answer.fqdn}] = {answer.fqdn, answer.cname_chain,
                                                               answer.source, grant.expires};
}

std::vector<LearnedNames::Origin> LearnedNames::origins(const net::IpAddress& address,
                                                        std::uint32_t name_id) const {
  std::vector<Origin> found;
  const auto it = addresses_.find(address);
  if (it == addresses_.end()) return found;
  for (const auto& [key, origin] : it->second) {
    if (key.first == name_id) found.push_back(origin);
  }
  return found;
}

std::vector<std::string> LearnedNames::fqdns(const net::IpAddress& address) const {
  const auto it = addresses_.find(address);
  if (it == addresses_.end()) return {};
  std::vector<const Origin*> origins;
  for (const auto& [key, origin] : it->second) origins.push_back(&origin);
  std::ranges::stable_sort(origins, std::ranges::greater{},
                           [](const Origin* o) { return o->expires; });
  std::vector<std::string> names;
  for (const Origin* origin : origins) {
    if (std::ranges::find(names, origin->fqdn) == names.end()) names.push_back(origin->fqdn);
  }
  return names;
}

std::vector<LearnedNames::Known> LearnedNames::all() const {
  std::vector<Known> everything;
  for (const auto& [address, names] : addresses_) {
    for (const auto& [key, origin] : names) everything.push_back({address, key.first, origin});
  }
  return everything;
}

void LearnedNames::forget(BootTime now) {
  for (auto it = addresses_.begin(); it != addresses_.end();) {
    std::erase_if(it->second, [&](const auto& entry) { return entry.second.expires < now; });
    it = it->second.empty() ? addresses_.erase(it) : std::next(it);
  }
}

}  // namespace egressd::daemon
