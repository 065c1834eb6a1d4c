#include "enforce/nft_old_connections.h"

#include <chrono>
#include <fstream>
#include <tuple>
#include <utility>

#include "enforce/nft_frame.h"
#include "net/ip_address.h"

namespace egressd::enforce {
namespace {

// nf_conntrack_tcp_timeout_established
constexpr std::chrono::hours kOldConnection{5 * 24};

// Where connect() takes ports from.
std::pair<std::uint16_t, std::uint16_t> ephemeral_ports() {
  std::pair<std::uint16_t, std::uint16_t> range{32768, 60999};  // the kernel's own
  std::ifstream("/proc/sys/net/ipv4/ip_local_port_range") >> range.first >> range.second;
  return range;
}

}  // namespace

std::set<std::uint16_t> served_ports(const std::vector<nft::OpenSocket>& open) {
  std::set<std::uint16_t> ports;
  for (const nft::OpenSocket& socket : open) {
    if (socket.listening) ports.insert(socket.port);
  }
  return ports;
}

void add_old_connections(nft::Batch& batch, const std::vector<nft::OpenSocket>& open) {
  const std::set<std::uint16_t> served = served_ports(open);
  const auto [first, last] = ephemeral_ports();
  std::set<std::tuple<bool, net::IpAddress, net::Protocol, std::uint16_t>> added;
  for (const nft::OpenSocket& socket : open) {
    if (socket.peer_port == 0 || socket.listening) continue;
    // A listener may be closed by now; it is seldom where connect() takes its ports from.
    const bool accepted =
        socket.protocol == net::Protocol::Tcp &&
        (served.contains(socket.port) || socket.port < first || socket.port > last);
    if (!added.emplace(accepted, socket.peer, socket.protocol, socket.port).second) continue;
    const bool v4 = socket.peer.is_v4();
    const auto key = nft::KeyBytes::of(socket.peer, socket.protocol, socket.port);
    batch.add_element(accepted ? frame::accepted(v4) : frame::ours(v4),
                      {.key = key.bytes(), .timeout = kOldConnection});
  }
}

}  // namespace egressd::enforce
