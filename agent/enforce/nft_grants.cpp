#include "enforce/nft_grants.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace egressd::enforce {
namespace {

using std::chrono::milliseconds;

// As user data: number and end, in the host's byte order.
constexpr std::size_t kPacked = sizeof(std::uint32_t) + sizeof(std::int64_t);
static_assert(EGRESSD_MAX_GRANTS * kPacked <= nft::kUserDataMax);

// The kernel's clock of an element and ours may differ by that much: whether such an element is
// still there is not known.
constexpr BootTime kUnsure = std::chrono::seconds(2);

// One answer of many addresses fits, however little room there is.
constexpr std::size_t kLeastQuota = 1024;

bool same_key(const nft::KeyBytes& a, const nft::KeyBytes& b) {
  return std::ranges::equal(a.bytes(), b.bytes());
}

}  // namespace

Result<void> NftGrants::load(nft::Connection& connection) {
  clear();
  for (const bool v4 : {true, false}) {
    const nft::Set set = frame::seen(v4, max_learned_);
    auto r = connection.each_element(set.name, [&](const nft::Connection::Listed& listed) {
      Grants grants;
      for (std::size_t at = 0;
           at + kPacked <= listed.userdata.size() && grants.count < grants.grants.size();
           at += kPacked) {
        Grant& grant = grants.grants[grants.count++];
        std::int64_t expires = 0;
        std::memcpy(&grant.name_id, &listed.userdata[at], sizeof(grant.name_id));
        std::memcpy(&expires, &listed.userdata[at + sizeof(grant.name_id)], sizeof(expires));
        grant.expires = BootTime(expires);
      }
      if (listed.key.size() >= nft::key_length(set.key))
        store(nft::address_of(set.key, listed.key), grants);
    });
    if (!r) return r;
  }
  return {};
}

void NftGrants::store(const net::IpAddress& address, const Grants& after) {
  Grants& there = addresses_[address];
  for (const Grant& grant : there.span()) {
    const auto it = by_name_.find(grant.name_id);
    if (it == by_name_.end()) continue;
    it->second.erase({grant.expires, address});
    if (it->second.empty()) by_name_.erase(it);
  }
  there = after;
  for (const Grant& grant : after.span()) by_name_[grant.name_id].emplace(grant.expires, address);
  if (after.count == 0) addresses_.erase(address);
}

// Each element once, with the latest end of the names it is there for.
std::vector<NftGrants::Ending> NftGrants::wanted(const net::IpAddress& address,
                                                 const Grants& grants) const {
  std::vector<Ending> all;
  const bool v4 = address.is_v4();
  const auto put = [&](nft::Set set, const nft::KeyBytes& key, BootTime expires) {
    for (Ending& ending : all) {
      if (ending.set.name == set.name && same_key(ending.key, key)) {
        ending.expires = std::max(ending.expires, expires);
        return;
      }
    }
    all.push_back({std::move(set), key, expires});
  };
  for (const Grant& grant : grants.span()) {
    const auto it = forms_.find(grant.name_id);
    if (it == forms_.end()) continue;  // a pattern of an earlier generation
    const nft::KeyBytes key = nft::KeyBytes::of(address);
    put(frame::known(v4, max_learned_), key, grant.expires);
    for (const auto& [protocol, port] : it->second.flows)
      put(frame::allow(v4, max_learned_), nft::KeyBytes::of(address, protocol, port),
          grant.expires);
    if (it->second.list)
      put(NftRules::listed_set(v4, *it->second.list, max_learned_), key, grant.expires);
  }
  return all;
}

void NftGrants::add_seen(nft::Batch& batch, const net::IpAddress& address,
                         const Grants& grants) const {
  std::array<std::uint8_t, EGRESSD_MAX_GRANTS * kPacked> data{};
  std::size_t length = 0;
  for (const Grant& grant : grants.span()) {
    const std::int64_t expires = grant.expires.count();
    std::memcpy(&data[length], &grant.name_id, sizeof(grant.name_id));
    std::memcpy(&data[length + sizeof(grant.name_id)], &expires, sizeof(expires));
    length += kPacked;
  }
  batch.add_element(frame::seen(address.is_v4(), max_learned_),
                    {.key = nft::KeyBytes::of(address).bytes(), .userdata = {data.data(), length}});
}

void NftGrants::change(nft::Batch& batch, const net::IpAddress& address, const Grants& before,
                       const Grants& after, BootTime now) {
  if (before.count != 0)
    batch.delete_element(frame::seen(address.is_v4(), max_learned_),
                         {.key = nft::KeyBytes::of(address).bytes()});
  if (after.count != 0) add_seen(batch, address, after);

  const auto old = wanted(address, before);
  const auto wanted_now = wanted(address, after);
  // Given up before its end: the kernel would keep it until then.
  for (const Ending& ending : old) {
    if (ending.expires <= now || std::ranges::any_of(wanted_now, [&](const Ending& w) {
          return w.set.name == ending.set.name && same_key(w.key, ending.key);
        }))
      continue;
    batch.make_sure_of_element(ending.set, {.key = ending.key.bytes(), .timeout = milliseconds(1)});
    batch.delete_element(ending.set, {.key = ending.key.bytes()});
  }
  for (const Ending& ending : wanted_now) {
    const auto it = std::ranges::find_if(old, [&](const Ending& o) {
      return o.set.name == ending.set.name && same_key(o.key, ending.key);
    });
    const BootTime had = it == old.end() ? BootTime{0} : it->expires;
    if (ending.expires == had || ending.expires <= now) continue;
    const milliseconds timeout =
        std::max(std::chrono::duration_cast<milliseconds>(ending.expires - now), milliseconds(1));
    const nft::Element element{.key = ending.key.bytes(), .timeout = timeout};
    // The end of an element that is there can be changed since Linux 6.13 only: it is replaced.
    if (had + kUnsure > now) {
      if (had - kUnsure < now) batch.make_sure_of_element(ending.set, element);
      batch.delete_element(ending.set, element);
    }
    batch.add_element(ending.set, element);
  }
}

std::size_t NftGrants::learn(nft::Batch& batch, std::span<const LearnedAddress> addresses,
                             BootTime now) {
  undo_.clear();
  // One address may come several times, with one name each: it is changed once.
  std::unordered_map<net::IpAddress, Grants> changed;
  std::vector<net::IpAddress> order;
  const auto to_change = [&](const net::IpAddress& address) -> Grants& {
    const auto [it, is_new] = changed.try_emplace(address);
    if (is_new) {
      order.push_back(address);
      if (const auto there = addresses_.find(address); there != addresses_.end())
        it->second = there->second;
    }
    return it->second;
  };
  // What names hold with what was done so far, and which of theirs ends next.
  struct Share {
    std::size_t count = 0;
    std::set<std::pair<BootTime, net::IpAddress>>::const_iterator next;
  };
  std::unordered_map<std::uint32_t, Share> shares;
  const std::size_t quota = std::max<std::size_t>(max_learned_ / 8, kLeastQuota);
  const auto make_room = [&](std::uint32_t name_id) {
    const auto& held = by_name_[name_id];
    Share& share = shares.try_emplace(name_id, held.size(), held.begin()).first->second;
    // Two for one where an agent of before let it have more.
    int given_up = 0;
    for (; share.count >= quota && given_up < 2 && share.next != held.end(); ++share.next) {
      const net::IpAddress& address = share.next->second;
      if (changed.contains(address)) continue;  // learned anew just now
      Grants& grants = to_change(address);
      const auto used = std::span(grants.grants).first(grants.count);
      const auto rest = std::ranges::remove(used, name_id, &Grant::name_id);
      grants.count = static_cast<std::uint8_t>(grants.count - rest.size());
      --share.count;
      ++given_up;
    }
    if (share.count >= quota && given_up == 0) return false;
    ++share.count;
    return true;
  };
  std::size_t no_room = 0;
  for (const LearnedAddress& learned : addresses) {
    if (!changed.contains(learned.address) && !addresses_.contains(learned.address) &&
        addresses_.size() + order.size() >= max_learned_) {
      ++no_room;
      continue;
    }
    Grants& grants = to_change(learned.address);
    const auto used = std::span(grants.grants).first(grants.count);
    const auto same = std::ranges::find(used, learned.name_id, &Grant::name_id);
    if (same != used.end()) {
      same->expires = std::max(same->expires, learned.expires);
    } else if (!make_room(learned.name_id)) {
      ++no_room;
    } else if (grants.count < grants.grants.size()) {
      grants.grants[grants.count++] = {learned.name_id, learned.expires};
    } else {
      *std::ranges::min_element(used, {}, &Grant::expires) = {learned.name_id, learned.expires};
    }
  }
  for (const net::IpAddress& address : order) {
    const Grants& after = changed.at(address);
    const auto it = addresses_.find(address);
    const Grants before = it == addresses_.end() ? Grants{} : it->second;
    if (before.count == after.count &&
        std::ranges::equal(before.span(), after.span(), [](const Grant& a, const Grant& b) {
          return a.name_id == b.name_id && a.expires == b.expires;
        }))
      continue;
    undo_.emplace_back(address, before);
    change(batch, address, before, after, now);
    store(address, after);
  }
  return no_room;
}

std::size_t NftGrants::expire(nft::Batch& batch, BootTime limit, BootTime now) {
  undo_.clear();
  std::size_t freed = 0;
  std::vector<std::pair<net::IpAddress, Grants>> left;
  for (const auto& [address, grants] : addresses_) {
    Grants after;
    for (const Grant& grant : grants.span()) {
      if (grant.expires >= limit) after.grants[after.count++] = grant;
    }
    if (after.count == grants.count) continue;
    freed += grants.count - std::size_t{after.count};
    undo_.emplace_back(address, grants);
    change(batch, address, grants, after, now);
    left.emplace_back(address, after);
  }
  for (const auto& [address, after] : left) store(address, after);
  return freed;
}

void NftGrants::refill_seen(nft::Batch& batch) const {
  for (const bool v4 : {true, false}) {
    for (const auto& [address, grants] : addresses_)
      if (address.is_v4() == v4) add_seen(batch, address, grants);
  }
}

void NftGrants::refill(nft::Batch& batch, const std::map<std::uint32_t, NameForm>& forms,
                       BootTime now) {
  forms_ = forms;
  // Set by set: elements of one set that follow each other share messages.
  std::map<std::string, std::pair<nft::Set, std::vector<std::pair<nft::KeyBytes, BootTime>>>> sets;
  for (const auto& [address, grants] : addresses_) {
    for (Ending& ending : wanted(address, grants)) {
      if (ending.expires <= now) continue;
      auto& [set, elements] = sets[ending.set.name];
      set = std::move(ending.set);
      elements.emplace_back(ending.key, ending.expires);
    }
  }
  for (const auto& [name, content] : sets) {
    for (const auto& [key, expires] : content.second)
      batch.add_element(
          content.first,
          {.key = key.bytes(),
           .timeout =
               std::max(std::chrono::duration_cast<milliseconds>(expires - now), milliseconds(1))});
  }
}

void NftGrants::take_back() {
  for (const auto& [address, grants] : undo_) store(address, grants);
  undo_.clear();
}

std::vector<LearnedAddress> NftGrants::all() const {
  std::vector<LearnedAddress> found;
  for (const auto& [address, grants] : addresses_) {
    for (const Grant& grant : grants.span())
      found.push_back({address, grant.name_id, grant.expires});
  }
  return found;
}

std::vector<LearnedAddress> NftGrants::ending(const net::IpAddress& address, net::Protocol protocol,
                                              std::uint16_t port, BootTime until) const {
  std::vector<LearnedAddress> found;
  const auto there = addresses_.find(address);
  if (there == addresses_.end()) return found;
  for (const Grant& grant : there->second.span()) {
    const auto form = forms_.find(grant.name_id);
    if (grant.expires >= until || form == forms_.end()) continue;
    if (form->second.list || std::ranges::find(form->second.flows, std::pair(protocol, port)) !=
                                 form->second.flows.end())
      found.push_back({address, grant.name_id, grant.expires});
  }
  return found;
}

std::size_t NftGrants::count() const {
  std::size_t count = 0;
  for (const auto& [address, grants] : addresses_) count += grants.count;
  return count;
}

}  // namespace egressd::enforce
