#include "enforce/nft_sockets.h"

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <tuple>
#include <utility>

#include "enforce/cgroup.h"

namespace egressd::enforce::frame {
namespace {

namespace fs = std::filesystem;

// nf_conntrack_tcp_timeout_established
constexpr std::chrono::hours kOldConnection{5 * 24};

// Where connect() takes ports from.
std::pair<std::uint16_t, std::uint16_t> ephemeral_ports() {
  std::pair<std::uint16_t, std::uint16_t> range{32768, 60999};  // the kernel's own
  std::ifstream("/proc/sys/net/ipv4/ip_local_port_range") >> range.first >> range.second;
  return range;
}

}  // namespace

Result<Scope> scope_of(const std::string& path) {
  const auto mount = find_cgroup2_mount();
  if (!mount) return std::unexpected(mount.error());
  std::error_code ec;
  const fs::path real = fs::canonical(path, ec);
  if (ec) return std::unexpected(Error{ec.value(), "open cgroup " + path + ": " + ec.message()});
  const fs::path root = fs::canonical(*mount, ec);
  const fs::path below = real.lexically_relative(root);
  if (below.empty() || *below.begin() == "..")
    return std::unexpected(Error::of(path + " is not below " + *mount + ", where cgroup v2 is"));
  Scope scope;
  if (below == ".") return scope;
  const auto id = cgroup_id(path);
  if (!id) return std::unexpected(id.error());
  scope.whole_host = false;
  scope.level = static_cast<std::uint32_t>(std::distance(below.begin(), below.end()));
  scope.cgroup_id = *id;
  return scope;
}

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

}  // namespace egressd::enforce::frame
