#include "daemon/learned_names.h"

#include <algorithm>

namespace egressd::daemon {

bool LearnedNames::record(const dns::Answer& answer,
                          const std::vector<enforce::LearnedAddress>& grants, const Asker& asker) {
  bool anything_new = false;
  for (const enforce::LearnedAddress& grant : grants) {
    ByName& names = addresses_[grant.address];
    const auto [it, added] = names.try_emplace({grant.name_id, answer.fqdn});
    const BootTime expires = std::max(it->second.origin.expires, grant.expires);
    it->second.origin = {.fqdn = answer.fqdn,
                         .cname_chain = answer.cname_chain,
                         .source = answer.source,
                         .expires = expires,
                         .asker = asker,
                         .heard = answer.heard,
                         .server = answer.server};
    anything_new |= added;
    Heard& heard = heard_[grant.name_id];
    if (!added) {
      heard.splice(heard.end(), heard, it->second.heard);
      continue;
    }
    it->second.heard = heard.insert(heard.end(), {grant.address, it});
    ++size_;
    give_up_one(names, it);
    if (size_ <= max_origins_) continue;
    Heard& most = std::ranges::max_element(heard_, {}, [](const auto& item) {
                    return item.second.size();
                  })->second;
    const auto [address, oldest] = most.front();
    most.pop_front();
    --size_;
    const auto found = addresses_.find(address);
    found->second.erase(oldest);
    if (found->second.empty()) addresses_.erase(found);
  }
  return anything_new;
}

// If the address has too many names under the pattern of the one just added.
void LearnedNames::give_up_one(ByName& names, ByName::const_iterator added) {
  const std::uint32_t name_id = added->first.first;
  std::size_t count = 0;
  auto oldest = names.cend();
  for (auto it = names.lower_bound({name_id, ""}); it != names.cend() && it->first.first == name_id;
       ++it, ++count) {
    if (it != added &&
        (oldest == names.cend() || it->second.origin.heard < oldest->second.origin.heard))
      oldest = it;
  }
  if (count <= kMaxNames) return;
  heard_.at(name_id).erase(oldest->second.heard);
  names.erase(oldest);
  --size_;
}

std::vector<LearnedNames::Origin> LearnedNames::origins(const net::IpAddress& address,
                                                        std::uint32_t name_id) const {
  std::vector<Origin> found;
  const auto it = addresses_.find(address);
  if (it == addresses_.end()) return found;
  for (const auto& [key, entry] : it->second) {
    if (key.first == name_id) found.push_back(entry.origin);
  }
  return found;
}

bool LearnedNames::explains(const enforce::LearnedAddress& grant) const {
  return std::ranges::any_of(origins(grant.address, grant.name_id),
                             [&](const Origin& origin) { return origin.expires >= grant.expires; });
}

std::vector<std::string> LearnedNames::fqdns(const net::IpAddress& address,
                                             std::uint64_t cgroup_id) const {
  const auto it = addresses_.find(address);
  if (it == addresses_.end()) return {};
  std::vector<const Origin*> origins;
  for (const auto& [key, entry] : it->second) origins.push_back(&entry.origin);
  std::ranges::stable_sort(origins, std::ranges::greater{}, [cgroup_id](const Origin* o) {
    return std::pair(cgroup_id != 0 && o->asker.cgroup_id == cgroup_id, o->expires);
  });
  std::vector<std::string> names;
  for (const Origin* origin : origins) {
    if (names.size() == kMaxTold) break;
    if (std::ranges::find(names, origin->fqdn) == names.end()) names.push_back(origin->fqdn);
  }
  return names;
}

std::vector<std::string> LearnedNames::cname_chain(const net::IpAddress& address,
                                                   std::string_view fqdn) const {
  const auto it = addresses_.find(address);
  if (it == addresses_.end()) return {};
  const Origin* latest = nullptr;
  for (const auto& [key, entry] : it->second) {
    if (key.second == fqdn && (latest == nullptr || entry.origin.expires > latest->expires))
      latest = &entry.origin;
  }
  return latest == nullptr ? std::vector<std::string>() : latest->cname_chain;
}

std::vector<LearnedNames::Known> LearnedNames::all() const {
  std::vector<Known> everything;
  for (const auto& [address, names] : addresses_) {
    for (const auto& [key, entry] : names) everything.push_back({address, key.first, entry.origin});
  }
  return everything;
}

std::vector<LearnedNames::Origin> LearnedNames::standing(const net::IpAddress& address,
                                                         std::uint32_t name_id,
                                                         BootTime now) const {
  std::vector<Origin> all = origins(address, name_id);
  const auto ended = [now](const Origin& origin) { return origin.expires <= now; };
  if (!std::ranges::all_of(all, ended)) std::erase_if(all, ended);
  return all;
}

void LearnedNames::extend(const net::IpAddress& address, std::uint32_t name_id, BootTime now,
                          BootTime until) {
  for (const Origin& origin : standing(address, name_id, now)) {
    Entry& entry = addresses_[address].at({name_id, origin.fqdn});
    entry.origin.expires = std::max(entry.origin.expires, until);
    Heard& heard = heard_.at(name_id);
    heard.splice(heard.end(), heard, entry.heard);
  }
}

void LearnedNames::forget(BootTime now) {
  for (auto it = addresses_.begin(); it != addresses_.end();) {
    std::erase_if(it->second, [&](const auto& item) {
      const Entry& entry = item.second;
      if (entry.origin.expires >= now) return false;
      heard_.at(item.first.first).erase(entry.heard);
      --size_;
      return true;
    });
    it = it->second.empty() ? addresses_.erase(it) : std::next(it);
  }
}

}  // namespace egressd::daemon
