#include "dns_traffic.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cstring>
#include <vector>

#include "dns_world.h"
#include "tests/support/dns_message.h"

namespace egressd::bench {
namespace {

constexpr std::uint16_t kDnsPort = 53;
// Nothing is lost on the way, but a machine that does other things may keep an answer waiting.
constexpr int kTurns = 60;
constexpr int kTurnMs = 1000;

sockaddr_in endpoint(std::uint32_t address, std::uint16_t port) {
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(address);
  at.sin_port = htons(port);
  return at;
}

Result<UniqueFd> bound(std::uint32_t address, std::uint16_t port) {
  UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const sockaddr_in at = endpoint(address, port);
  if (!fd || ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&at), sizeof(at)) != 0)
    return std::unexpected(Error::from_errno("listen on UDP port " + std::to_string(port)));
  return fd;
}

Result<UniqueFd> connected(std::uint32_t address, std::uint16_t port) {
  UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const sockaddr_in at = endpoint(address, port);
  if (!fd || ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&at), sizeof(at)) != 0)
    return std::unexpected(Error::from_errno("connect to UDP port " + std::to_string(port)));
  return fd;
}

bool exchange(int fd, const std::vector<std::uint8_t>& message) {
  std::array<std::uint8_t, 1500> answer{};
  if (::send(fd, message.data(), message.size(), 0) < 0) return false;
  pollfd ready{.fd = fd, .events = POLLIN, .revents = 0};
  for (int turn = 0; turn < kTurns && !interrupted(); ++turn) {
    if (::poll(&ready, 1, kTurnMs) == 1) return ::recv(fd, answer.data(), answer.size(), 0) > 0;
  }
  return false;
}

}  // namespace

Result<std::unique_ptr<Responder>> Responder::create(const Arena& arena, int cpu) {
  std::unique_ptr<Responder> responder(new Responder());
  if (auto r = arena.sink().ip("route add local 203.0.113.0/24 dev lo\n"); !r)
    return std::unexpected(r.error());
  auto r = arena.sink().inside([&]() -> Result<void> {
    auto dns = bound(kResolver, kDnsPort);
    if (!dns) return std::unexpected(dns.error());
    auto echo = bound(kServer, kEchoPort);
    if (!echo) return std::unexpected(echo.error());
    responder->dns_ = std::move(*dns);
    responder->echo_ = std::move(*echo);
    return {};
  });
  if (!r) return std::unexpected(r.error());
  responder->thread_ = std::thread([p = responder.get(), cpu] { p->serve(cpu); });
  return responder;
}

Responder::~Responder() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
}

void Responder::serve(int cpu) {
  pin_this_thread(cpu);
  std::array<std::uint8_t, 1500> message{};
  std::uint32_t given = kRealAddresses;
  while (!stop_) {
    std::array<pollfd, 2> ready = {{{.fd = dns_.get(), .events = POLLIN, .revents = 0},
                                    {.fd = echo_.get(), .events = POLLIN, .revents = 0}}};
    if (::poll(ready.data(), ready.size(), 50) <= 0) continue;
    for (const pollfd& from : ready) {
      if (from.revents == 0) continue;
      sockaddr_in peer{};
      socklen_t length = sizeof(peer);
      const ssize_t n = ::recvfrom(from.fd, message.data(), message.size(), 0,
                                   reinterpret_cast<sockaddr*>(&peer), &length);
      if (n < 12) continue;
      std::vector<std::uint8_t> answer(message.begin(), message.begin() + n);
      if (from.fd == dns_.get()) {
        test::DnsMessage record;
        record.pointer(12).a(300, public_address(++given));
        answer[2] = 0x81;
        answer[3] = 0x80;
        answer[7] = 1;
        answer.insert(answer.end(), record.bytes().begin(), record.bytes().end());
      }
      ::sendto(from.fd, answer.data(), answer.size(), 0, reinterpret_cast<const sockaddr*>(&peer),
               length);
    }
  }
}

Result<void> Client::open() {
  auto dns = connected(kResolver, kDnsPort);
  if (!dns) return std::unexpected(dns.error());
  auto to_echo = connected(kServer, kEchoPort);
  if (!to_echo) return std::unexpected(to_echo.error());
  dns_ = std::move(*dns);
  echo_ = std::move(*to_echo);
  return {};
}

bool Client::ask(const std::string& name, std::uint16_t id) {
  test::DnsMessage m;
  return exchange(dns_.get(), m.header(id, 0x0100, 1, 0).question(name).bytes());
}

bool Client::echo() { return exchange(echo_.get(), std::vector<std::uint8_t>(100)); }

}  // namespace egressd::bench
