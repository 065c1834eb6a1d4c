#include "dns/exchange.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace egressd::dns {
namespace {

// RFC 9715: fits every path, so that nothing comes in fragments, which are easy to forge.
constexpr std::uint16_t kUdpSize = 1232;

// Read at a time, so that others get their turn.
constexpr int kDatagramsPerRound = 64;

// Once for all: one thread, and nobody keeps it.
std::array<std::uint8_t, 65536>& receive_buffer() {
  static std::array<std::uint8_t, 65536> buffer;
  return buffer;
}

bool would_block() { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

}  // namespace

std::uint32_t to_sockaddr(const net::IpAddress& address, std::uint16_t port, sockaddr_storage& to) {
  std::memset(&to, 0, sizeof(to));
  const auto& bytes = address.bytes();
  if (address.is_v4()) {
    auto& sa = reinterpret_cast<sockaddr_in&>(to);
    sa.sin_family = AF_INET;
    sa.sin_port = htons(port);
    std::memcpy(&sa.sin_addr, bytes.data() + 12, sizeof(sa.sin_addr));
    return sizeof(sa);
  }
  auto& sa = reinterpret_cast<sockaddr_in6&>(to);
  sa.sin6_family = AF_INET6;
  sa.sin6_port = htons(port);
  std::memcpy(&sa.sin6_addr, bytes.data(), sizeof(sa.sin6_addr));
  return sizeof(sa);
}

net::IpAddress address_of(const sockaddr_storage& from, std::uint16_t& port) {
  if (from.ss_family == AF_INET) {
    const auto& sa = reinterpret_cast<const sockaddr_in&>(from);
    port = ntohs(sa.sin_port);
    return net::IpAddress::from(sa.sin_addr);
  }
  const auto& sa = reinterpret_cast<const sockaddr_in6&>(from);
  port = ntohs(sa.sin6_port);
  return net::IpAddress::from(sa.sin6_addr);
}

std::unique_ptr<Exchange> Exchange::start(EventLoop& loop, const Target& target, const Query& query,
                                          Callback callback) {
  std::unique_ptr<Exchange> exchange(new Exchange(loop, query, std::move(callback)));
  if (!exchange->open(target)) return nullptr;
  return exchange;
}

Exchange::~Exchange() {
  loop_.cancel(timer_);
  if (socket_) loop_.unwatch(socket_.get());
}

bool Exchange::open(const Target& target) {
  const bool tcp = target.protocol == net::Protocol::Tcp;
  if (target.wrong != nullptr) wrong_ = target.wrong;
  if (::getrandom(&id_, sizeof(id_), 0) != static_cast<ssize_t>(sizeof(id_))) return false;
  socket_ = UniqueFd(::socket(target.server.is_v4() ? AF_INET : AF_INET6,
                              (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket_) return false;
  if (target.mark != 0 &&
      ::setsockopt(socket_.get(), SOL_SOCKET, SO_MARK, &target.mark, sizeof(target.mark)) != 0)
    return false;
  sockaddr_storage to{};
  const socklen_t size = to_sockaddr(target.server, target.port, to);
  if (::connect(socket_.get(), reinterpret_cast<sockaddr*>(&to), size) != 0 && errno != EINPROGRESS)
    return false;
  const Message message = upstream_query(query_, id_, kUdpSize);
  if (tcp) {
    const int on = 1;
    ::setsockopt(socket_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    out_ = {static_cast<std::uint8_t>(message.size() >> 8),
            static_cast<std::uint8_t>(message.size())};
    out_.insert(out_.end(), message.begin(), message.end());
  } else if (::send(socket_.get(), message.data(), message.size(), MSG_NOSIGNAL) < 0 &&
             !would_block()) {
    return false;
  }
  const auto watched =
      loop_.watch(socket_.get(), tcp ? EPOLLOUT : EPOLLIN, [this, tcp](std::uint32_t events) {
        if (tcp)
          on_tcp(events);
        else
          on_udp();
      });
  if (!watched) {
    errno = watched.error().code;
    socket_.reset();
    return false;
  }
  timer_ = loop_.after(target.timeout, [this] {
    timer_ = 0;
    finish(std::unexpected(Failure::Silence));
  });
  return true;
}

void Exchange::on_udp() {
  auto& buffer = receive_buffer();
  for (int i = 0; i < kDatagramsPerRound; ++i) {
    const ssize_t n = ::recv(socket_.get(), buffer.data(), buffer.size(), 0);
    if (n < 0) {
      if (!would_block()) finish(std::unexpected(Failure::Unreachable));
      return;
    }
    const std::span message(buffer.data(), static_cast<std::size_t>(n));
    // A forger who is wrong does not end the wait for the right one, but has few guesses.
    const bool other_id = n < 2 || (message[0] << 8 | message[1]) != id_;
    if (other_id && *wrong_ < kMaxWrong) ++*wrong_;
    if (*wrong_ >= kMaxWrong) {
      finish(std::unexpected(Failure::Guessed));
      return;
    }
    if (answers(message, query_, id_)) {
      finish(Message(message.begin(), message.end()));
      return;
    }
  }
}

void Exchange::on_tcp(std::uint32_t events) {
  if (sent_ < out_.size()) {
    if (!send_rest()) {
      finish(std::unexpected(Failure::Unreachable));
      return;
    }
    if (sent_ == out_.size() &&
        !loop_.watch(socket_.get(), EPOLLIN, [this](std::uint32_t e) { on_tcp(e); }))
      finish(std::unexpected(Failure::Unreachable));
    return;
  }
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) read_stream();
}

bool Exchange::send_rest() {
  const ssize_t n = ::send(socket_.get(), out_.data() + sent_, out_.size() - sent_, MSG_NOSIGNAL);
  if (n < 0) return would_block();
  sent_ += static_cast<std::size_t>(n);
  return true;
}

void Exchange::read_stream() {
  auto& buffer = receive_buffer();
  const ssize_t n = ::recv(socket_.get(), buffer.data(), buffer.size(), 0);
  if (n < 0 && would_block()) return;
  if (n <= 0) {
    finish(std::unexpected(Failure::Unreachable));
    return;
  }
  in_.insert(in_.end(), buffer.begin(), buffer.begin() + n);
  if (in_.size() < 2) return;
  const std::size_t size = static_cast<std::size_t>(in_[0]) << 8 | in_[1];
  if (in_.size() < 2 + size) return;
  Message message(in_.begin() + 2, in_.begin() + 2 + static_cast<std::ptrdiff_t>(size));
  // There is nothing else to be said on this connection.
  if (answers(message, query_, id_))
    finish(std::move(message));
  else
    finish(std::unexpected(Failure::Unreachable));
}

void Exchange::finish(Outcome outcome) {
  loop_.cancel(std::exchange(timer_, 0));
  loop_.unwatch(socket_.get());
  socket_.reset();
  const Callback callback = std::move(callback_);
  callback(std::move(outcome));
}

}  // namespace egressd::dns
