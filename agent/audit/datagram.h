#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"
#include "net/ip_address.h"

namespace egressd::audit {

// One-way messages to a local socket or over UDP that never wait. Not connected: the other side may
// come and go, a local one's path is looked up for each message.
class Datagram {
 public:
  static Result<Datagram> to_path(const std::string& path);
  // `port` in host byte order.
  static Result<Datagram> to_udp(const net::IpAddress& address, std::uint16_t port);

  // All of it or nothing; if false, errno says why (EAGAIN: the queue is full).
  [[nodiscard]] bool send(std::string_view message) const;

 private:
  Datagram(UniqueFd fd, const void* address, socklen_t size);

  UniqueFd fd_;
  sockaddr_storage to_{};
  socklen_t size_;
};

}  // namespace egressd::audit
