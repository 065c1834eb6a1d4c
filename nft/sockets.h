#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/result.h"
#include "net/endpoint.h"
#include "net/ip_address.h"

struct mnl_socket;

namespace egressd::nft {

// One TCP or UDP socket of the network namespace.
struct OpenSocket {
  net::Protocol protocol = net::Protocol::Tcp;
  std::uint16_t port = 0;  // its own
  net::IpAddress peer;
  std::uint16_t peer_port = 0;  // 0: it has no peer
  bool listening = false;
};

// Asks the kernel which sockets there are (sock_diag), in the network namespace it was opened in.
class Sockets {
 public:
  static Result<std::unique_ptr<Sockets>> open();
  ~Sockets();
  Sockets(const Sockets&) = delete;
  Sockets& operator=(const Sockets&) = delete;

  // Without those that are only waiting to be forgotten (TIME_WAIT).
  Result<std::vector<OpenSocket>> list();

 private:
  struct Free {
    void operator()(mnl_socket* socket) const;
  };
  explicit Sockets(mnl_socket* socket) : socket_(socket) {}
  Result<void> list(int family, int protocol, std::vector<OpenSocket>& into);

  std::unique_ptr<mnl_socket, Free> socket_;
  std::vector<char> buffer_;
  std::uint32_t sequence_ = 0;
};

}  // namespace egressd::nft
