#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "bpf/egressd_abi.h"
#include "enforce/break_glass.h"
#include "enforce/map_fill.h"
#include "enforce/rule_set.h"

namespace egressd::enforce {

struct Counters {
  std::array<std::uint64_t, EGRESSD_REASON_MAX> reasons{};   // by enum egressd_reason
  std::array<std::uint64_t, EGRESSD_STAT_MAX> stats{};       // by enum egressd_stat
  std::array<std::uint64_t, EGRESSD_DNS_OUTCOME_MAX> dns{};  // by enum egressd_dns_outcome
};

// One attached program, as the kernel reports it (not as we remember it).
struct LayerStatus {
  std::string program;
  bool attached = false;
  bool cgroup_removed = false;  // a new one of that name would be another
  bool needed = true;           // else the others enforce the whole policy without it
  std::string detail;
};

// "Make the kernel allow exactly this." Backends are told what should be true and compute their
// own difference. Single-threaded. Destroying a backend does not end enforcement: pinned programs
// and maps stay until detach().
class Backend {
 public:
  virtual ~Backend() = default;

  // After it returns, either the new rules are in force as a whole, or (on error) the old ones
  // still are. Learned addresses are kept.
  virtual Result<void> apply(const RuleSet& rules) = 0;

  // Puts the programs in place, after the first apply() so that nothing is judged without a
  // policy. Programs of an earlier agent are replaced one by one, without a moment of opening. On
  // error they are as before, and none of ours is attached.
  virtual Result<void> attach() = 0;
  // Removes everything from the kernel; returns what, one line each.
  virtual Result<std::vector<std::string>> detach() = 0;
  // Puts back what another program removed from the kernel, with what was learned: `rules` are
  // those of the last apply(). True if something was missing. Cheap if nothing was: call it often.
  virtual Result<bool> restore(const RuleSet& /*rules*/) { return false; }
  // Removes the maps if no program is attached that needs them: after a start that came to
  // nothing. The backend is of no use afterwards.
  virtual void discard_unused() = 0;

  // Generation in force, 0 if none; found in the kernel when an earlier agent left it there.
  virtual Result<std::uint32_t> generation() = 0;
  // No pattern number above this has been in force or granted since the maps were made: sockets and
  // grants may still hold those up to it.
  virtual Result<std::uint32_t> highest_name_id() = 0;
  // Identifies the learned addresses: changes whenever they were lost (boot, detach).
  [[nodiscard]] virtual std::string instance() const = 0;

  // Adds grants, or extends those the address already has for the same name.
  virtual Result<void> learn(std::span<const LearnedAddress> addresses) = 0;
  // Every grant in the kernel, expired ones too.
  virtual Result<std::vector<LearnedAddress>> learned() = 0;
  virtual Result<std::size_t> count_learned() = 0;
  // Frees grants that expired before `now`; returns how many. A time before the boot (soon after
  // it, now minus some delay) frees none.
  virtual Result<std::size_t> expire(BootTime now) = 0;
  // Goes on with a walk over the open sockets of all network namespaces, or begins one: some of
  // the grants they rest on (connected, not accepted, and still allowed by their name's rules)
  // that end before `until`, expired ones too. Several sockets may rest on one; what is extended
  // between two calls is not told again. Empty: the walk is over. An error if this kernel cannot
  // tell; it enforces all the same.
  virtual Result<std::vector<LearnedAddress>> next_live(BootTime until) = 0;
  // Forgets every grant.
  virtual Result<void> forget_learned() = 0;

  // From now on, for a minute or so, the UDP socket with this cookie (SO_COOKIE) may send to the
  // address and port, as it may answer whoever spoke to it from outside: for what was redirected to
  // it on this machine, which leaves under the address it was meant for. `port` in host byte order.
  virtual Result<void> let_answer(std::uint64_t cookie, const net::IpAddress& address,
                                  std::uint16_t port) {
    (void)cookie, (void)address, (void)port;
    return {};
  }
  // The host's own addresses: reachable without a rule.
  virtual Result<void> set_local_addresses(std::span<const net::IpAddress> addresses) = 0;

  // Denials that repeat have no event each; `visit` is told how many there were since the last call
  // (`count`, and `event` is the first). Each is told exactly once, or again if the agent ends
  // meanwhile.
  virtual Result<void> drain_tally(const std::function<void(const egressd_tally&)>& visit) = 0;
  // Denials of which there is neither event nor count, likewise.
  virtual Result<void> drain_lost(
      const std::function<void(std::uint32_t reason, std::uint64_t count)>& visit) = 0;
  // Break-glass, as the kernel has it: over if `until` has passed.
  virtual Result<Opening> opening() = 0;

  virtual Result<Counters> counters() = 0;
  // Of the maps that can become full; those that cannot be read are left out.
  virtual std::vector<MapFill> map_fills() = 0;
  virtual std::vector<LayerStatus> layers() = 0;
  // Ring buffer maps to read from, owned by the backend: egressd_event entries, and
  // egressd_dns_event entries each followed by its DNS message. Both outlive the agent: what
  // happened while none was running is found there.
  [[nodiscard]] virtual int events_fd() const = 0;
  [[nodiscard]] virtual int dns_events_fd() const = 0;
  // Where there are no ring buffers (both are -1): readable while denials wait that
  // read_denials() tells, about `max` at a time, without waiting; returns how many.
  [[nodiscard]] virtual int denials_fd() const { return -1; }
  virtual Result<std::size_t> read_denials(
      std::size_t /*max*/, const std::function<void(const egressd_event&)>& /*visit*/) {
    return 0;
  }
};

}  // namespace egressd::enforce
