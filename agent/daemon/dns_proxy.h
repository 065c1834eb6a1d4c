#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/result.h"
#include "daemon/socket_owner.h"
#include "dns/forwarder.h"
#include "enforce/rule_set.h"
#include "net/ip_address.h"
#include "nft/redirect.h"

namespace egressd::daemon {

// SO_MARK of the agent's own DNS questions, which go out as they are. Few bits, and none of those
// that kube-proxy, Calico, Cilium, Tailscale or the AWS CNI look at.
inline constexpr std::uint32_t kOwnQuestionMark = 0x35;

// `dns.mode: proxy`: the forwarder, and the redirection that leads to it. Both end with the agent.
class DnsProxy {
 public:
  // `callbacks.identify` is this object's own. Everything must outlive it.
  DnsProxy(EventLoop& loop, dns::Forwarder::Callbacks callbacks, std::string cgroup_path,
           std::string cgroup2_mount);
  ~DnsProxy();
  DnsProxy(const DnsProxy&) = delete;
  DnsProxy& operator=(const DnsProxy&) = delete;

  // Who asks for everybody.
  static enforce::RuleSet::Dns::Forwarder own_questions();
  // As many descriptors as this process may have: before confine().
  static void raise_limits();

  // From now on questions to these servers are redirected. On error, also told by error(), those
  // of before are, if any; it is tried again by and by.
  Result<void> follow(const std::vector<net::IpAddress>& servers);
  // None are any more.
  void end();

  [[nodiscard]] bool is_active() const { return redirect_ != nullptr; }
  [[nodiscard]] const std::string& error() const { return error_; }
  // nullptr: not active.
  [[nodiscard]] const dns::Forwarder* forwarder() const { return forwarder_.get(); }

 private:
  Result<void> start(const std::vector<net::IpAddress>& servers);
  Result<nft::Redirect::What> redirection(const dns::Forwarder& forwarder) const;
  void identify(dns::Forwarder::Client& client);

  EventLoop& loop_;
  dns::Forwarder::Callbacks callbacks_;
  std::string cgroup_path_;
  std::string cgroup2_mount_;
  std::vector<net::IpAddress> servers_;
  EventLoop::TimerId retry_ = 0;
  std::chrono::seconds retry_after_{1};
  std::unique_ptr<SocketOwners> owners_;
  std::unique_ptr<dns::Forwarder> forwarder_;
  std::unique_ptr<nft::Redirect> redirect_;
  std::string error_;
};

}  // namespace egressd::daemon
