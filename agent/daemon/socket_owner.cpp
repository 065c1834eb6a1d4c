#include "daemon/socket_owner.h"

#include <arpa/inet.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <sys/socket.h>

#include <array>
#include <cstring>
#include <utility>

namespace egressd::daemon {

Result<std::unique_ptr<SocketOwners>> SocketOwners::open() {
  UniqueFd fd(::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
  if (!fd) return std::unexpected(Error::from_errno("open a netlink socket to sock_diag"));
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&kernel), sizeof(kernel)) != 0)
    return std::unexpected(Error::from_errno("connect a netlink socket to sock_diag"));
  return std::unique_ptr<SocketOwners>(new SocketOwners(std::move(fd)));
}

std::optional<SocketOwners::Owner> SocketOwners::find(const Flow& flow) {
  struct {
    nlmsghdr header;
    inet_diag_req_v2 body;
  } request{};
  request.header.nlmsg_len = sizeof(request);
  request.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  request.header.nlmsg_flags = NLM_F_REQUEST;
  const bool v4 = flow.local.is_v4();
  request.body.sdiag_family = v4 ? AF_INET : AF_INET6;
  request.body.sdiag_protocol = static_cast<std::uint8_t>(flow.protocol);
  request.body.idiag_states = ~0u;
  inet_diag_sockid& id = request.body.id;
  const std::size_t skip = v4 ? 12 : 0;
  std::memcpy(id.idiag_src, flow.local.bytes().data() + skip, 16 - skip);
  std::memcpy(id.idiag_dst, flow.remote.bytes().data() + skip, 16 - skip);
  id.idiag_sport = htons(flow.local_port);
  id.idiag_dport = htons(flow.remote_port);
  id.idiag_cookie[0] = id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
  // udp_dump_one() takes what it looks up for a packet that comes in: from "source".
  if (flow.protocol == net::Protocol::Udp) {
    std::swap(id.idiag_src, id.idiag_dst);
    std::swap(id.idiag_sport, id.idiag_dport);
  }
  if (::send(socket_.get(), &request, sizeof(request), 0) != sizeof(request)) return std::nullopt;
  alignas(nlmsghdr) std::array<char, 4096> answer;
  const ssize_t n = ::recv(socket_.get(), answer.data(), answer.size(), MSG_DONTWAIT);
  const auto* header = reinterpret_cast<const nlmsghdr*>(answer.data());
  if (n < static_cast<ssize_t>(NLMSG_LENGTH(sizeof(inet_diag_msg))) ||
      header->nlmsg_type != SOCK_DIAG_BY_FAMILY || header->nlmsg_len > static_cast<std::size_t>(n))
    return std::nullopt;
  const auto* found = reinterpret_cast<const inet_diag_msg*>(answer.data() + NLMSG_HDRLEN);
  Owner owner{found->idiag_uid, 0};
  constexpr std::size_t kAttributes = NLMSG_HDRLEN + NLMSG_ALIGN(sizeof(inet_diag_msg));
  for (std::size_t at = kAttributes; at + sizeof(rtattr) <= header->nlmsg_len;) {
    rtattr attribute{};
    std::memcpy(&attribute, answer.data() + at, sizeof(attribute));
    if (attribute.rta_len < sizeof(attribute) || at + attribute.rta_len > header->nlmsg_len) break;
    if (attribute.rta_type == INET_DIAG_CGROUP_ID &&
        attribute.rta_len == RTA_LENGTH(sizeof(owner.cgroup_id)))
      std::memcpy(&owner.cgroup_id, answer.data() + at + RTA_LENGTH(0), sizeof(owner.cgroup_id));
    at += RTA_ALIGN(attribute.rta_len);
  }
  return owner;
}

}  // namespace egressd::daemon
