#include "nft/sockets.h"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace egressd::nft {
namespace {

constexpr std::size_t kBufferBytes = 1 << 16;
constexpr std::uint32_t kAllStates = 0xffffffff;

net::IpAddress address_of(int family, const __be32* words) {
  if (family == AF_INET) {
    in_addr address{};
    std::memcpy(&address, words, sizeof(address));
    return net::IpAddress::from(address);
  }
  in6_addr address{};
  std::memcpy(&address, words, sizeof(address));
  return net::IpAddress::from(address);
}

}  // namespace

void Sockets::Free::operator()(mnl_socket* socket) const { ::mnl_socket_close(socket); }
Sockets::~Sockets() = default;

Result<std::unique_ptr<Sockets>> Sockets::open() {
  mnl_socket* socket = ::mnl_socket_open2(NETLINK_SOCK_DIAG, SOCK_CLOEXEC);
  if (socket == nullptr)
    return std::unexpected(Error::from_errno("open a netlink socket to sock_diag"));
  std::unique_ptr<Sockets> sockets(new Sockets(socket));
  if (::mnl_socket_bind(socket, 0, MNL_SOCKET_AUTOPID) < 0)
    return std::unexpected(Error::from_errno("bind a netlink socket"));
  sockets->buffer_.resize(kBufferBytes);
  return sockets;
}

Result<std::vector<OpenSocket>> Sockets::list() {
  std::vector<OpenSocket> all;
  for (const int protocol : {IPPROTO_TCP, IPPROTO_UDP}) {
    for (const int family : {AF_INET, AF_INET6}) {
      if (auto r = list(family, protocol, all); !r) return std::unexpected(std::move(r.error()));
    }
  }
  return all;
}

Result<void> Sockets::list(int family, int protocol, std::vector<OpenSocket>& into) {
  constexpr const char* kWhat = "list open sockets";
  alignas(nlmsghdr) char request[256];
  nlmsghdr* header = ::mnl_nlmsg_put_header(request);
  header->nlmsg_type = SOCK_DIAG_BY_FAMILY;
  header->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  header->nlmsg_seq = ++sequence_;
  auto* wanted = static_cast<inet_diag_req_v2*>(
      ::mnl_nlmsg_put_extra_header(header, sizeof(inet_diag_req_v2)));
  wanted->sdiag_family = static_cast<__u8>(family);
  wanted->sdiag_protocol = static_cast<__u8>(protocol);
  wanted->idiag_states = kAllStates & ~(1u << TCP_TIME_WAIT);
  if (::mnl_socket_sendto(socket_.get(), header, header->nlmsg_len) < 0)
    return std::unexpected(Error::from_errno(kWhat));
  for (;;) {
    const ssize_t n = ::recv(::mnl_socket_get_fd(socket_.get()), buffer_.data(), buffer_.size(), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return std::unexpected(Error::from_errno(kWhat));
    auto length = static_cast<int>(n);
    for (auto* answer = reinterpret_cast<nlmsghdr*>(buffer_.data()); ::mnl_nlmsg_ok(answer, length);
         answer = ::mnl_nlmsg_next(answer, &length)) {
      if (answer->nlmsg_seq != sequence_) continue;
      if (answer->nlmsg_type == NLMSG_DONE) return {};
      if (answer->nlmsg_type == NLMSG_ERROR) {
        const auto* error = static_cast<const nlmsgerr*>(::mnl_nlmsg_get_payload(answer));
        // A family or protocol this kernel does not have has no sockets.
        if (error->error == -ENOENT || error->error == -EINVAL) return {};
        return std::unexpected(Error::from_errno(kWhat, -error->error));
      }
      if (answer->nlmsg_len < NLMSG_LENGTH(sizeof(inet_diag_msg))) continue;
      const auto* found = static_cast<const inet_diag_msg*>(::mnl_nlmsg_get_payload(answer));
      into.push_back({.protocol = static_cast<net::Protocol>(protocol),
                      .port = ntohs(found->id.idiag_sport),
                      .peer = address_of(family, found->id.idiag_dst),
                      .peer_port = ntohs(found->id.idiag_dport),
                      .listening = protocol == IPPROTO_TCP && found->idiag_state == TCP_LISTEN});
    }
  }
}

}  // namespace egressd::nft
