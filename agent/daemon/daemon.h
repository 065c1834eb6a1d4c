#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/result.h"
#include "daemon/name_servers.h"
#include "daemon/sinks.h"

namespace egressd::daemon {

struct Options {
  std::string policy_path;
  std::string dns_log;          // overrides the policy's: "denied", "all"; empty: as it says
  std::string mode;             // overrides the policy's: "audit", "enforce"; empty: as it says
  std::string backend = "bpf";  // or "nft", or "both"
  std::string nft_scope;        // of "both": "host" or "cgroup"; empty: as cgroup_path says
  std::string cgroup_path;      // empty: the root of the cgroup2 hierarchy
  std::string state_dir = "/var/lib/egressd";
  std::string bpffs_dir = "/sys/fs/bpf/egressd";
  std::string socket_path = "/run/egressd/control.sock";
  AuditOptions audit;
  std::string metrics_listen = "127.0.0.1:9477";  // ADDRESS:PORT, or "off"
  ResolvConfPaths resolv_conf;
  // At boot the file may come later than enforcement has to begin. Until it does no DNS server is
  // trusted; otherwise a start without one is an error.
  bool await_resolv_conf = false;
  std::uint32_t max_learned = 131072;
  // Longest wait for the first answers before enforcement begins on a machine where it is not
  // yet in force: what the policy allows should be reachable from the first moment on.
  std::chrono::milliseconds first_answers{5000};
};

// The running agent: policy in, kernel told, names kept resolved, denials recorded, questions
// answered. Everything happens inside the event loop.
class Daemon {
 public:
  // Loads the policy, prepares the kernel side (or adopts what an earlier agent left in force)
  // and begins. On error, also one of outcome(), nothing is attached that was not; where nothing
  // was found, nothing stays behind either.
  static Result<std::unique_ptr<Daemon>> start(EventLoop& loop, Options options);
  // Enforcement stays: pinned programs and maps need no agent. detach() is what ends it.
  virtual ~Daemon() = default;

  // Reads the policy file again. On error (returned and shown by `status`) the policy in force
  // stays in force, unless the error says that the new one is.
  virtual Result<void> reload() = 0;
  // Before an end that was asked for: a trial is rolled back now, as nobody would do it in time.
  virtual void stopping() = 0;
  // Goes on in a new audit file after log rotation.
  virtual void reopen_audit_log() = 0;

  // The error for which it stopped the loop, if it was one: enforcement could not begin.
  [[nodiscard]] virtual Result<void> outcome() const = 0;
};

}  // namespace egressd::daemon
