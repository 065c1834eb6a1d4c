#include "enforce/backstop.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <egressd_backstop.skel.h>
#include <linux/if_ether.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/unique_fd.h"
#include "bpf/egressd_abi.h"
#include "enforce/cgroup.h"
#include "enforce/nft_rules.h"
#include "enforce/nft_sockets.h"
#include "enforce/nft_table.h"
#include "enforce/pins.h"
#include "enforce/uplinks.h"

namespace egressd::enforce {
namespace {

constexpr const char* kJudge = "judge";
constexpr const char* kAnswer = "answer";
constexpr const char* kKernel = "kernel";
constexpr const char* kRefuse = "refuse";
constexpr const char* kSent = "sent";
constexpr const char* kPassing = "passing";
constexpr std::array<const char*, 8> kChains{kRefuse, kPassing, kSent,          kAnswer,
                                             kKernel, kJudge,   frame::kOutput, frame::kForward};

// One element: the id of the map of learned addresses that the table's program reads. Also tells
// this table from one that decides by itself.
nft::Set marker() { return {.name = "judged_by", .key = nft::Key::Mark}; }
nft::Set ported() { return {.name = "ported", .key = nft::Key::Protocol}; }

// A few hundred µs at most.
constexpr __u32 kCompared = 256;
// The kernel and this process do not read the clock at the same time.
constexpr BootTime kAboutToEnd = std::chrono::seconds(1);

Error explained(Error error) {
  if (error.code == EPERM)
    error.message +=
        " (CAP_NET_ADMIN is missing, another program owns table inet egressd, or this is an AKS "
        "node that routes by eBPF: it lets nobody add rules of nftables)";
  else if (error.code == EOPNOTSUPP || error.code == ENOENT)
    error.message += " (this kernel lacks a part of nftables, or its match xt_bpf)";
  return error;
}

// Whether the table is that of a Backstop.
Result<bool> is_backstop(nft::Connection& connection) {
  const auto sets = connection.sets();
  if (!sets) return std::unexpected(sets.error());
  return std::ranges::find(*sets, marker().name) != sets->end();
}

// Id of the map the table judges by; 0: none.
Result<std::uint32_t> marked(nft::Connection& connection) {
  std::uint32_t id = 0;
  auto r = connection.each_element(marker().name, [&](const nft::Connection::Listed& listed) {
    if (listed.key.size() == sizeof(id)) std::memcpy(&id, listed.key.data(), sizeof(id));
  });
  if (!r) return std::unexpected(std::move(r.error()));
  return id;
}

std::uint32_t map_id(int fd) {
  bpf_map_info info{};
  __u32 length = sizeof(info);
  return ::bpf_obj_get_info_by_fd(fd, &info, &length) == 0 ? info.id : 0;
}

}  // namespace

Backstop::~Backstop() { egressd_backstop::destroy(skeleton_); }

Result<std::unique_ptr<Backstop>> Backstop::open(BackstopOptions options) {
  std::unique_ptr<Backstop> backstop(new Backstop(std::move(options)));
  auto scope = frame::scope_of(backstop->options_.cgroup_path);
  if (!scope) return std::unexpected(std::move(scope.error()));
  backstop->scope_ = *scope;
  if (scope->whole_host) {
    const auto id = cgroup_id(backstop->options_.cgroup_path);
    if (!id) return std::unexpected(id.error());
    backstop->scope_.cgroup_id = *id;
  }
  auto connection = nft::Connection::open();
  if (!connection) return std::unexpected(std::move(connection.error()));
  backstop->connection_ = std::move(*connection);
  // Now: an agent under way may not open sockets.
  auto sockets = nft::Sockets::open();
  if (!sockets) return std::unexpected(std::move(sockets.error()));
  backstop->sockets_ = std::move(*sockets);
  if (auto handle = backstop->connection_->table_handle(); !handle)
    return std::unexpected(explained(std::move(handle.error())));
  if (auto r = backstop->load(); !r) return std::unexpected(std::move(r.error()));
  return backstop;
}

Result<void> Backstop::load() {
  // What libbpf has to say of a kernel that cannot is long, and the answer is short.
  const auto print = ::libbpf_set_print(nullptr);
  const auto r = [&]() -> Result<void> {
    skeleton_ = egressd_backstop::open();
    if (skeleton_ == nullptr)
      return std::unexpected(Error::from_errno("open program egressd_refuses"));
    bpf_map* map = nullptr;
    bpf_object__for_each_map(map, skeleton_->obj) {
      if (::bpf_map__is_internal(map) || map == skeleton_->maps.egressd_behind) continue;
      const std::string path = options_.maps_dir + "/" + ::bpf_map__name(map);
      const UniqueFd pinned(::bpf_obj_get(path.c_str()));
      if (!pinned) return std::unexpected(Error::from_errno("open " + path));
      if (const int err = ::bpf_map__reuse_fd(map, pinned.get()); err != 0)
        return std::unexpected(Error::from_errno("use " + path, -err));
    }
    const int learned = ::bpf_map__fd(skeleton_->maps.egressd_learned);
    learned_id_ = map_id(learned);
    int err = ::bpf_map__set_inner_map_fd(skeleton_->maps.egressd_behind, learned);
    if (err == 0) err = egressd_backstop::load(skeleton_);
    const __u32 zero = 0;
    if (err == 0 && ::bpf_map_update_elem(::bpf_map__fd(skeleton_->maps.egressd_behind), &zero,
                                          &learned, BPF_ANY) != 0)
      err = -errno;
    if (err == 0) return {};
    Error error = Error::from_errno("load program egressd_refuses", -err);
    error.message += " (rules of nftables can ask eBPF since Linux 6.2)";
    return std::unexpected(std::move(error));
  }();
  ::libbpf_set_print(print);
  return r;
}

Result<void> Backstop::stand_aside() {
  const auto ours = is_backstop(*connection_);
  if (!ours) return std::unexpected(ours.error());
  if (!*ours) return {};
  const auto id = marked(*connection_);
  if (!id) return std::unexpected(id.error());
  if (*id == learned_id_) return {};
  nft::Batch batch;
  batch.flush_chains();
  return connection_->commit(batch);
}

void Backstop::add_locals(nft::Batch& batch) const {
  std::vector<std::pair<net::Prefix, std::uint32_t>> prefixes;
  prefixes.emplace_back(*net::Prefix::parse("127.0.0.0/8"), 0);
  prefixes.emplace_back(*net::Prefix::parse("::1"), 0);
  for (const net::IpAddress& address : locals_)
    prefixes.emplace_back(net::Prefix::host(address), 0);
  for (const bool v4 : {true, false}) {
    const nft::Set set = frame::local(v4);
    batch.flush_set(set);
    add_ranges(batch, set, flatten(prefixes, v4), [](std::uint32_t) { return std::string(); });
  }
}

void Backstop::add_rules(nft::Batch& batch) const {
  using nft::Rule;
  const int refuses = ::bpf_program__fd(skeleton_->progs.egressd_refuses);

  // As in NftRules: what is sent fails at once, what is forwarded is told why.
  batch.add_rule(kRefuse, Rule().reject_tcp_reset());
  batch.add_rule(kRefuse, Rule().from_outside().reject_prohibited());
  batch.add_rule(kRefuse, Rule().drop());

  // The other side began. A packet that opens a connection answers nothing.
  batch.add_rule(kAnswer, Rule().opening().back());
  frame::each_family("ours", [&](bool v4, const std::string& set) {
    batch.add_rule(kAnswer, Rule().source_flow_in(v4, set).back());
  });
  batch.add_rule(kAnswer, Rule().accept());

  // The kernel's own, which has no user: resets, ICMP errors, neighbour discovery.
  batch.add_rule(kKernel, Rule().reset().accept());
  batch.add_rule(kKernel, Rule().protocol_in(ported().name).back());
  batch.add_rule(kKernel, Rule().accept());

  frame::each_family("accepted", [&](bool v4, const std::string& set) {
    batch.add_rule(kJudge, Rule().source_flow_in(v4, set).accept());
  });
  batch.add_rule(kJudge, Rule().program(refuses).go_to(kRefuse));
  batch.add_rule(kJudge, Rule().accept());

  frame::each_family("local", [&](bool v4, const std::string& set) {
    batch.add_rule(
        frame::kOutput,
        Rule().oif_loopback().address_in(v4, true, set).address_in(v4, false, set).accept());
  });
  // Each packet of these meets eBPF right behind this hook, which knows their sockets.
  batch.add_rule(frame::kOutput, Rule().cgroup(scope_.level, scope_.cgroup_id).accept());
  // Has no socket yet that could be asked for its cgroup, and answers somebody.
  batch.add_rule(frame::kOutput, Rule().accepting().accept());
  batch.add_rule(frame::kOutput,
                 Rule().oif_loopback().source_is_local(false).has_user().go_to(kJudge));
  batch.add_rule(frame::kOutput, Rule().reply_direction().source_is_local(true).jump(kAnswer));
  batch.add_rule(frame::kOutput, Rule().has_user().go_to(kJudge));
  batch.add_rule(frame::kOutput, Rule().jump(kKernel));
  batch.add_rule(frame::kOutput, Rule().go_to(kJudge));

  // What is forwarded, for where it was sent: behind this hook it may have another destination.
  // What comes for this host itself is not ours to refuse.
  for (const std::uint32_t type : {RTN_LOCAL, RTN_BROADCAST, RTN_MULTICAST})
    batch.add_rule(kSent, Rule().destination_is(type).accept());
  batch.add_rule(kSent, Rule().jump(kPassing));
  batch.add_rule(kSent, Rule().program(refuses).go_to(kRefuse));

  // Passes at both: answers, and what a pod's kernel has to say.
  batch.add_rule(kPassing, Rule().came_in_by(frame::uplinks().name).accept());
  batch.add_rule(kPassing, Rule().reply_direction().source_is_that_way().jump(kAnswer));
  // A pod's kernel ends what conntrack knows; a reset of nothing is judged as any packet, since by
  // AF_PACKET anybody writes one, with data in it.
  batch.add_rule(kPassing, Rule().established().reset().accept());
  // Its errors about such packets, as when nobody waits for an answer any more.
  for (const net::Protocol protocol : {net::Protocol::Icmp, net::Protocol::Icmpv6})
    batch.add_rule(kPassing, Rule().related().protocol(protocol).accept());

  batch.add_rule(frame::kForward, Rule().jump(kPassing));
  // Judged in front of NAT for where it was sent; here it has another destination.
  batch.add_rule(frame::kForward, Rule().redirected().accept());
  batch.add_rule(frame::kForward, Rule().program(refuses).go_to(kRefuse));
}

Result<void> Backstop::put() {
  using net::Protocol;
  using nft::KeyBytes;
  const auto handle = connection_->table_handle();
  if (!handle) return std::unexpected(handle.error());
  const auto ours = is_backstop(*connection_);
  if (!ours) return std::unexpected(ours.error());
  const bool anew = !*handle || !*ours;

  nft::Batch batch;
  if (*handle && !*ours) batch.delete_table();
  batch.add_table();
  for (const nft::Set& set : {marker(), ported(), frame::uplinks()}) batch.add_set(set);
  for (const bool v4 : {true, false}) {
    for (const nft::Set& set : {frame::local(v4), frame::accepted(v4), frame::ours(v4)})
      batch.add_set(set);
  }
  if (anew) {
    for (const Protocol protocol :
         {Protocol::Tcp, Protocol::Udp, Protocol{33}, Protocol::Sctp, Protocol{136}})
      batch.add_element(ported(), {.key = KeyBytes::of(protocol).bytes()});
    const auto open = sockets_->list();
    if (!open) return std::unexpected(open.error());
    frame::add_old_connections(batch, *open);
  }
  batch.flush_set(marker());
  batch.add_element(marker(), {.key = KeyBytes::mark(learned_id_).bytes()});
  add_locals(batch);
  const auto uplinks = find_uplinks();
  batch.flush_set(frame::uplinks());
  for (const std::string& name : uplinks)
    batch.add_element(frame::uplinks(), {.key = KeyBytes::interface(name).bytes()});

  // What no rule refuses passes: whoever empties the chains ends the backstop, not the traffic.
  using Hook = nft::Chain::Hook;
  for (const char* chain : kChains)
    batch.add_chain({.name = chain,
                     .hook = chain == frame::kOutput    ? Hook::Output
                             : chain == frame::kForward ? Hook::Forward
                             : chain == kSent           ? Hook::BeforeNat
                                                        : Hook::None});
  batch.flush_chains();
  add_rules(batch);
  if (auto r = connection_->commit(batch); !r)
    return std::unexpected(explained(std::move(r.error())));
  uplinks_ = uplinks;
  for (const char* chain : kChains) {
    const auto rules = connection_->count_rules(chain);
    if (!rules) return std::unexpected(rules.error());
    rules_[chain] = *rules;
  }
  put_ = true;
  return {};
}

Result<void> Backstop::whole() {
  for (const auto& [chain, count] : rules_) {
    const auto rules = connection_->count_rules(chain);
    if (!rules) return std::unexpected(rules.error());
    if (*rules == count) continue;
    const std::string name = "chain " + chain + " of table inet egressd ";
    return std::unexpected(Error::of(*rules == 0 ? name + "is empty or gone"
                                                 : name + "has " + std::to_string(*rules) +
                                                       " rules, not the " + std::to_string(count) +
                                                       " that were put there"));
  }
  return {};
}

Result<bool> Backstop::remove() {
  const auto ours = is_backstop(*connection_);
  if (!ours) return std::unexpected(ours.error());
  if (!*ours) return false;
  nft::Batch batch;
  batch.delete_table();
  if (auto r = connection_->commit(batch); !r) return std::unexpected(std::move(r.error()));
  put_ = false;
  return true;
}

Result<bool> Backstop::is_damaged() {
  if (!put_) return false;
  const auto handle = connection_->table_handle();
  if (!handle) return std::unexpected(handle.error());
  if (!*handle) return true;
  // Another's is left alone.
  const auto id = marked(*connection_);
  return id && *id == learned_id_ && !whole();
}

Result<void> Backstop::follow() {
  const auto uplinks = find_uplinks();
  if (!put_ || uplinks == uplinks_) return {};
  nft::Batch batch;
  batch.flush_set(frame::uplinks());
  for (const std::string& name : uplinks)
    batch.add_element(frame::uplinks(), {.key = nft::KeyBytes::interface(name).bytes()});
  if (auto r = connection_->commit(batch); !r) {
    put_ = false;
    return r;
  }
  uplinks_ = uplinks;
  return {};
}

Result<void> Backstop::set_local_addresses(std::span<const net::IpAddress> addresses) {
  locals_.assign(addresses.begin(), addresses.end());
  if (!put_) return {};
  nft::Batch batch;
  add_locals(batch);
  auto r = connection_->commit(batch);
  put_ = r.has_value();
  return r;
}

// Empty: the generation; else whether the address has a name now.
Result<std::uint32_t> Backstop::ask(std::span<const std::uint8_t> address) const {
  std::array<std::uint8_t, ETH_HLEN + sizeof(egressd_addr)> data{};
  std::ranges::copy(address, data.begin() + ETH_HLEN);
  LIBBPF_OPTS(bpf_test_run_opts, options);
  options.data_in = data.data();
  options.data_size_in = data.size();
  options.repeat = 1;
  if (::bpf_prog_test_run_opts(::bpf_program__fd(skeleton_->progs.egressd_tells), &options) != 0)
    return std::unexpected(Error::from_errno("run program egressd_tells"));
  return options.retval;
}

Result<std::size_t> Backstop::compare(std::uint32_t generation, BootTime now) {
  const auto id = marked(*connection_);
  if (!id) return std::unexpected(id.error());
  if (*id != learned_id_)
    return std::unexpected(Error::of(
        *id == 0 ? "table inet egressd is gone, or another's"
                 : "table inet egressd judges by maps of another agent (map " +
                       std::to_string(*id) + ", not " + std::to_string(learned_id_) + ")"));
  if (auto r = whole(); !r) return std::unexpected(std::move(r.error()));
  const auto in_force = ask({});
  if (!in_force) return std::unexpected(in_force.error());
  if (*in_force != generation)
    return std::unexpected(Error::of("it judges by generation " + std::to_string(*in_force) +
                                     ", eBPF by " + std::to_string(generation)));

  std::array<egressd_addr, kCompared> keys{};
  std::array<egressd_learned, kCompared> values{};
  __u32 count = kCompared;
  __u32 next = 0;
  LIBBPF_OPTS(bpf_map_batch_opts, options);
  if (::bpf_map_lookup_batch(::bpf_map__fd(skeleton_->maps.egressd_learned), nullptr, &next,
                             keys.data(), values.data(), &count, &options) != 0 &&
      errno != ENOENT)
    return std::unexpected(Error::from_errno("read map egressd_learned"));
  std::size_t compared = 0;
  for (__u32 i = 0; i < count; ++i) {
    const bool granted = std::ranges::any_of(values[i].grants, [&](const egressd_grant& grant) {
      return grant.name_id != 0 &&
             BootTime(static_cast<std::int64_t>(grant.expires_ns)) > now + kAboutToEnd;
    });
    if (!granted) continue;
    const auto known = ask(keys[i].addr);
    if (!known) return std::unexpected(known.error());
    if (*known == 0)
      return std::unexpected(Error::of("it does not know an address that eBPF has learned"));
    ++compared;
  }
  return compared;
}

Result<bool> remove_backstop(const std::string& bpffs_dir) {
  auto connection = nft::Connection::open();
  if (!connection) return false;
  const auto ours = is_backstop(**connection);
  if (!ours || !*ours) return false;
  const auto id = marked(**connection);
  if (!id) return std::unexpected(id.error());
  for (const UniqueFd& map : maps_of_other_versions(bpffs_dir, "", "egressd_learned"))
    if (map_id(map.get()) == *id) return remove_nft_table();
  return false;
}

}  // namespace egressd::enforce
