#include "daemon/local_addresses.h"

#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <ctime>

namespace egressd::daemon {
namespace {

using Socket = std::unique_ptr<mnl_socket, decltype([](mnl_socket* s) { ::mnl_socket_close(s); })>;

Result<Socket> open_socket(unsigned groups, int flags) {
  Socket socket(::mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC | flags));
  if (!socket || ::mnl_socket_bind(socket.get(), groups, MNL_SOCKET_AUTOPID) < 0)
    return std::unexpected(Error::from_errno("open a rtnetlink socket"));
  return socket;
}

int take_attribute(const nlattr* attribute, void* data) {
  // IFA_LOCAL is the own address on point-to-point links, where IFA_ADDRESS is the peer's.
  auto& found = *static_cast<std::array<const nlattr*, IFA_MAX + 1>*>(data);
  const int type = ::mnl_attr_get_type(attribute);
  if (type == IFA_LOCAL || type == IFA_ADDRESS) found[static_cast<std::size_t>(type)] = attribute;
  return MNL_CB_OK;
}

int take_address(const nlmsghdr* header, void* data) {
  auto& addresses = *static_cast<std::vector<net::IpAddress>*>(data);
  const auto* message = static_cast<const ifaddrmsg*>(::mnl_nlmsg_get_payload(header));
  std::array<const nlattr*, IFA_MAX + 1> found{};
  ::mnl_attr_parse(header, sizeof(*message), &take_attribute, &found);
  const nlattr* attribute = found[IFA_LOCAL] != nullptr ? found[IFA_LOCAL] : found[IFA_ADDRESS];
  if (attribute == nullptr || message->ifa_scope >= RT_SCOPE_LINK) return MNL_CB_OK;
  const void* payload = ::mnl_attr_get_payload(attribute);
  const auto length = ::mnl_attr_get_payload_len(attribute);
  if (message->ifa_family == AF_INET && length == sizeof(in_addr))
    addresses.push_back(net::IpAddress::from(*static_cast<const in_addr*>(payload)));
  else if (message->ifa_family == AF_INET6 && length == sizeof(in6_addr))
    addresses.push_back(net::IpAddress::from(*static_cast<const in6_addr*>(payload)));
  return MNL_CB_OK;
}

Result<std::vector<net::IpAddress>> dump() {
  auto socket = open_socket(0, 0);
  if (!socket) return std::unexpected(socket.error());
  alignas(nlmsghdr) std::array<char, 16384> buffer{};
  nlmsghdr* request = ::mnl_nlmsg_put_header(buffer.data());
  request->nlmsg_type = RTM_GETADDR;
  request->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  const auto sequence = static_cast<unsigned>(std::time(nullptr));
  request->nlmsg_seq = sequence;
  auto* message = static_cast<ifaddrmsg*>(::mnl_nlmsg_put_extra_header(request, sizeof(ifaddrmsg)));
  message->ifa_family = AF_UNSPEC;
  if (::mnl_socket_sendto(socket->get(), request, request->nlmsg_len) < 0)
    return std::unexpected(Error::from_errno("ask for the host's addresses"));
  std::vector<net::IpAddress> addresses;
  const unsigned port = ::mnl_socket_get_portid(socket->get());
  for (;;) {
    // Answered from the kernel itself: this does not wait for anyone.
    const ssize_t n = ::mnl_socket_recvfrom(socket->get(), buffer.data(), buffer.size());
    if (n < 0) return std::unexpected(Error::from_errno("read the host's addresses"));
    const int more = ::mnl_cb_run(buffer.data(), static_cast<std::size_t>(n), sequence, port,
                                  &take_address, &addresses);
    if (more < 0) return std::unexpected(Error::from_errno("read the host's addresses"));
    if (more == MNL_CB_STOP) break;
  }
  std::ranges::sort(addresses);
  const auto repeated = std::ranges::unique(addresses);
  addresses.erase(repeated.begin(), repeated.end());
  return addresses;
}

class Impl final : public LocalAddresses {
 public:
  Impl(EventLoop& loop, Callback on_change) : loop_(loop), on_change_(std::move(on_change)) {}
  ~Impl() override {
    if (socket_) loop_.unwatch(::mnl_socket_get_fd(socket_.get()));
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  Result<void> open() {
    // Subscribed before the first dump, so that no change falls in between.
    auto socket = open_socket(RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR, SOCK_NONBLOCK);
    if (!socket) return std::unexpected(socket.error());
    socket_ = std::move(*socket);
    if (auto r = refresh(); !r) return r;
    return loop_.watch(::mnl_socket_get_fd(socket_.get()), EPOLLIN,
                       [this](std::uint32_t) { on_event(); });
  }

 private:
  Result<void> refresh() {
    auto addresses = dump();
    if (!addresses) return std::unexpected(addresses.error());
    on_change_(*addresses);
    return {};
  }

  void on_event() {
    // What changed does not matter (and is lost on ENOBUFS): the whole list is read again.
    std::array<char, 16384> buffer{};
    while (::mnl_socket_recvfrom(socket_.get(), buffer.data(), buffer.size()) > 0) {
    }
    if (!refresh()) loop_.after(std::chrono::seconds(5), [this] { on_event(); });
  }

  EventLoop& loop_;
  Callback on_change_;
  Socket socket_;
};

}  // namespace

Result<std::unique_ptr<LocalAddresses>> LocalAddresses::open(EventLoop& loop, Callback on_change) {
  auto impl = std::make_unique<Impl>(loop, std::move(on_change));
  if (auto r = impl->open(); !r) return std::unexpected(std::move(r.error()));
  return impl;
}

}  // namespace egressd::daemon
