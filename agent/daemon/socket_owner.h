#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "base/result.h"
#include "base/unique_fd.h"
#include "net/endpoint.h"
#include "net/ip_address.h"

namespace egressd::daemon {

// Whose a socket of this network namespace is, by sock_diag(7). The kernel answers within the call,
// in a few microseconds.
class SocketOwners {
 public:
  struct Owner {
    std::uint32_t uid = 0;
    std::uint64_t cgroup_id = 0;  // 0: the kernel does not say (before Linux 5.8)
  };
  struct Flow {
    net::Protocol protocol = net::Protocol::Udp;  // or Tcp
    net::IpAddress local;
    net::IpAddress remote;         // as the socket knows it; both of one family
    std::uint16_t local_port = 0;  // host byte order
    std::uint16_t remote_port = 0;
  };

  static Result<std::unique_ptr<SocketOwners>> open();
  // Nothing if there is no such socket (any more).
  std::optional<Owner> find(const Flow& flow);

 private:
  explicit SocketOwners(UniqueFd socket) : socket_(std::move(socket)) {}
  UniqueFd socket_;
};

}  // namespace egressd::daemon
