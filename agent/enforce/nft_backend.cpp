#include "enforce/nft_backend.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "enforce/cgroup.h"
#include "enforce/nft_events.h"
#include "enforce/nft_frame.h"
#include "enforce/nft_grants.h"
#include "enforce/nft_rules.h"
#include "enforce/nft_sockets.h"
#include "enforce/nft_table.h"
#include "enforce/uplinks.h"
#include "nft/connection.h"
#include "nft/nflog.h"
#include "nft/sockets.h"

namespace egressd::enforce {
namespace {

constexpr const char* kLoopback4 = "127.0.0.0";

std::string boot_id() {
  std::string id;
  std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), id);
  return id;
}

Result<bool> remove_table(nft::Connection& connection) {
  const auto handle = connection.table_handle();
  if (!handle && (handle.error().code == EOPNOTSUPP || handle.error().code == EINVAL)) return false;
  if (!handle) return std::unexpected(handle.error());
  if (!*handle) return false;
  nft::Batch batch;
  batch.delete_table();
  if (auto r = connection.commit(batch); !r) {
    if (r.error().code == ENOENT) return false;
    return std::unexpected(std::move(r.error()));
  }
  return true;
}

class NftBackend final : public Backend {
 public:
  explicit NftBackend(NftOptions options)
      : options_(std::move(options)), grants_(options_.max_learned) {}

  Result<void> open();

  Result<void> apply(const RuleSet& rules) override;
  Result<void> attach() override;
  Result<std::vector<std::string>> detach() override;
  Result<bool> restore(const RuleSet& rules) override;
  void discard_unused() override;
  Result<std::uint32_t> generation() override { return generation_; }
  Result<std::uint32_t> highest_name_id() override { return highest_name_id_; }
  [[nodiscard]] std::string instance() const override { return instance_; }
  Result<void> learn(std::span<const LearnedAddress> addresses) override;
  Result<std::vector<LearnedAddress>> learned() override { return grants_.all(); }
  Result<std::size_t> count_learned() override { return grants_.count(); }
  Result<std::size_t> expire(BootTime now) override;
  Result<std::vector<LearnedAddress>> next_live(BootTime until) override;
  Result<void> forget_learned() override;
  Result<void> set_local_addresses(std::span<const net::IpAddress> addresses) override;
  // Each denial has an event.
  Result<void> drain_tally(const std::function<void(const egressd_tally&)>& /*visit*/) override {
    return {};
  }
  Result<void> drain_lost(
      const std::function<void(std::uint32_t reason, std::uint64_t count)>& visit) override;
  Result<Opening> opening() override { return Opening{}; }
  Result<Counters> counters() override;
  std::vector<MapFill> map_fills() override;
  std::vector<LayerStatus> layers() override;
  [[nodiscard]] int events_fd() const override { return -1; }
  [[nodiscard]] int dns_events_fd() const override { return -1; }
  [[nodiscard]] int denials_fd() const override { return log_->fd(); }
  Result<std::size_t> read_denials(std::size_t max,
                                   const std::function<void(const egressd_event&)>& visit) override;

 private:
  Result<void> read_state();
  Result<void> put(const RuleSet& rules, bool anew);
  [[nodiscard]] bool is_gone();
  Result<void> note_new_table();
  void add_local(nft::Batch& batch) const;
  Result<void> note_old_connections();
  void set_uplinks(nft::Batch& batch, const std::set<std::string>& uplinks) const;
  void flush_learned(nft::Batch& batch, const std::set<std::uint32_t>& listed) const;

  NftOptions options_;
  frame::Scope scope_;
  std::unique_ptr<nft::Connection> connection_;
  std::unique_ptr<nft::Nflog> log_;
  std::unique_ptr<nft::Sockets> sockets_;
  bool walked_ = false;
  NftGrants grants_;
  std::string instance_;
  std::uint32_t generation_ = 0;
  std::uint32_t highest_name_id_ = 0;
  std::optional<std::uint64_t> handle_;  // of our table
  std::size_t put_back_ = 0;             // times that it was gone
  std::size_t put_back_told_ = 0;        // of these, by restore()
  bool made_table_ = false;
  bool applied_ = false;  // by this agent
  bool attached_ = false;
  bool refilled_ = false;  // the sets of learned addresses are by grants_.forms()
  std::set<std::string> chains_;
  std::set<std::uint32_t> listed_;
  std::vector<net::IpAddress> local_;
  std::set<std::string> uplinks_;  // as the kernel has them
  SystemClock clock_;
  // Denials and would-be denials an event was read of, by reason, since open(); likewise those told
  // as lost. What the counters stood at then.
  std::array<std::uint64_t, EGRESSD_REASON_MAX> told_{};
  std::array<std::uint64_t, EGRESSD_REASON_MAX> base_{};
  std::uint64_t events_ = 0;
  std::uint64_t lost_told_ = 0;
};

Error hinted(Error error) {
  if (error.code == EPERM)
    error.message +=
        " (this needs CAP_NET_ADMIN; and where AKS routes by eBPF it lets nobody add rules of "
        "nftables: use --backend bpf)";
  else if (error.code == EOPNOTSUPP || error.code == ENOENT)
    error.message += " (this kernel may lack a part of nftables: use --backend bpf)";
  return error;
}

Result<void> NftBackend::open() {
  auto scope = frame::scope_of(options_.cgroup_path);
  if (!scope) return std::unexpected(std::move(scope.error()));
  scope_ = *scope;
  auto connection = nft::Connection::open();
  if (!connection) return std::unexpected(std::move(connection.error()));
  connection_ = std::move(*connection);
  auto sockets = nft::Sockets::open();
  if (!sockets) return std::unexpected(std::move(sockets.error()));
  sockets_ = std::move(*sockets);
  auto log = nft::Nflog::open(frame::kLogGroup);
  // EPERM if the group is another's.
  if (!log && (log.error().code == EBUSY || log.error().code == EPERM))
    return std::unexpected(Error::of(
        "another agent reads what nftables logs to group " + std::to_string(frame::kLogGroup) +
        " in this network namespace, or CAP_NET_ADMIN is missing: stop it first"));
  if (!log) return std::unexpected(std::move(log.error()));
  log_ = std::move(*log);

  auto handle = connection_->table_handle();
  if (!handle) return std::unexpected(std::move(handle.error()));
  if (!*handle) {
    nft::Batch batch;
    frame::add_table(batch, options_.max_learned);
    if (auto r = connection_->commit(batch); !r) return std::unexpected(hinted(r.error()));
    made_table_ = true;
    handle = connection_->table_handle();
    if (!handle || !*handle)
      return std::unexpected(Error::of("table inet egressd went as soon as it was made"));
  }
  handle_ = *handle;
  instance_ = "nft-" + boot_id() + "-" + std::to_string(**handle);
  return read_state();
}

// What an earlier agent left there.
Result<void> NftBackend::read_state() {
  const auto number = [&](const nft::Set& set, std::uint32_t& into) {
    return connection_->each_element(set.name, [&](const nft::Connection::Listed& listed) {
      if (listed.key.size() == sizeof(into)) std::memcpy(&into, listed.key.data(), sizeof(into));
    });
  };
  if (auto r = number(frame::generation(), generation_); !r) return r;
  if (auto r = number(frame::names(), highest_name_id_); !r) return r;
  auto chains = connection_->chains();
  if (!chains) return std::unexpected(std::move(chains.error()));
  chains_ = {chains->begin(), chains->end()};
  attached_ = chains_.erase(frame::kOutput) != 0;
  chains_.erase(frame::kForward);
  auto sets = connection_->sets();
  if (!sets) return std::unexpected(std::move(sets.error()));
  for (const std::string& name : *sets) {
    if (name.starts_with("listed4_"))
      listed_.insert(static_cast<std::uint32_t>(std::stoul(name.substr(8))));
  }
  if (auto r = grants_.load(*connection_); !r) return r;
  auto now = counters();
  if (!now) return std::unexpected(std::move(now.error()));
  base_ = now->reasons;
  return {};
}

void NftBackend::flush_learned(nft::Batch& batch, const std::set<std::uint32_t>& listed) const {
  for (const bool v4 : {true, false}) {
    batch.flush_set(frame::allow(v4, options_.max_learned));
    batch.flush_set(frame::known(v4, options_.max_learned));
    for (const std::uint32_t list : listed)
      batch.flush_set(NftRules::listed_set(v4, list, options_.max_learned));
  }
}

void NftBackend::set_uplinks(nft::Batch& batch, const std::set<std::string>& uplinks) const {
  batch.flush_set(frame::uplinks());
  for (const std::string& name : uplinks)
    batch.add_element(frame::uplinks(), {.key = nft::KeyBytes::interface(name).bytes()});
}

Result<void> NftBackend::apply(const RuleSet& rules) { return put(rules, applied_ && is_gone()); }

// Another program may have removed the table: `nft flush ruleset`, or a service that begins with
// it. Anew: everything that was there, in one transaction.
Result<void> NftBackend::put(const RuleSet& rules, bool anew) {
  const NftRules next(rules);
  nft::Batch batch;
  if (anew) {
    if (const auto handle = connection_->table_handle(); handle && *handle) batch.delete_table();
    frame::add_table(batch, options_.max_learned);
    add_local(batch);
    grants_.refill_seen(batch);
    if (attached_) frame::add_hooks(batch, scope_);
  } else {
    // No rule refers to anything any more, within this transaction.
    batch.flush_chains();
    for (const bool v4 : {true, false}) {
      batch.flush_set(frame::networks(v4));
      batch.flush_set(frame::resolvers(v4));
    }
    for (const std::string& chain : chains_) {
      if (!next.chains().contains(chain)) batch.delete_chain(chain);
    }
  }
  for (const std::string& chain : next.chains()) {
    if (anew || !chains_.contains(chain)) batch.add_chain({.name = chain});
  }
  // What names come to has changed: all of it anew, in the same transaction.
  const bool refill =
      anew || !refilled_ || next.forms() != grants_.forms() || next.listed() != listed_;
  if (refill) {
    if (!anew) flush_learned(batch, {});
    for (const bool v4 : {true, false}) {
      if (!anew) {
        for (const std::uint32_t list : listed_)
          batch.delete_set(NftRules::listed_set(v4, list, options_.max_learned));
      }
      for (const std::uint32_t list : next.listed())
        batch.add_set(NftRules::listed_set(v4, list, options_.max_learned));
    }
  }
  next.add_to(batch);
  const auto uplinks = find_uplinks();
  set_uplinks(batch, uplinks);
  if (attached_) frame::add_hook_rules(batch, scope_);
  const auto forms_before = grants_.forms();
  if (refill) grants_.refill(batch, next.forms(), clock_.now());

  std::uint32_t highest = highest_name_id_;
  for (const RuleSet::Name& name : rules.names) highest = std::max(highest, name.name_id);
  batch.flush_set(frame::generation());
  batch.flush_set(frame::names());
  batch.add_element(frame::generation(), {.key = nft::KeyBytes::mark(rules.generation).bytes()});
  batch.add_element(frame::names(), {.key = nft::KeyBytes::mark(highest).bytes()});
  if (auto r = connection_->commit(batch); !r) {
    grants_.set_forms(forms_before);
    return std::unexpected(hinted(std::move(r.error())));
  }
  generation_ = rules.generation;
  uplinks_ = uplinks;
  highest_name_id_ = highest;
  chains_ = next.chains();
  if (refill) listed_ = next.listed();
  refilled_ = true;
  applied_ = true;
  return anew ? note_new_table() : Result<void>();
}

// A table that another program made in its place counts as gone.
bool NftBackend::is_gone() {
  const auto handle = connection_->table_handle();
  return handle && *handle != handle_;
}

Result<void> NftBackend::note_new_table() {
  ++put_back_;
  // Its counters begin at zero.
  base_.fill(0);
  told_.fill(0);
  auto handle = connection_->table_handle();
  if (!handle) return std::unexpected(std::move(handle.error()));
  handle_ = *handle;
  // Conntrack may have seen nothing since the old one went.
  return attached_ ? note_old_connections() : Result<void>();
}

// Looked at once in a while: to be told of changes (NFNLGRP_NFTABLES) has the kernel keep a message
// for each element of each transaction until its end, of anyone's, gigabytes for a million.
Result<bool> NftBackend::restore(const RuleSet& rules) {
  if (applied_ && attached_ && is_gone()) {
    if (auto r = put(rules, true); !r) return std::unexpected(hinted(std::move(r.error())));
  }
  return std::exchange(put_back_told_, put_back_) != put_back_;
}

Result<void> NftBackend::attach() {
  nft::Batch batch;
  // Rules of an agent with another scope go, in the same transaction.
  auto chains = connection_->chains();
  if (!chains) return std::unexpected(std::move(chains.error()));
  for (const char* chain : {frame::kOutput, frame::kForward}) {
    if (std::ranges::find(*chains, chain) != chains->end()) batch.flush_chain(chain);
  }
  if (!scope_.whole_host && std::ranges::find(*chains, frame::kForward) != chains->end())
    batch.delete_chain(frame::kForward);
  frame::add_hooks(batch, scope_);
  frame::add_hook_rules(batch, scope_);
  if (auto r = connection_->commit(batch); !r) return std::unexpected(hinted(std::move(r.error())));
  const bool first = !attached_;
  attached_ = true;
  return first ? note_old_connections() : Result<void>();
}

// Conntrack sees connections from now on only (its hooks came with the first rule that asks it) and
// takes who speaks first for the one who began: said here for those that were there before.
Result<void> NftBackend::note_old_connections() {
  const auto open = sockets_->list();
  if (!open) return std::unexpected(open.error());
  nft::Batch batch;
  frame::add_old_connections(batch, *open);
  return connection_->commit(batch);
}

Result<std::vector<std::string>> NftBackend::detach() {
  const auto removed = remove_table(*connection_);
  if (!removed) return std::unexpected(removed.error());
  attached_ = false;
  applied_ = false;
  std::vector<std::string> lines;
  if (*removed) lines.emplace_back("table inet egressd (deleted)");
  return lines;
}

void NftBackend::discard_unused() {
  if (made_table_ && !attached_) (void)remove_table(*connection_);
}

Result<void> NftBackend::learn(std::span<const LearnedAddress> addresses) {
  std::size_t no_room = 0;
  // Once more if an element ended, by the kernel's clock, in the very moment it was replaced.
  for (int tries = 0;; ++tries) {
    nft::Batch batch;
    no_room = grants_.learn(batch, addresses, clock_.now());
    const auto r = connection_->commit(batch);
    // They come back with the rest.
    const bool later = !r && r.error().code == ENOENT && applied_ && attached_ && is_gone();
    if (r || later) {
      grants_.keep();
      break;
    }
    grants_.take_back();
    if (tries == 3 || (r.error().code != ENOENT && r.error().code != EEXIST)) return r;
  }
  if (no_room != 0)
    return std::unexpected(
        Error::of(std::to_string(no_room) +
                  " address(es) not learned: " + std::to_string(options_.max_learned) +
                  " are held already, or the room of their names is taken by others of "
                  "this answer; raise --max-learned"));
  return {};
}

Result<std::size_t> NftBackend::expire(BootTime now) {
  if (now <= BootTime{0}) return 0;
  nft::Batch batch;
  const std::size_t freed = grants_.expire(batch, now, clock_.now());
  // Seen here, by and by; until then what comes in by a new one is judged.
  const auto uplinks = find_uplinks();
  if (uplinks != uplinks_) set_uplinks(batch, uplinks);
  if (auto r = connection_->commit(batch); !r) {
    grants_.take_back();
    return std::unexpected(std::move(r.error()));
  }
  uplinks_ = uplinks;
  grants_.keep();
  return freed;
}

// One look is a whole walk: the next call says that it is over.
Result<std::vector<LearnedAddress>> NftBackend::next_live(BootTime until) {
  std::vector<LearnedAddress> ending;
  if (std::exchange(walked_, !walked_)) return ending;
  const auto open = sockets_->list();
  if (!open) return std::unexpected(open.error());
  const std::set<std::uint16_t> served = frame::served_ports(*open);
  std::set<std::pair<net::IpAddress, std::uint32_t>> told;
  for (const nft::OpenSocket& socket : *open) {
    if (socket.peer_port == 0 || socket.listening) continue;
    if (socket.protocol == net::Protocol::Tcp && served.contains(socket.port)) continue;
    for (const LearnedAddress& grant :
         grants_.ending(socket.peer, socket.protocol, socket.peer_port, until)) {
      if (told.emplace(grant.address, grant.name_id).second) ending.push_back(grant);
    }
  }
  return ending;
}

Result<void> NftBackend::forget_learned() {
  nft::Batch batch;
  flush_learned(batch, listed_);
  for (const bool v4 : {true, false}) batch.flush_set(frame::seen(v4, options_.max_learned));
  if (auto r = connection_->commit(batch); !r) return r;
  grants_.clear();
  return {};
}

Result<void> NftBackend::set_local_addresses(std::span<const net::IpAddress> addresses) {
  local_.assign(addresses.begin(), addresses.end());
  // restore() puts them there.
  if (applied_ && is_gone()) return {};
  nft::Batch batch;
  for (const bool v4 : {true, false}) batch.flush_set(frame::local(v4));
  add_local(batch);
  return connection_->commit(batch);
}

void NftBackend::add_local(nft::Batch& batch) const {
  std::vector<std::pair<net::Prefix, std::uint32_t>> prefixes;
  prefixes.emplace_back(*net::Prefix::parse(std::string(kLoopback4) + "/8"), 0);
  prefixes.emplace_back(*net::Prefix::parse("::1"), 0);
  for (const net::IpAddress& address : local_) prefixes.emplace_back(net::Prefix::host(address), 0);
  for (const bool v4 : {true, false})
    add_ranges(batch, frame::local(v4), flatten(prefixes, v4),
               [](std::uint32_t) { return std::string(); });
}

Result<std::size_t> NftBackend::read_denials(
    std::size_t max, const std::function<void(const egressd_event&)>& visit) {
  const BootTime now = clock_.now();
  return log_->read(max, [&](const nft::Nflog::Packet& packet) {
    const auto event = event_of(packet, now);
    if (!event) return;
    ++events_;
    const std::uint32_t counted =
        event->verdict == EGRESSD_ACTION_DENY ? event->reason : std::uint32_t{EGRESSD_ALLOW_AUDIT};
    if (counted < told_.size()) ++told_[counted];
    visit(*event);
  });
}

// The packets that were lost are numbered; of which reason they were is what the counters have more
// than was read. Told once both agree, that is when nothing is on its way.
Result<void> NftBackend::drain_lost(
    const std::function<void(std::uint32_t reason, std::uint64_t count)>& visit) {
  if (log_->lost() == lost_told_) return {};
  const auto now = counters();
  if (!now) return std::unexpected(now.error());
  std::array<std::uint64_t, EGRESSD_REASON_MAX> missing{};
  std::uint64_t sum = 0;
  for (std::uint32_t reason = 0; reason < missing.size(); ++reason) {
    if (egressd_reason_is_deny(reason) == 0) continue;
    missing[reason] = now->reasons[reason] - base_[reason] - told_[reason];
    sum += missing[reason];
  }
  if (sum > log_->lost() - lost_told_) return {};
  for (std::uint32_t reason = 0; reason < missing.size(); ++reason) {
    if (missing[reason] == 0) continue;
    visit(reason, missing[reason]);
    told_[reason] += missing[reason];
  }
  lost_told_ = log_->lost();
  return {};
}

Result<Counters> NftBackend::counters() {
  const auto values = connection_->counters();
  if (!values) return std::unexpected(values.error());
  Counters counters;
  for (const auto& [reason, name] : frame::counters()) {
    if (const auto it = values->find(name); it != values->end())
      counters.reasons[reason] = it->second.packets;
  }
  counters.stats[EGRESSD_STAT_EVENTS_SENT] = events_;
  counters.stats[EGRESSD_STAT_EVENTS_LOST] = log_ ? log_->lost() : 0;
  return counters;
}

std::vector<MapFill> NftBackend::map_fills() {
  return {{"seen4, seen6", grants_.addresses(), options_.max_learned}};
}

std::vector<LayerStatus> NftBackend::layers() {
  const auto chains = connection_->chains();
  const auto there = [&](const char* chain) {
    return chains && std::ranges::find(*chains, chain) != chains->end();
  };
  std::vector<LayerStatus> all;
  LayerStatus output;
  output.program = "nft output";
  output.attached = there(frame::kOutput);
  if (scope_.whole_host) {
    output.detail = output.attached ? "table inet egressd, whole host" : "no chain output";
  } else {
    const auto id = cgroup_id(options_.cgroup_path);
    output.cgroup_removed = id ? *id != scope_.cgroup_id : id.error().code == ENOENT;
    output.attached = output.attached && !output.cgroup_removed;
    output.detail = output.cgroup_removed ? options_.cgroup_path + " was removed"
                    : output.attached ? "table inet egressd, sockets of " + options_.cgroup_path +
                                            "; not what is forwarded"
                                      : "no chain output in table inet egressd";
  }
  if (put_back_ != 0)
    output.detail += "; another program removed it " + std::to_string(put_back_) +
                     " time(s), put back each time";
  all.push_back(std::move(output));
  if (scope_.whole_host) {
    LayerStatus forward;
    forward.program = "nft forward";
    forward.attached = there(frame::kForward);
    forward.detail = forward.attached
                         ? "table inet egressd; DNS questions are not judged by name there"
                         : "no chain forward in table inet egressd";
    all.push_back(std::move(forward));
  }
  return all;
}

}  // namespace

Result<bool> remove_nft_table() {
  auto connection = nft::Connection::open();
  // A kernel without nftables has no table either.
  if (!connection && connection.error().code == EPROTONOSUPPORT) return false;
  if (!connection) return std::unexpected(std::move(connection.error()));
  return remove_table(**connection);
}

Result<std::unique_ptr<Backend>> open_nft_backend(NftOptions options) {
  auto backend = std::make_unique<NftBackend>(std::move(options));
  if (auto r = backend->open(); !r) {
    backend->discard_unused();
    return std::unexpected(std::move(r.error()));
  }
  return backend;
}

}  // namespace egressd::enforce
