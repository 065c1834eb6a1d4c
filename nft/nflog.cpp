#include "nft/nflog.h"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <linux/netlink.h>
#include <sys/socket.h>

#include <cerrno>
#include <string>
#include <utility>

#include "nft/attributes.h"

namespace egressd::nft {
namespace {

constexpr int kReceiveBytes = 8 << 20;  // bursts of denials, some 300 bytes each
constexpr std::size_t kBufferBytes = 1 << 17;
// Waking us for every packet costs its sender 1.9 µs; for up to 64 together, 1.0 µs.
constexpr std::uint32_t kQueueThreshold = 64;
constexpr std::uint32_t kFlushAfter = 1;  // 10 ms, in 1/100 s: how late a lone packet is told

std::string_view text_of(const nlattr& attribute) {
  const auto bytes = bytes_of(&attribute);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return text.substr(0, text.find('\0'));
}

}  // namespace

void Nflog::Free::operator()(mnl_socket* socket) const { ::mnl_socket_close(socket); }
Nflog::~Nflog() = default;

int Nflog::fd() const { return ::mnl_socket_get_fd(socket_.get()); }

Result<std::unique_ptr<Nflog>> Nflog::open(std::uint16_t group) {
  mnl_socket* socket = ::mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
  if (socket == nullptr)
    return std::unexpected(Error::from_errno("open a netlink socket to netfilter"));
  std::unique_ptr<Nflog> log(new Nflog(socket));
  if (::mnl_socket_bind(socket, 0, MNL_SOCKET_AUTOPID) < 0)
    return std::unexpected(Error::from_errno("bind a netlink socket"));
  (void)::setsockopt(log->fd(), SOL_SOCKET, SO_RCVBUFFORCE, &kReceiveBytes, sizeof(kReceiveBytes));
  log->buffer_.resize(kBufferBytes);
  if (auto r = log->configure(group); !r) return std::unexpected(std::move(r.error()));
  return log;
}

Result<void> Nflog::configure(std::uint16_t group) {
  const auto ask = [&](const std::function<void(nlmsghdr*)>& fill) -> Result<void> {
    alignas(nlmsghdr) char request[512];
    nlmsghdr* header = ::mnl_nlmsg_put_header(request);
    header->nlmsg_type = (NFNL_SUBSYS_ULOG << 8) | NFULNL_MSG_CONFIG;
    header->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    auto* generic = static_cast<nfgenmsg*>(::mnl_nlmsg_put_extra_header(header, sizeof(nfgenmsg)));
    generic->nfgen_family = AF_UNSPEC;
    generic->version = NFNETLINK_V0;
    generic->res_id = htons(group);
    fill(header);
    const std::string what = "read packets logged to group " + std::to_string(group);
    if (::mnl_socket_sendto(socket_.get(), header, header->nlmsg_len) < 0)
      return std::unexpected(Error::from_errno(what));
    for (;;) {
      const ssize_t n = ::recv(fd(), buffer_.data(), buffer_.size(), 0);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return std::unexpected(Error::from_errno(what));
      const auto* answer = reinterpret_cast<const nlmsghdr*>(buffer_.data());
      if (answer->nlmsg_type != NLMSG_ERROR) continue;  // already packets
      const auto* error = static_cast<const nlmsgerr*>(::mnl_nlmsg_get_payload(answer));
      if (error->error == 0) return {};
      return std::unexpected(Error::from_errno(what, -error->error));
    }
  };
  auto r = ask([](nlmsghdr* header) {
    nfulnl_msg_config_cmd command{NFULNL_CFG_CMD_BIND};
    ::mnl_attr_put(header, NFULA_CFG_CMD, sizeof(command), &command);
  });
  if (!r) return r;
  return ask([](nlmsghdr* header) {
    nfulnl_msg_config_mode mode{};
    mode.copy_mode = NFULNL_COPY_PACKET;
    mode.copy_range = htonl(0xffff);
    ::mnl_attr_put(header, NFULA_CFG_MODE, sizeof(mode), &mode);
    ::mnl_attr_put_u16(header, NFULA_CFG_FLAGS, htons(NFULNL_CFG_F_SEQ));
    ::mnl_attr_put_u32(header, NFULA_CFG_QTHRESH, htonl(kQueueThreshold));
    ::mnl_attr_put_u32(header, NFULA_CFG_TIMEOUT, htonl(kFlushAfter));
  });
}

Result<std::size_t> Nflog::read(std::size_t max, const Visit& visit) {
  std::size_t told = 0;
  while (told < max) {
    const ssize_t n = ::recv(fd(), buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (n < 0 && (errno == EINTR || errno == ENOBUFS)) continue;  // the numbers show what was lost
    if (n < 0 && errno == EAGAIN) break;
    if (n < 0) return std::unexpected(Error::from_errno("read logged packets"));
    auto length = static_cast<int>(n);
    for (auto* message = reinterpret_cast<nlmsghdr*>(buffer_.data());
         ::mnl_nlmsg_ok(message, length); message = ::mnl_nlmsg_next(message, &length)) {
      if (message->nlmsg_type != ((NFNL_SUBSYS_ULOG << 8) | NFULNL_MSG_PACKET)) continue;
      Packet packet;
      for (const nlattr& attribute : Attributes::of(message)) {
        switch (type_of(attribute)) {
          case NFULA_PREFIX:
            packet.prefix = text_of(attribute);
            break;
          case NFULA_PAYLOAD:
            packet.payload = bytes_of(&attribute);
            break;
          case NFULA_UID:
            packet.uid = ntohl(number_of<std::uint32_t>(attribute));
            packet.has_uid = true;
            break;
          case NFULA_IFINDEX_INDEV:
            packet.in = ntohl(number_of<std::uint32_t>(attribute));
            break;
          case NFULA_SEQ: {
            const std::uint32_t number = ntohl(number_of<std::uint32_t>(attribute));
            lost_ += number - next_;  // modulo 2^32
            next_ = number + 1;
            break;
          }
          default:
            break;
        }
      }
      ++told;
      visit(packet);
    }
  }
  return told;
}

}  // namespace egressd::nft
