#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "enforce/nft_frame.h"
#include "net/ip_address.h"
#include "nft/connection.h"
#include "nft/sockets.h"

struct egressd_backstop;

namespace egressd::enforce {

struct BackstopOptions {
  std::string cgroup_path;  // judged by eBPF: the table leaves its sockets alone
  std::string maps_dir;     // where the maps of the BPF backend are pinned
};

// `table inet egressd` behind the BPF backend, at output, prerouting and forward, for what its
// hooks do not see. It holds no policy and no addresses of its own: it asks a program that decides
// by the maps of that backend, so that it can never refuse what those have just been taught. It
// needs no agent.
class Backstop {
 public:
  // Nothing is judged yet. An error if this kernel cannot.
  static Result<std::unique_ptr<Backstop>> open(BackstopOptions options);
  ~Backstop();
  Backstop(const Backstop&) = delete;
  Backstop& operator=(const Backstop&) = delete;

  // A table that judges by other maps than ours lets all pass from now on: they may not be taught
  // any more. Before the hooks of the BPF backend change.
  Result<void> stand_aside();
  // Puts the table in place, in one transaction, with what an earlier one knew of connections.
  Result<void> put();
  // False if there was no table of a Backstop.
  Result<bool> remove();
  // False before put(), and when a change failed since: to be put again.
  [[nodiscard]] bool is_put() const { return put_; }
  // Another program removed the table, or rules from it.
  Result<bool> is_damaged();
  // To be called now and then: which interfaces lead outside.
  Result<void> follow();
  Result<void> set_local_addresses(std::span<const net::IpAddress> addresses);

  // Whether the table is as it was put, and its program finds what the BPF backend has: the
  // generation in force, and a few hundred of the learned addresses, of which it returns how many.
  // An error says what differs.
  Result<std::size_t> compare(std::uint32_t generation, BootTime now);

 private:
  explicit Backstop(BackstopOptions options) : options_(std::move(options)) {}
  Result<void> load();
  void add_locals(nft::Batch& batch) const;
  void add_rules(nft::Batch& batch) const;
  // An error if a chain has not as many rules as it was put there with.
  Result<void> whole();
  Result<std::uint32_t> ask(std::span<const std::uint8_t> address) const;

  BackstopOptions options_;
  egressd_backstop* skeleton_ = nullptr;
  std::unique_ptr<nft::Connection> connection_;
  std::unique_ptr<nft::Sockets> sockets_;
  std::uint32_t learned_id_ = 0;
  frame::Scope scope_;
  std::vector<net::IpAddress> locals_;
  std::set<std::string> uplinks_;             // as the kernel has them
  std::map<std::string, std::size_t> rules_;  // by chain
  bool put_ = false;
};

// Removes the table if it asks maps that are pinned below `bpffs_dir`; false if there is none.
Result<bool> remove_backstop(const std::string& bpffs_dir);

}  // namespace egressd::enforce
