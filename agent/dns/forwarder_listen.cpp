#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "dns/forwarder_core.h"

namespace egressd::dns {
namespace {

// Read at a time, so that others get their turn.
constexpr int kDatagramsPerRound = 64;
constexpr int kConnectionsPerRound = 16;
constexpr int kReceiveBuffer = 4 << 20;  // bytes; a burst waits there
// Descriptors the rest of the agent needs.
constexpr std::size_t kOtherDescriptors = 256;
// Above those that connect() takes by itself.
constexpr std::uint16_t kFirstPort = 61000;
constexpr std::uint16_t kPorts = 4096;

// The same with each start: conntrack sends a client that happens to have the source port of an
// earlier question, of the last half minute, to where that one went.
std::uint16_t usual_port(const Forwarder::Server& server) {
  std::uint32_t hash = 2166136261U ^ server.port;
  for (const std::uint8_t byte : server.address.bytes()) hash = (hash ^ byte) * 16777619U;
  return static_cast<std::uint16_t>(kFirstPort + (hash ^ hash >> 16) % kPorts);
}

}  // namespace

void ForwarderCore::give_back(std::unordered_map<std::uint64_t, std::size_t>& counts,
                              std::uint64_t key) {
  const auto it = counts.find(key);
  if (it != counts.end() && --it->second == 0) counts.erase(it);
}

ForwarderCore::~ForwarderCore() {
  for (const Listener& listener : listeners_) {
    if (listener.udp) loop_.unwatch(listener.udp.get());
    if (listener.tcp) loop_.unwatch(listener.tcp.get());
  }
  for (const auto& [number, pending] : pending_) {
    loop_.cancel(pending->timer);
    loop_.cancel(pending->next);
  }
}

Result<UniqueFd> ForwarderCore::listen_on(const Server& server, int type, std::uint16_t& port) {
  const bool v4 = server.address.is_v4();
  const net::IpAddress loopback = *net::IpAddress::parse(v4 ? "127.0.0.1" : "::1");
  const auto failed = [&](const char* what) {
    return std::unexpected(Error::from_errno(
        "DNS forwarder: cannot " + std::string(what) + " " + loopback.to_string() +
        (type == SOCK_DGRAM ? " (UDP)" : " (TCP)") + " for " + server.address.to_string()));
  };
  UniqueFd fd(::socket(v4 ? AF_INET : AF_INET6, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return failed("open a socket on");
  sockaddr_storage at{};
  socklen_t size = to_sockaddr(loopback, type == SOCK_DGRAM ? usual_port(server) : 0, at);
  if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&at), size) != 0) {
    size = to_sockaddr(loopback, 0, at);
    if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&at), size) != 0) return failed("bind to");
  }
  if (type == SOCK_STREAM && ::listen(fd.get(), 128) != 0) return failed("listen on");
  if (type == SOCK_DGRAM &&
      ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, &kReceiveBuffer, sizeof(int)) != 0)
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &kReceiveBuffer, sizeof(int));
  if (::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&at), &size) != 0)
    return failed("learn the port on");
  address_of(at, port);
  return fd;
}

Result<void> ForwarderCore::open() {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur != RLIM_INFINITY) {
    const std::size_t spare = files.rlim_cur > 2 * kOtherDescriptors
                                  ? files.rlim_cur - kOtherDescriptors
                                  : kOtherDescriptors;
    options_.max_connections = std::min<std::size_t>(options_.max_connections, spare / 4);
    options_.max_questions = std::min<std::size_t>(options_.max_questions, spare / 2);
  }
  unsent_->max = options_.max_unsent_of_all;
  listeners_.resize(options_.servers.size());
  for (std::size_t i = 0; i < listeners_.size(); ++i) {
    const Server& server = options_.servers[i];
    Port port{server.address, *net::IpAddress::parse(server.address.is_v4() ? "127.0.0.1" : "::1")};
    auto udp = listen_on(server, SOCK_DGRAM, port.udp);
    if (!udp) return std::unexpected(std::move(udp.error()));
    auto tcp = listen_on(server, SOCK_STREAM, port.tcp);
    if (!tcp) return std::unexpected(std::move(tcp.error()));
    listeners_[i].udp = std::move(*udp);
    socklen_t size = sizeof(listeners_[i].cookie);
    if (::getsockopt(listeners_[i].udp.get(), SOL_SOCKET, SO_COOKIE, &listeners_[i].cookie,
                     &size) != 0)
      return std::unexpected(Error::from_errno("DNS forwarder: cookie of a socket"));
    listeners_[i].tcp = std::move(*tcp);
    if (auto r = loop_.watch(listeners_[i].udp.get(), EPOLLIN,
                             [this, i](std::uint32_t) { read_datagrams(i); });
        !r)
      return r;
    if (auto r = loop_.watch(listeners_[i].tcp.get(), EPOLLIN,
                             [this, i](std::uint32_t) { accept_connections(i); });
        !r)
      return r;
    ports_.push_back(port);
  }
  return {};
}

void ForwarderCore::identify(Client& client, std::size_t listener) const {
  client.server = options_.servers[listener].address;
  client.key = std::hash<net::IpAddress>{}(client.address);
  if (callbacks_.identify) callbacks_.identify(client);
}

void ForwarderCore::read_datagrams(std::size_t listener) {
  std::array<std::uint8_t, 4096> buffer;  // no question is longer; a longer one is cut, malformed
  for (int i = 0; i < kDatagramsPerRound; ++i) {
    Way way{.listener = listener};
    socklen_t size = sizeof(way.peer);
    const ssize_t n = ::recvfrom(listeners_[listener].udp.get(), buffer.data(), buffer.size(), 0,
                                 reinterpret_cast<sockaddr*>(&way.peer), &size);
    if (n < 0) return;
    Client client;
    client.address = address_of(way.peer, client.port);
    on_message(std::span(buffer.data(), static_cast<std::size_t>(n)), client, way);
  }
}

void ForwarderCore::accept_connections(std::size_t listener) {
  for (int i = 0; i < kConnectionsPerRound; ++i) {
    sockaddr_storage peer{};
    socklen_t size = sizeof(peer);
    UniqueFd fd(::accept4(listeners_[listener].tcp.get(), reinterpret_cast<sockaddr*>(&peer), &size,
                          SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd) return;
    Client client;
    client.protocol = net::Protocol::Tcp;
    client.address = address_of(peer, client.port);
    identify(client, listener);
    std::size_t& connections = connections_of_[client.key];
    if (streams_.size() >= options_.max_connections ||
        connections >= options_.max_connections_of_client) {
      if (connections == 0) connections_of_.erase(client.key);
      ++counters_.connections_refused;
      continue;
    }
    const std::uint64_t number = next_++;
    Way way{.listener = listener, .stream = number};
    ClientStream::Handler handler{[this, client, way](std::span<const std::uint8_t> message) {
                                    on_message(message, client, way);
                                  },
                                  [this, number] {
                                    const auto it = streams_.find(number);
                                    if (it == streams_.end()) return;
                                    give_back(connections_of_, it->second.client.key);
                                    streams_.erase(it);
                                  }};
    auto stream = std::make_shared<ClientStream>(
        loop_, std::move(fd),
        ClientStream::Limits{options_.idle, options_.max_questions_of_connection,
                             options_.max_unsent},
        unsent_, std::move(handler));
    if (!stream->start()) {
      if (connections == 0) connections_of_.erase(client.key);
      ++counters_.connections_refused;
      continue;
    }
    ++connections;
    ++counters_.connections;
    streams_.emplace(number, Stream{std::move(stream), client});
  }
}

void ForwarderCore::send(const Way& way, const Client& client, const Message& message) {
  if (way.stream != 0) {
    const auto it = streams_.find(way.stream);
    if (it == streams_.end())
      ++counters_.unsent;
    else
      it->second.stream->answer(message);
    return;
  }
  if (callbacks_.answering) callbacks_.answering(listeners_[way.listener].cookie, client);
  const socklen_t size = way.peer.ss_family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
  if (::sendto(listeners_[way.listener].udp.get(), message.data(), message.size(), MSG_NOSIGNAL,
               reinterpret_cast<const sockaddr*>(&way.peer), size) < 0)
    ++counters_.unsent;
}

}  // namespace egressd::dns
