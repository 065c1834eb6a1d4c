#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/result.h"
#include "dns/answer.h"
#include "net/ip_address.h"

namespace egressd::dns {

// Keeps a list of exact names resolved: A and AAAA, CNAMEs followed, asked again before the TTL
// ends (jittered, so that thousands of nodes do not ask together). Driven by the event loop:
// no call blocks. A failing name is retried with backoff and reported, and never yields an empty
// answer: what it last resolved to stays the caller's to keep.
//
// The two families are asked independently. An Answer holds what succeeded: a family without
// records (NODATA) is normal, one that failed (SERVFAIL, timeout) is retried with backoff while the
// other's addresses are used. Only a name without any address is a failure.
// Servers are asked in order from the one that last worked; silence or SERVFAIL leads to the next,
// NXDOMAIN and NODATA are believed. No /etc/hosts, no search list, TCP after truncation.
//
// Callbacks come from the loop only, never from inside set_names() or refresh(), and may do
// anything to the Resolver, destroying it included. The loop must outlive the Resolver.
class Resolver {
 public:
  struct Options {
    std::vector<net::IpAddress> servers;  // port 53 unless server_port says otherwise
    std::uint16_t server_port = 53;       // host byte order
    std::uint32_t mark = 0;               // SO_MARK of its sockets, where that is allowed; 0: none
    std::chrono::milliseconds timeout{2000};  // per try and server
    int tries = 3;
    std::chrono::seconds min_ttl{60};  // shorter TTLs count as this, see schedule.h
    std::chrono::seconds max_ttl{86400};
    std::chrono::seconds max_backoff{60};  // between retries of a failing name
    std::size_t max_in_flight = 64;        // names asked at once, two questions each
  };

  // State of one name, for `status` and `list`.
  struct NameStatus {
    std::string fqdn;
    bool resolved = false;  // has had a good answer since start
    BootTime last_answer{0};
    BootTime next_attempt{0};
    std::uint32_t consecutive_failures = 0;
    std::string last_error;  // empty after a good answer; "AAAA: …" if half of it failed
  };

  using AnswerCallback = std::function<void(const Answer&)>;
  using FailureCallback = std::function<void(const std::string& fqdn, const std::string& error)>;

  // Refuses options that cannot work (no server, zero min_ttl, …).
  static Result<std::unique_ptr<Resolver>> create(EventLoop& loop, Options options,
                                                  AnswerCallback on_answer,
                                                  FailureCallback on_failure);
  virtual ~Resolver() = default;

  // Replaces the list of names: new ones are asked at once, vanished ones no longer.
  virtual void set_names(std::vector<std::string> fqdns) = 0;
  // Asks for one name now, outside the schedule; nothing if it is not on the list, or is being
  // asked for or was asked or answered within `unless_within`.
  virtual void refresh(const std::string& fqdn,
                       std::chrono::seconds unless_within = std::chrono::seconds(0)) = 0;
  [[nodiscard]] virtual std::vector<NameStatus> status() const = 0;
};

// Nameserver and search lines of a resolv.conf (5). Unparsable lines are skipped, as libc does, and
// so are servers with a zone (fe80::1%eth0) and those after the third. No server is no error here.
struct ResolvConf {
  std::vector<net::IpAddress> servers;
  std::vector<std::string> search;
};
Result<ResolvConf> read_resolv_conf(const std::string& path = "/etc/resolv.conf");

}  // namespace egressd::dns
