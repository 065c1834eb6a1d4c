#include "audit/datagram.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <algorithm>
#include <cstring>

namespace egressd::audit {
namespace {

Result<UniqueFd> open_socket(int family) {
  UniqueFd fd(::socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return std::unexpected(Error::from_errno("open a datagram socket"));
  return fd;
}

}  // namespace

Datagram::Datagram(UniqueFd fd, const void* address, socklen_t size)
    : fd_(std::move(fd)), size_(size) {
  std::memcpy(&to_, address, size);
}

Result<Datagram> Datagram::to_path(const std::string& path) {
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(to.sun_path))
    return std::unexpected(Error::of("'" + path + "' cannot be the path of a socket"));
  std::ranges::copy(path, to.sun_path);
  auto fd = open_socket(AF_UNIX);
  if (!fd) return std::unexpected(std::move(fd.error()));
  return Datagram(std::move(*fd), &to, sizeof(to));
}

Result<Datagram> Datagram::to_udp(const net::IpAddress& address, std::uint16_t port) {
  auto fd = open_socket(address.is_v4() ? AF_INET : AF_INET6);
  if (!fd) return std::unexpected(std::move(fd.error()));
  const auto& bytes = address.bytes();
  if (address.is_v4()) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    std::memcpy(&to.sin_addr, bytes.data() + 12, sizeof(to.sin_addr));
    return Datagram(std::move(*fd), &to, sizeof(to));
  }
  sockaddr_in6 to{};
  to.sin6_family = AF_INET6;
  to.sin6_port = htons(port);
  std::memcpy(&to.sin6_addr, bytes.data(), sizeof(to.sin6_addr));
  return Datagram(std::move(*fd), &to, sizeof(to));
}

bool Datagram::send(std::string_view message) const {
  while (true) {
    const auto n = ::sendto(fd_.get(), message.data(), message.size(), MSG_DONTWAIT | MSG_NOSIGNAL,
                            reinterpret_cast<const sockaddr*>(&to_), size_);
    if (n >= 0) return true;
    if (errno != EINTR) return false;
  }
}

}  // namespace egressd::audit
