#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "base/event_loop.h"
#include "base/result.h"
#include "net/ip_address.h"

namespace egressd::daemon {

// The addresses of this host's interfaces (of the network namespace it was opened in), by
// rtnetlink(7): what is sent to them does not leave the machine.
class LocalAddresses {
 public:
  using Callback = std::function<void(const std::vector<net::IpAddress>&)>;

  // Calls back once before returning, then whenever an address comes or goes. Without
  // link-local, loopback and multicast addresses: those need no entry or belong to others too.
  static Result<std::unique_ptr<LocalAddresses>> open(EventLoop& loop, Callback on_change);
  virtual ~LocalAddresses() = default;
};

}  // namespace egressd::daemon
