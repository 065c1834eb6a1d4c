#include "enforce/bpf_backend.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <egressd_bpf.skel.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <numeric>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/unique_fd.h"
#include "enforce/cgroup.h"
#include "enforce/links.h"
#include "enforce/live_sockets.h"
#include "enforce/name_table.h"
#include "enforce/tally.h"

namespace egressd::enforce {
namespace {

namespace fs = std::filesystem;

static_assert(std::has_unique_object_representations_v<egressd_lpm4_key>);
static_assert(std::has_unique_object_representations_v<egressd_lpm6_key>);
static_assert(std::has_unique_object_representations_v<egressd_learned>);
static_assert(std::has_unique_object_representations_v<egressd_event>);

std::string version_dir(const std::string& bpffs_dir) {
  return bpffs_dir + "/v" + std::to_string(EGRESSD_ABI_VERSION);
}

egressd_addr to_key(const net::IpAddress& address) {
  egressd_addr key{};
  std::ranges::copy(address.bytes(), key.addr);
  return key;
}

net::IpAddress to_address(const egressd_addr& key) {
  net::IpAddress::Bytes bytes{};
  std::copy(std::begin(key.addr), std::end(key.addr), bytes.begin());
  return net::IpAddress(bytes);
}

// libbpf speaks through one global callback; what it says of a failing call belongs in the error
// of that call, nowhere else.
class LibbpfLog {
 public:
  LibbpfLog() : previous_(::libbpf_set_print(&LibbpfLog::print)) { text().clear(); }
  ~LibbpfLog() { ::libbpf_set_print(previous_); }
  LibbpfLog(const LibbpfLog&) = delete;
  LibbpfLog& operator=(const LibbpfLog&) = delete;

  // Error for errno plus the last lines libbpf (and the verifier behind it) printed.
  [[nodiscard]] Error error(const std::string& what, int err) const {
    return error(Error::from_errno(what, err));
  }
  [[nodiscard]] Error error(Error e) const {
    if (!text().empty()) e.message += "\n" + text();
    return e;
  }

 private:
  static std::string& text() {
    static std::string buffer;
    return buffer;
  }
  __attribute__((format(printf, 2, 0))) static int print(libbpf_print_level level,
                                                         const char* format, va_list args) {
    if (level == LIBBPF_DEBUG) return 0;
    constexpr std::size_t kKeep = 4096;
    char line[2048];
    const int n = std::vsnprintf(line, sizeof(line), format, args);
    if (n > 0)
      text().append(line, std::min<std::size_t>(static_cast<std::size_t>(n), sizeof(line) - 1));
    if (text().size() > kKeep) text().erase(0, text().size() - kKeep);
    return n;
  }

  libbpf_print_fn_t previous_;
};

// Fills a freshly made map in a few system calls.
template <typename Key, typename Value>
Result<void> fill(int fd, const std::vector<Key>& keys, const std::vector<Value>& values,
                  const char* name) {
  constexpr std::size_t kChunk = 65536;
  for (std::size_t at = 0; at < keys.size(); at += kChunk) {
    auto count = static_cast<__u32>(std::min(kChunk, keys.size() - at));
    LIBBPF_OPTS(bpf_map_batch_opts, options);
    const __u32 wanted = count;
    if (::bpf_map_update_batch(fd, &keys[at], &values[at], &count, &options) != 0 ||
        count != wanted)
      return std::unexpected(Error::from_errno(std::string("fill map ") + name));
  }
  return {};
}

// Stub resolvers wait 5 s per server and try twice (resolv.conf(5)); later answers find nobody.
constexpr __u32 kAnswerWithinSeconds = 30;
// The program the agent itself runs; everything else in the object is attached.
constexpr const char* kGrantProgram = "egressd_grant";
constexpr std::size_t kGrantBatch = 64;
constexpr __u32 kLoopbackIfindex = 1;  // in every network namespace

// Of the agent's network namespace; 0 where the kernel cannot tell (before 5.14).
std::uint64_t own_netns_cookie() {
  const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  std::uint64_t cookie = 0;
  socklen_t length = sizeof(cookie);
  if (!socket || ::getsockopt(socket.get(), SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &length) != 0)
    return 0;
  return cookie;
}

// After each update the kernel waits until no program uses the old map any more
// (maybe_wait_bpf_programs(), kernel/bpf/syscall.c), some 10 ms. All at once, they wait for the
// same.
Result<void> put_into(__u32 slot, std::span<const std::pair<bpf_map*, int>> outers) {
  std::vector<int> errors(outers.size());
  {
    std::vector<std::jthread> calls;
    for (std::size_t i = 0; i < outers.size(); ++i) {
      const auto call = [&outers, &errors, slot, i] {
        const auto& [outer, inner] = outers[i];
        if (::bpf_map_update_elem(::bpf_map__fd(outer), &slot, &inner, BPF_ANY) != 0)
          errors[i] = errno;
      };
      try {
        calls.emplace_back(call);
      } catch (const std::system_error&) {
        call();  // no memory or number for a thread: it takes longer
      }
    }
  }
  for (std::size_t i = 0; i < outers.size(); ++i)
    if (errors[i] != 0)
      return std::unexpected(Error::from_errno(
          std::string("put a new map into ") + ::bpf_map__name(outers[i].first), errors[i]));
  return {};
}

Result<UniqueFd> make_nodes(const NameTable& table) {
  std::vector<egressd_dns_node_key> keys;
  std::vector<egressd_dns_node> values;
  for (const NameTable::Node& node : table.nodes) {
    keys.push_back(node.key);
    values.push_back(node.node);
  }
  LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_NO_PREALLOC);
  UniqueFd fd(
      ::bpf_map_create(BPF_MAP_TYPE_HASH, "egressd_dnodes", sizeof(keys[0]), sizeof(values[0]),
                       static_cast<__u32>(std::max<std::size_t>(1, keys.size())), &options));
  if (!fd) return std::unexpected(Error::from_errno("create map egressd_dnodes"));
  if (auto r = fill(fd.get(), keys, values, "egressd_dnodes"); !r)
    return std::unexpected(r.error());
  return fd;
}

class BpfBackend final : public Backend {
 public:
  explicit BpfBackend(BpfOptions options) : options_(std::move(options)) {}
  ~BpfBackend() override { egressd_bpf::destroy(skeleton_); }
  BpfBackend(const BpfBackend&) = delete;
  BpfBackend& operator=(const BpfBackend&) = delete;

  Result<void> open();

  Result<void> apply(const RuleSet& rules) override;
  Result<void> attach() override;
  Result<std::vector<std::string>> detach() override;
  void discard_unused() override;
  Result<std::uint32_t> generation() override;
  Result<std::uint32_t> highest_name_id() override;
  [[nodiscard]] std::string instance() const override { return instance_; }
  Result<void> learn(std::span<const LearnedAddress> addresses) override;
  Result<std::vector<LearnedAddress>> learned() override;
  Result<std::size_t> count_learned() override;
  Result<std::size_t> expire(BootTime now) override;
  Result<std::vector<LearnedAddress>> next_live(BootTime until) override;
  Result<void> forget_learned() override;
  Result<void> set_local_addresses(std::span<const net::IpAddress> addresses) override;
  Result<void> let_answer(std::uint64_t cookie, const net::IpAddress& address,
                          std::uint16_t port) override;
  Result<void> drain_tally(const std::function<void(const egressd_tally&)>& visit) override {
    return tally_->drain(visit);
  }
  Result<void> drain_lost(
      const std::function<void(std::uint32_t reason, std::uint64_t count)>& visit) override;
  Result<Opening> opening() override;
  Result<Counters> counters() override;
  std::vector<MapFill> map_fills() override;
  std::vector<LayerStatus> layers() override;
  [[nodiscard]] int events_fd() const override {
    return ::bpf_map__fd(skeleton_->maps.egressd_events);
  }
  [[nodiscard]] int dns_events_fd() const override {
    return ::bpf_map__fd(skeleton_->maps.egressd_devents);
  }

 private:
  struct InnerMap {
    UniqueFd fd;
    __u32 count = 0;
  };

  void inherit_learned();
  Result<__u32> active_slot();
  Result<InnerMap> make_hosts(const RuleSet& rules, const std::vector<egressd_list>& lists);
  template <typename Key>
  Result<InnerMap> make_lpm(const RuleSet& rules, const std::vector<egressd_list>& lists, bool v4,
                            const char* name);
  Result<void> set_resolvers(const RuleSet& rules, __u32 slot);
  // The links on which a resolver's answers are believed.
  [[nodiscard]] __u32 links_of(const net::IpAddress& resolver) const;
  Result<NameKey> name_key(__u32 active);
  Result<std::uint64_t> run_grants(std::span<const egressd_grant_request> requests);
  template <typename Visit>
  Result<void> for_each_learned(Visit visit);

  [[nodiscard]] std::string link_path(const std::string& program) const {
    return version_dir(options_.bpffs_dir) + "/links/" + program;
  }

  BpfOptions options_;
  egressd_bpf* skeleton_ = nullptr;
  Result<std::unique_ptr<LiveSockets>> live_;
  std::optional<Tally> tally_;
  UniqueFd cgroup_;
  std::uint64_t cgroup_id_ = 0;
  std::string instance_;
  std::set<net::IpAddress> local_;
};

// What an agent with another ABI has learned: without it, connections under wildcards would end
// with the change. All of it or nothing, and only what has the form of ours.
void BpfBackend::inherit_learned() {
  const std::string own = version_dir(options_.bpffs_dir);
  std::vector<std::pair<UniqueFd, std::string>> found;
  for (const bpf_map* map : {skeleton_->maps.egressd_learned, skeleton_->maps.egressd_dplaces,
                             skeleton_->maps.egressd_dhand, skeleton_->maps.egressd_dusage}) {
    const std::string name = ::bpf_map__name(map);
    const std::string path = own + "/maps/" + name;
    if (UniqueFd pinned(::bpf_obj_get(path.c_str())); pinned) return;
    for (UniqueFd& fd : maps_of_other_versions(options_.bpffs_dir, own, name)) {
      bpf_map_info info{};
      __u32 length = sizeof(info);
      if (::bpf_obj_get_info_by_fd(fd.get(), &info, &length) != 0 ||
          info.type != static_cast<__u32>(::bpf_map__type(map)) ||
          info.key_size != ::bpf_map__key_size(map) ||
          info.value_size != ::bpf_map__value_size(map) ||
          info.map_flags != ::bpf_map__map_flags(map))
        return;
      found.emplace_back(std::move(fd), path);
      break;
    }
  }
  if (found.size() != 4) return;
  for (const auto& [fd, path] : found) {
    if (::bpf_obj_pin(fd.get(), path.c_str()) == 0) continue;
    for (const auto& [other, pinned] : found) ::unlink(pinned.c_str());
    return;
  }
}

Result<void> BpfBackend::open() {
  cgroup_ = UniqueFd(::open(options_.cgroup_path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!cgroup_) return std::unexpected(Error::from_errno("open cgroup " + options_.cgroup_path));
  auto id = cgroup_id(options_.cgroup_path);
  if (!id) return std::unexpected(id.error());
  cgroup_id_ = *id;

  if (auto r = ensure_bpffs(options_.bpffs_dir); !r) return r;
  const std::string base = version_dir(options_.bpffs_dir);
  for (const char* sub : {"/maps", "/links"}) {
    std::error_code ec;
    fs::create_directories(base + sub, ec);
    if (ec) return std::unexpected(Error{ec.value(), "create " + base + sub + ": " + ec.message()});
  }

  const LibbpfLog log;
  ::libbpf_set_strict_mode(LIBBPF_STRICT_ALL);
  skeleton_ = egressd_bpf::open();
  if (skeleton_ == nullptr) return std::unexpected(log.error("open the kernel programs", errno));
  ::bpf_map__set_max_entries(skeleton_->maps.egressd_learned, options_.max_learned);
  // Fewer places than elements: one that lost its place leaves room for others.
  ::bpf_map__set_max_entries(skeleton_->maps.egressd_dplaces,
                             options_.max_learned - options_.max_learned / 16);

  inherit_learned();

  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, skeleton_->obj) {
    if (::bpf_map__is_internal(map)) continue;  // constants, part of the programs
    const std::string path = base + "/maps/" + ::bpf_map__name(map);
    // A pinned map keeps its size: what was learned is worth more than a new limit.
    if (UniqueFd pinned(::bpf_obj_get(path.c_str())); pinned) {
      bpf_map_info info{};
      __u32 length = sizeof(info);
      if (::bpf_obj_get_info_by_fd(pinned.get(), &info, &length) == 0)
        ::bpf_map__set_max_entries(map, info.max_entries);
    }
    if (const int err = ::bpf_map__set_pin_path(map, path.c_str()); err != 0)
      return std::unexpected(log.error("pin map at " + path, -err));
  }
  if (const int err = egressd_bpf::load(skeleton_); err != 0)
    return std::unexpected(log.error("load the kernel programs", -err));

  live_ = LiveSockets::open([this](const std::string& name) {
    return ::bpf_object__find_map_fd_by_name(skeleton_->obj, name.c_str());
  });
  if (!live_) live_ = std::unexpected(log.error(live_.error()));

  auto tally = Tally::open(::bpf_map__fd(skeleton_->maps.egressd_tally),
                           ::bpf_map__fd(skeleton_->maps.egressd_tally0),
                           ::bpf_map__fd(skeleton_->maps.egressd_tally1));
  if (!tally) return std::unexpected(std::move(tally.error()));
  tally_ = *tally;

  bpf_map_info info{};
  __u32 length = sizeof(info);
  if (::bpf_obj_get_info_by_fd(::bpf_map__fd(skeleton_->maps.egressd_learned), &info, &length) != 0)
    return std::unexpected(Error::from_errno("read map info"));
  instance_ = std::to_string(info.id);  // map ids are never reused before a reboot

  // Loopback answers count in this agent's own network namespace only: local stubs of the host.
  struct stat netns{};
  if (::stat("/proc/self/ns/net", &netns) != 0)
    return std::unexpected(Error::from_errno("/proc/self/ns/net"));
  const egressd_dns_link loopback{.netns = static_cast<__u32>(netns.st_ino),
                                  .ifindex = kLoopbackIfindex};
  const __u32 links = EGRESSD_DNS_LINK_LOOPBACK;
  const int dlinks = ::bpf_map__fd(skeleton_->maps.egressd_dlinks);
  // Added before the others go: answers that come meanwhile are learned from.
  if (::bpf_map_update_elem(dlinks, &loopback, &links, BPF_ANY) != 0)
    return std::unexpected(Error::from_errno("write map egressd_dlinks"));
  std::vector<egressd_dns_link> others;
  egressd_dns_link link{};
  egressd_dns_link previous{};
  for (bool first = true; ::bpf_map_get_next_key(dlinks, first ? nullptr : &previous, &link) == 0;
       first = false, previous = link) {
    if (link.netns != loopback.netns || link.ifindex != loopback.ifindex) others.push_back(link);
  }
  for (const egressd_dns_link& other : others) ::bpf_map_delete_elem(dlinks, &other);
  return {};
}

Result<__u32> BpfBackend::active_slot() {
  const __u32 zero = 0;
  __u32 slot = 0;
  if (::bpf_map_lookup_elem(::bpf_map__fd(skeleton_->maps.egressd_active), &zero, &slot) != 0)
    return std::unexpected(Error::from_errno("read map egressd_active"));
  return slot % EGRESSD_SLOTS;
}

Result<std::uint32_t> BpfBackend::generation() {
  const auto slot = active_slot();
  if (!slot) return std::unexpected(slot.error());
  egressd_config config{};
  if (::bpf_map_lookup_elem(::bpf_map__fd(skeleton_->maps.egressd_config), &*slot, &config) != 0)
    return std::unexpected(Error::from_errno("read map egressd_config"));
  return config.generation;
}

Result<std::uint32_t> BpfBackend::highest_name_id() {
  std::uint32_t highest = 0;
  for (__u32 slot = 0; slot < EGRESSD_SLOTS; ++slot) {
    egressd_config config{};
    if (::bpf_map_lookup_elem(::bpf_map__fd(skeleton_->maps.egressd_config), &slot, &config) != 0)
      return std::unexpected(Error::from_errno("read map egressd_config"));
    if (config.name_count != 0) highest = std::max(highest, config.name_count - 1);
  }
  auto r = for_each_learned([&](const egressd_addr&, const egressd_learned& value) {
    for (const egressd_grant& grant : value.grants) highest = std::max(highest, grant.name_id);
  });
  if (!r) return std::unexpected(r.error());
  return highest;
}

Result<BpfBackend::InnerMap> BpfBackend::make_hosts(const RuleSet& rules,
                                                    const std::vector<egressd_list>& lists) {
  std::vector<egressd_addr> keys;
  std::vector<egressd_list> values;
  for (const auto& [prefix, list] : rules.prefixes) {
    if (!prefix.is_host()) continue;
    keys.push_back(to_key(prefix.address()));
    values.push_back(lists[list]);
  }
  LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_NO_PREALLOC);
  InnerMap map;
  map.count = static_cast<__u32>(keys.size());
  map.fd = UniqueFd(::bpf_map_create(BPF_MAP_TYPE_HASH, "egressd_hosts", sizeof(egressd_addr),
                                     sizeof(egressd_list), std::max(1u, map.count), &options));
  if (!map.fd) return std::unexpected(Error::from_errno("create map egressd_hosts"));
  if (auto r = fill(map.fd.get(), keys, values, "egressd_hosts"); !r)
    return std::unexpected(r.error());
  return map;
}

template <typename Key>
Result<BpfBackend::InnerMap> BpfBackend::make_lpm(const RuleSet& rules,
                                                  const std::vector<egressd_list>& lists, bool v4,
                                                  const char* name) {
  LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_NO_PREALLOC);
  std::vector<Key> keys;
  std::vector<egressd_list> values;
  for (const auto& [prefix, list] : rules.prefixes) {
    if (prefix.is_host() || prefix.address().is_v4() != v4) continue;
    Key key{};
    key.prefix_len = static_cast<__u32>(prefix.length());
    std::memcpy(key.addr, prefix.address().bytes().data() + (v4 ? 12 : 0), sizeof(key.addr));
    keys.push_back(key);
    values.push_back(lists[list]);
  }
  InnerMap map;
  map.count = static_cast<__u32>(keys.size());
  map.fd = UniqueFd(::bpf_map_create(BPF_MAP_TYPE_LPM_TRIE, name, sizeof(Key), sizeof(egressd_list),
                                     std::max(1u, map.count), &options));
  if (!map.fd) return std::unexpected(Error::from_errno(std::string("create map ") + name));
  if (fill(map.fd.get(), keys, values, name)) return map;
  // LPM tries learned batch updates only in 5.16 or so. What is there already is put there again.
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (::bpf_map_update_elem(map.fd.get(), &keys[i], &values[i], BPF_ANY) != 0)
      return std::unexpected(Error::from_errno(std::string("fill map ") + name));
  }
  return map;
}

Result<NameKey> BpfBackend::name_key(__u32 active) {
  // The same as long as the maps live: outstanding questions and both slots are keyed with it.
  egressd_dns_config config{};
  if (::bpf_map_lookup_elem(::bpf_map__fd(skeleton_->maps.egressd_dconfig), &active, &config) != 0)
    return std::unexpected(Error::from_errno("read map egressd_dconfig"));
  NameKey key{config.key[0], config.key[1]};
  if (key != NameKey{}) return key;
  if (::getrandom(key.data(), sizeof(key), 0) != static_cast<ssize_t>(sizeof(key)))
    return std::unexpected(Error::from_errno("getrandom"));
  return key;
}

__u32 BpfBackend::links_of(const net::IpAddress& resolver) const {
  // A stub on loopback answers over loopback, one on an address of this host also to its pods.
  // Answers of all others come from outside: whoever may send raw packets can forge them over lo.
  constexpr __u32 kOutside = EGRESSD_DNS_LINK_UPLINK | EGRESSD_DNS_LINK_POD;
  if (resolver.is_loopback()) return EGRESSD_DNS_LINK_LOOPBACK;
  return local_.contains(resolver) ? kOutside | EGRESSD_DNS_LINK_LOOPBACK : kOutside;
}

Result<void> BpfBackend::set_resolvers(const RuleSet& rules, __u32 slot) {
  // The bit of this slot is set before the switch and means nothing until then.
  const int fd = ::bpf_map__fd(skeleton_->maps.egressd_dserver);
  const __u32 bit = 1u << slot;
  std::set<net::IpAddress> wanted(rules.dns.resolvers.begin(), rules.dns.resolvers.end());
  std::vector<std::pair<egressd_addr, egressd_dns_server>> present;
  egressd_addr key{};
  egressd_addr previous{};
  for (bool first = true; ::bpf_map_get_next_key(fd, first ? nullptr : &previous, &key) == 0;
       first = false, previous = key) {
    egressd_dns_server server{};
    if (::bpf_map_lookup_elem(fd, &key, &server) == 0) present.emplace_back(key, server);
  }
  for (auto& [address, server] : present) {
    const bool keep = wanted.erase(to_address(address)) != 0;
    server.slots = keep ? server.slots | bit : server.slots & ~bit;
    server.links = links_of(to_address(address));
    const int err = server.slots == 0 ? ::bpf_map_delete_elem(fd, &address)
                                      : ::bpf_map_update_elem(fd, &address, &server, BPF_ANY);
    if (err != 0) return std::unexpected(Error::from_errno("write map egressd_dserver"));
  }
  for (const net::IpAddress& address : wanted) {
    const egressd_addr added = to_key(address);
    const egressd_dns_server server{.links = links_of(address), .slots = bit};
    if (::bpf_map_update_elem(fd, &added, &server, BPF_ANY) != 0)
      return std::unexpected(Error::from_errno("write map egressd_dserver"));
  }
  return {};
}

Result<void> BpfBackend::apply(const RuleSet& rules) {
  const auto active = active_slot();
  if (!active) return std::unexpected(active.error());
  const __u32 slot = (*active + 1) % EGRESSD_SLOTS;

  // Everything is built aside and owned here until the switch; an error leaves the old
  // generation in force.
  std::vector<egressd_rule> entries;
  std::vector<egressd_list> lists;
  for (const RuleList& list : rules.lists) {
    if (list.size() > EGRESSD_MAX_LIST)
      return std::unexpected(
          Error::of("a destination is subject to " + std::to_string(list.size()) +
                    " port ranges of rules; the limit is " + std::to_string(EGRESSD_MAX_LIST)));
    lists.push_back({static_cast<__u32>(entries.size()), static_cast<__u32>(list.size())});
    for (const RuleEntry& entry : list) {
      egressd_rule rule{};
      rule.rule_id = entry.rule_id;
      rule.port_first = entry.ports.first;
      rule.port_last = entry.ports.last;
      if (entry.protocol != net::Protocol::Any) rule.proto = static_cast<__u8>(entry.protocol);
      rule.action = entry.action == Action::Deny ? EGRESSD_ACTION_DENY : EGRESSD_ACTION_ALLOW;
      rule.mode = entry.audit ? EGRESSD_MODE_AUDIT : EGRESSD_MODE_ENFORCE;
      entries.push_back(rule);
    }
  }
  auto hosts = make_hosts(rules, lists);
  if (!hosts) return std::unexpected(hosts.error());
  auto lpm4 = make_lpm<egressd_lpm4_key>(rules, lists, true, "egressd_lpm4");
  if (!lpm4) return std::unexpected(lpm4.error());
  auto lpm6 = make_lpm<egressd_lpm6_key>(rules, lists, false, "egressd_lpm6");
  if (!lpm6) return std::unexpected(lpm6.error());

  const auto make_array = [](const char* name, const auto& values) -> Result<UniqueFd> {
    LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_INNER_MAP);
    const auto count = static_cast<__u32>(values.size());
    UniqueFd fd(::bpf_map_create(BPF_MAP_TYPE_ARRAY, name, sizeof(__u32), sizeof(values[0]),
                                 std::max(1u, count), &options));
    if (!fd) return std::unexpected(Error::from_errno(std::string("create map ") + name));
    std::vector<__u32> keys(count);
    for (__u32 i = 0; i < count; ++i) keys[i] = i;
    if (auto r = fill(fd.get(), keys, values, name); !r) return std::unexpected(r.error());
    return fd;
  };
  auto rule_array = make_array("egressd_rules", entries);
  if (!rule_array) return std::unexpected(rule_array.error());

  std::uint32_t highest = 0;
  for (const auto& name : rules.names) highest = std::max(highest, name.name_id);
  std::vector<egressd_list> by_name(rules.names.empty() ? 0 : highest + 1);
  for (const auto& name : rules.names) by_name[name.name_id] = lists[name.list];
  auto name_array = make_array("egressd_names", by_name);
  if (!name_array) return std::unexpected(name_array.error());

  const auto key = name_key(*active);
  if (!key) return std::unexpected(key.error());
  std::vector<NamePattern> patterns;
  for (const auto& name : rules.names)
    patterns.push_back(
        {name.pattern, name.allows ? name.name_id : EGRESSD_DNS_REFUSED, name.allow_private});
  for (const std::string& domain : rules.dns.ask_only) {
    patterns.push_back({domain, EGRESSD_DNS_ASK_ONLY, false});
    patterns.push_back({"*." + domain, EGRESSD_DNS_ASK_ONLY, false});
  }
  const auto table = build_name_table(patterns, *key);
  if (!table) return std::unexpected(table.error());
  auto nodes = make_nodes(*table);
  if (!nodes) return std::unexpected(nodes.error());
  auto globs = make_array("egressd_dglobs", table->globs);
  if (!globs) return std::unexpected(globs.error());

  const std::pair<bpf_map*, int> outers[] = {
      {skeleton_->maps.egressd_dnodes, nodes->get()},
      {skeleton_->maps.egressd_dglobs, globs->get()},
      {skeleton_->maps.egressd_hosts, hosts->fd.get()},
      {skeleton_->maps.egressd_lpm4, lpm4->fd.get()},
      {skeleton_->maps.egressd_lpm6, lpm6->fd.get()},
      {skeleton_->maps.egressd_rules, rule_array->get()},
      {skeleton_->maps.egressd_names, name_array->get()},
  };
  if (auto r = put_into(slot, outers); !r) return r;
  if (auto r = set_resolvers(rules, slot); !r) return r;

  egressd_dns_config dns{};
  std::ranges::copy(*key, dns.key);
  dns.enabled = 1;
  dns.filter = rules.dns.filter == RuleSet::Dns::Filter::Enforce ? EGRESSD_DNS_FILTER_ENFORCE
               : rules.dns.filter == RuleSet::Dns::Filter::Audit ? EGRESSD_DNS_FILTER_AUDIT
                                                                 : EGRESSD_DNS_FILTER_OFF;
  dns.min_ttl_s = static_cast<__u32>(rules.dns.min_ttl.count());
  dns.max_ttl_s = static_cast<__u32>(rules.dns.max_ttl.count());
  dns.grace_s = static_cast<__u32>(rules.dns.grace.count());
  dns.answer_within_s = kAnswerWithinSeconds;
  // One name holds an eighth of the room at most.
  dns.name_quota =
      std::min(rules.dns.name_quota, ::bpf_map__max_entries(skeleton_->maps.egressd_learned) / 8);
  if (::bpf_map_update_elem(::bpf_map__fd(skeleton_->maps.egressd_dconfig), &slot, &dns, BPF_ANY) !=
      0)
    return std::unexpected(Error::from_errno("write map egressd_dconfig"));

  const std::uint64_t netns_cookie = own_netns_cookie();
  const auto adopt_until = SystemClock().now() + options_.adopt_window;
  egressd_config config{};
  config.generation = rules.generation;
  config.mode = rules.enforce ? EGRESSD_MODE_ENFORCE : EGRESSD_MODE_AUDIT;
  config.host_count = hosts->count;
  config.lpm4_count = lpm4->count;
  config.lpm6_count = lpm6->count;
  config.name_count = static_cast<__u32>(by_name.size());
  config.adopt_until_ns = static_cast<__u64>(adopt_until.count());
  config.local_netns_cookie = netns_cookie;
  config.dns_filter = dns.filter;
  if (egressd_config before{}; ::bpf_map_lookup_elem(::bpf_map__fd(skeleton_->maps.egressd_config),
                                                     &*active, &before) == 0 &&
                               before.generation != 0) {
    config.adopt_until_ns = before.adopt_until_ns;  // counts from when enforcement began
    // Never falls: a socket may hold a number of long ago (highest_name_id()).
    config.name_count = std::max(config.name_count, before.name_count);
  }
  if (::bpf_map_update_elem(::bpf_map__fd(skeleton_->maps.egressd_config), &slot, &config,
                            BPF_ANY) != 0)
    return std::unexpected(Error::from_errno("write map egressd_config"));

  const __u32 zero = 0;
  if (::bpf_map_update_elem(::bpf_map__fd(skeleton_->maps.egressd_active), &zero, &slot, BPF_ANY) !=
      0)
    return std::unexpected(Error::from_errno("switch map egressd_active"));
  return {};
}

Result<void> BpfBackend::attach() {
  LinkTransaction links(cgroup_.get(), cgroup_id_);
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, skeleton_->obj) {
    const std::string name = ::bpf_program__name(program);
    if (name == kGrantProgram) continue;
    if (auto r = links.put(::bpf_program__fd(program), ::bpf_program__expected_attach_type(program),
                           link_path(name));
        !r)
      return std::unexpected(std::move(r.error()).context(name + " on " + options_.cgroup_path));
  }
  if (auto r = links.commit(); !r) return r;
  // What an agent with another ABI left attached goes only now that ours is in place.
  remove_other_versions(options_.bpffs_dir, version_dir(options_.bpffs_dir));
  return {};
}

Result<std::vector<std::string>> BpfBackend::detach() { return detach_pinned(options_.bpffs_dir); }

void BpfBackend::discard_unused() { remove_unused_version(version_dir(options_.bpffs_dir)); }

template <typename Visit>
Result<void> BpfBackend::for_each_learned(Visit visit) {
  const int fd = ::bpf_map__fd(skeleton_->maps.egressd_learned);
  constexpr __u32 kChunk = 4096;
  std::vector<egressd_addr> keys(kChunk);
  std::vector<egressd_learned> values(kChunk);
  __u32 position = 0;
  bool first = true;
  for (bool more = true; more;) {
    __u32 count = kChunk;
    LIBBPF_OPTS(bpf_map_batch_opts, options);
    __u32 next = 0;
    const int err = ::bpf_map_lookup_batch(fd, first ? nullptr : &position, &next, keys.data(),
                                           values.data(), &count, &options);
    if (err != 0 && errno != ENOENT)
      return std::unexpected(Error::from_errno("read map egressd_learned"));
    more = err == 0;
    first = false;
    position = next;
    for (__u32 i = 0; i < count; ++i) visit(keys[i], values[i]);
  }
  return {};
}

// The kernel does the writing, under the same lock as for DNS answers: an update from here would
// undo what another CPU has just learned. Returns how many requests found no room.
Result<std::uint64_t> BpfBackend::run_grants(std::span<const egressd_grant_request> requests) {
  const auto full = [this]() -> std::uint64_t {
    std::uint64_t sum = 0;
    std::vector<std::uint64_t> per_cpu(static_cast<std::size_t>(::libbpf_num_possible_cpus()));
    const __u32 index = EGRESSD_DNS_ADDR_FULL;
    ::bpf_map_lookup_elem(::bpf_map__fd(skeleton_->maps.egressd_dstats), &index, per_cpu.data());
    for (const std::uint64_t n : per_cpu) sum += n;
    return sum;
  };
  const std::uint64_t before = full();
  for (std::size_t at = 0; at < requests.size(); at += kGrantBatch) {
    const auto some = requests.subspan(at, std::min(kGrantBatch, requests.size() - at));
    std::vector<char> data(ETH_HLEN + some.size_bytes());
    std::memcpy(data.data() + ETH_HLEN, some.data(), some.size_bytes());
    LIBBPF_OPTS(bpf_test_run_opts, options);
    options.data_in = data.data();
    options.data_size_in = static_cast<__u32>(data.size());
    options.repeat = 1;
    if (::bpf_prog_test_run_opts(::bpf_program__fd(skeleton_->progs.egressd_grant), &options) != 0)
      return std::unexpected(Error::from_errno("run program egressd_grant"));
    if (options.retval != 1)
      return std::unexpected(Error::of("program egressd_grant refused its input"));
  }
  return full() - before;
}

Result<void> BpfBackend::learn(std::span<const LearnedAddress> addresses) {
  std::vector<egressd_grant_request> requests;
  for (const LearnedAddress& learned : addresses)
    requests.push_back({.addr = to_key(learned.address),
                        .expires_ns = static_cast<__u64>(learned.expires.count()),
                        .name_id = learned.name_id,
                        .op = EGRESSD_GRANT_ADD});
  const auto full = run_grants(requests);
  if (!full) return std::unexpected(full.error());
  if (*full != 0)
    return std::unexpected(Error::of(std::to_string(*full) +
                                     " address(es) not learned: map egressd_learned is full; raise "
                                     "--max-learned"));
  return {};
}

Result<std::vector<LearnedAddress>> BpfBackend::learned() {
  std::vector<LearnedAddress> all;
  auto r = for_each_learned([&](const egressd_addr& key, const egressd_learned& value) {
    for (const egressd_grant& grant : value.grants) {
      if (grant.name_id != 0)
        all.push_back({to_address(key), grant.name_id,
                       BootTime(static_cast<std::int64_t>(grant.expires_ns))});
    }
  });
  if (!r) return std::unexpected(r.error());
  return all;
}

Result<std::size_t> BpfBackend::count_learned() {
  std::size_t count = 0;
  auto r = for_each_learned([&](const egressd_addr&, const egressd_learned& value) {
    for (const egressd_grant& grant : value.grants) count += grant.name_id != 0;
  });
  if (!r) return std::unexpected(r.error());
  return count;
}

Result<std::size_t> BpfBackend::expire(BootTime now) {
  // Before the boot nothing can have ended; as an unsigned number it would be the far future.
  if (now <= BootTime{0}) return 0;
  const auto limit = static_cast<__u64>(now.count());
  std::vector<egressd_grant_request> requests;
  std::size_t freed = 0;
  auto r = for_each_learned([&](const egressd_addr& key, const egressd_learned& value) {
    const auto ended = std::ranges::count_if(value.grants, [&](const egressd_grant& g) {
      return g.name_id != 0 && g.expires_ns < limit;
    });
    if (ended == 0) return;
    freed += static_cast<std::size_t>(ended);
    requests.push_back({.addr = key, .expires_ns = limit, .name_id = 0, .op = EGRESSD_GRANT_SWEEP});
  });
  if (!r) return std::unexpected(r.error());
  if (auto ran = run_grants(requests); !ran) return std::unexpected(ran.error());
  return freed;
}

Result<std::vector<LearnedAddress>> BpfBackend::next_live(BootTime until) {
  if (!live_) return std::unexpected(live_.error());
  std::vector<egressd_live> entries;
  if (auto r = (*live_)->next(until, entries); !r) return std::unexpected(std::move(r.error()));
  // Many sockets, few destinations.
  std::map<std::pair<net::IpAddress, std::uint32_t>, BootTime> grants;
  for (const egressd_live& entry : entries)
    grants.insert_or_assign({to_address(entry.addr), entry.name_id},
                            BootTime(static_cast<std::int64_t>(entry.expires_ns)));
  std::vector<LearnedAddress> distinct;
  for (const auto& [grant, expires] : grants)
    distinct.push_back({grant.first, grant.second, expires});
  return distinct;
}

Result<void> BpfBackend::forget_learned() {
  std::vector<egressd_addr> keys;
  auto r = for_each_learned(
      [&](const egressd_addr& key, const egressd_learned&) { keys.push_back(key); });
  if (!r) return r;
  const int fd = ::bpf_map__fd(skeleton_->maps.egressd_learned);
  for (const egressd_addr& key : keys) ::bpf_map_delete_elem(fd, &key);
  // Places keep their addresses: none of them has an element any more, so they count as free.
  const __u32 zero = 0;
  const std::vector<std::byte> hand(::bpf_map__value_size(skeleton_->maps.egressd_dhand));
  ::bpf_map_update_elem(::bpf_map__fd(skeleton_->maps.egressd_dhand), &zero, hand.data(), BPF_ANY);
  const int usage = ::bpf_map__fd(skeleton_->maps.egressd_dusage);
  for (__u32 id = 0; ::bpf_map_get_next_key(usage, nullptr, &id) == 0;)
    ::bpf_map_delete_elem(usage, &id);
  return {};
}

Result<void> BpfBackend::let_answer(std::uint64_t cookie, const net::IpAddress& address,
                                    std::uint16_t port) {
  const egressd_peer_key key{
      .addr = to_key(address), .cookie = cookie, .port = htons(port), .pad = {}};
  const bpf_map* peers = skeleton_->maps.egressd_peers;
  const auto now = static_cast<__u64>(SystemClock().now().count());
  if (::bpf_map_update_elem(::bpf_map__fd(peers), &key, &now, BPF_ANY) != 0)
    return std::unexpected(Error::from_errno("write map egressd_peers"));
  return {};
}

Result<void> BpfBackend::set_local_addresses(std::span<const net::IpAddress> addresses) {
  const int fd = ::bpf_map__fd(skeleton_->maps.egressd_local);
  std::set<net::IpAddress> wanted(addresses.begin(), addresses.end());
  local_ = wanted;
  std::vector<egressd_addr> gone;
  egressd_addr key{};
  egressd_addr previous{};
  for (bool first = true; ::bpf_map_get_next_key(fd, first ? nullptr : &previous, &key) == 0;
       first = false, previous = key) {
    if (wanted.erase(to_address(key)) == 0) gone.push_back(key);
  }
  for (const egressd_addr& old : gone) ::bpf_map_delete_elem(fd, &old);
  for (const net::IpAddress& address : wanted) {
    const egressd_addr added = to_key(address);
    const __u8 one = 1;
    if (::bpf_map_update_elem(fd, &added, &one, BPF_ANY) != 0)
      return std::unexpected(Error::from_errno("write map egressd_local"));
  }
  const int servers = ::bpf_map__fd(skeleton_->maps.egressd_dserver);
  for (bool first = true; ::bpf_map_get_next_key(servers, first ? nullptr : &previous, &key) == 0;
       first = false, previous = key) {
    egressd_dns_server server{};
    if (::bpf_map_lookup_elem(servers, &key, &server) != 0) continue;
    server.links = links_of(to_address(key));
    if (::bpf_map_update_elem(servers, &key, &server, BPF_EXIST) != 0)
      return std::unexpected(Error::from_errno("write map egressd_dserver"));
  }
  return {};
}

// Sums of a per-CPU array.
Result<void> read_sums(bpf_map* map, std::span<std::uint64_t> into) {
  const int cpus = ::libbpf_num_possible_cpus();
  if (cpus < 0) return std::unexpected(Error::from_errno("count CPUs", -cpus));
  std::vector<std::uint64_t> per_cpu(static_cast<std::size_t>(cpus));
  for (__u32 i = 0; i < into.size(); ++i) {
    if (::bpf_map_lookup_elem(::bpf_map__fd(map), &i, per_cpu.data()) != 0)
      return std::unexpected(Error::from_errno(std::string("read map ") + ::bpf_map__name(map)));
    into[i] = std::accumulate(per_cpu.begin(), per_cpu.end(), std::uint64_t{0});
  }
  return {};
}

Result<void> BpfBackend::drain_lost(
    const std::function<void(std::uint32_t reason, std::uint64_t count)>& visit) {
  std::array<std::uint64_t, EGRESSD_REASON_MAX> lost{};
  if (auto r = read_sums(skeleton_->maps.egressd_lost, lost); !r) return r;
  const int gaps = ::bpf_map__fd(skeleton_->maps.egressd_gaps);
  for (__u32 reason = 0; reason < lost.size(); ++reason) {
    std::uint64_t told = 0;
    if (::bpf_map_lookup_elem(gaps, &reason, &told) != 0)
      return std::unexpected(Error::from_errno("read map egressd_gaps"));
    if (lost[reason] == told) continue;
    visit(reason, lost[reason] - told);
    if (::bpf_map_update_elem(gaps, &reason, &lost[reason], BPF_ANY) != 0)
      return std::unexpected(Error::from_errno("write map egressd_gaps"));
  }
  return {};
}

Result<Opening> BpfBackend::opening() {
  const __u32 zero = 0;
  egressd_open value{};
  if (::bpf_map_lookup_elem(::bpf_map__fd(skeleton_->maps.egressd_open), &zero, &value) != 0)
    return std::unexpected(Error::from_errno("read map egressd_open"));
  return Opening::from(value);
}

Result<Counters> BpfBackend::counters() {
  Counters counters;
  if (auto r = read_sums(skeleton_->maps.egressd_counts, counters.reasons); !r)
    return std::unexpected(r.error());
  if (auto r = read_sums(skeleton_->maps.egressd_stats, counters.stats); !r)
    return std::unexpected(r.error());
  if (auto r = read_sums(skeleton_->maps.egressd_dstats, counters.dns); !r)
    return std::unexpected(r.error());
  return counters;
}

std::vector<MapFill> BpfBackend::map_fills() {
  const auto& maps = skeleton_->maps;
  std::vector<MapFill> all;
  for (const bpf_map* map :
       {maps.egressd_learned, maps.egressd_dusage, maps.egressd_dasked, maps.egressd_dlinks,
        maps.egressd_dserver, maps.egressd_local, maps.egressd_peers}) {
    if (auto fill = read_fill(::bpf_map__fd(map))) all.push_back(std::move(*fill));
  }
  return all;
}

std::vector<LayerStatus> BpfBackend::layers() {
  std::vector<LayerStatus> all;
  const auto there = cgroup_id(options_.cgroup_path);
  const bool removed = there ? *there != cgroup_id_ : there.error().code == ENOENT;
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, skeleton_->obj) {
    LayerStatus layer;
    layer.program = ::bpf_program__name(program);
    if (layer.program == kGrantProgram) continue;
    if (removed) {
      layer.cgroup_removed = true;
      layer.detail = options_.cgroup_path + " was removed";
      all.push_back(std::move(layer));
      continue;
    }
    bpf_prog_info ours{};
    __u32 length = sizeof(ours);
    ::bpf_obj_get_info_by_fd(::bpf_program__fd(program), &ours, &length);

    // What the kernel says is attached to the cgroup, whoever put it there.
    __u32 ids[64];
    __u32 count = std::size(ids);
    if (::bpf_prog_query(cgroup_.get(), ::bpf_program__expected_attach_type(program), 0, nullptr,
                         ids, &count) != 0) {
      layer.detail = Error::from_errno("query " + options_.cgroup_path).message;
    } else {
      layer.attached = std::find(ids, ids + count, ours.id) != ids + count;
      layer.detail = layer.attached
                         ? "program " + std::to_string(ours.id) + " on " + options_.cgroup_path
                         : "not attached to " + options_.cgroup_path;
      if (layer.attached && count > 1)
        layer.detail += ", beside " + std::to_string(count - 1) + " other program(s)";
    }
    if (layer.attached && ::access(link_path(layer.program).c_str(), F_OK) != 0)
      layer.detail += ", NOT pinned: ends with this process";
    all.push_back(std::move(layer));
  }
  return all;
}

}  // namespace

std::string bpf_maps_dir(const std::string& bpffs_dir) { return version_dir(bpffs_dir) + "/maps"; }

Result<std::unique_ptr<Backend>> open_bpf_backend(BpfOptions options) {
  auto backend = std::make_unique<BpfBackend>(std::move(options));
  if (auto r = backend->open(); !r) {
    backend->discard_unused();
    return std::unexpected(std::move(r.error()));
  }
  return backend;
}

}  // namespace egressd::enforce
