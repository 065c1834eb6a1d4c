#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "enforce/nft_frame.h"
#include "net/ip_address.h"
#include "nft/connection.h"

struct egressd_backstop;

namespace egressd::enforce {

struct BackstopOptions {
  std::string cgroup_path;  // judged by eBPF: the table leaves its sockets alone
  std::string maps_dir;     // where the maps of the BPF backend are pinned
};

// `table inet egressd` behind the BPF backend, at output and forward, for what its hooks do not
// see. It holds no policy and no addresses of its own: it asks a program that decides by the maps
// of that backend, so that it can never refuse what those have just been taught. It needs no agent.
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
  // What is asked for again and again: interfaces that lead outside.
  Result<void> follow();
  Result<void> set_local_addresses(std::span<const net::IpAddress> addresses);

  // How many of the addresses in the maps of the BPF backend were compared with what the table's
  // program finds, and of how many there are. An error says what differs; `generation` is what the
  // BPF backend has in force, `now` the time.
  struct Agreement {
    std::size_t compared = 0;
    std::size_t rules = 0;  // in both chains
  };
  Result<Agreement> compare(std::uint32_t generation, BootTime now);

 private:
  explicit Backstop(BackstopOptions options) : options_(std::move(options)) {}
  Result<void> load();
  Result<std::uint32_t> marked();  // id of the map the table judges by; 0: none
  void add_locals(nft::Batch& batch) const;
  void add_rules(nft::Batch& batch) const;
  Result<std::uint32_t> ask(std::span<const std::uint8_t> address) const;

  BackstopOptions options_;
  egressd_backstop* skeleton_ = nullptr;
  std::unique_ptr<nft::Connection> connection_;
  UniqueFd learned_;
  std::uint32_t learned_id_ = 0;
  frame::Scope scope_;
  std::vector<net::IpAddress> locals_;
  std::set<std::string> uplinks_;  // as the kernel has them
  bool put_ = false;
};

// Removes the table if it is that of a Backstop; false if there is none.
Result<bool> remove_backstop();

}  // namespace egressd::enforce
