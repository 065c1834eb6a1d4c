#pragma once

#include <chrono>
#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <string>

#include "base/event_loop.h"
#include "dns/query.h"
#include "net/endpoint.h"
#include "net/ip_address.h"

struct sockaddr_storage;

namespace egressd::dns {

// Returns the size of what it wrote. `port` in host byte order.
std::uint32_t to_sockaddr(const net::IpAddress& address, std::uint16_t port, sockaddr_storage& to);
net::IpAddress address_of(const sockaddr_storage& from, std::uint16_t& port);

// One question to one server, from a source port and under an id of its own: what a forger would
// have to guess. Destroying it gives it up; its callback is the last thing it does.
class Exchange {
 public:
  struct Target {
    net::IpAddress server;
    std::uint16_t port = 53;  // host byte order
    net::Protocol protocol = net::Protocol::Udp;
    std::uint32_t mark = 0;  // SO_MARK of the socket; 0: none
    std::chrono::nanoseconds timeout{0};
    std::uint32_t* wrong =
        nullptr;  // of this server, counts answers by UDP under another id; outlives it
  };
  // Answers by UDP under another id come from somebody who guesses: after kMaxWrong of them,
  // over all questions, no answer by UDP is believed.
  enum class Failure { Silence, Unreachable, Guessed };
  static constexpr std::uint32_t kMaxWrong = 8;
  using Outcome = std::expected<Message, Failure>;  // the answer under the exchange's own id
  using Callback = std::function<void(Outcome)>;

  // `query` must outlive it. nullptr if no socket can be had or the server cannot be reached at
  // all, with errno set; else the callback comes from the loop.
  static std::unique_ptr<Exchange> start(EventLoop& loop, const Target& target, const Query& query,
                                         Callback callback);
  ~Exchange();
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

 private:
  Exchange(EventLoop& loop, const Query& query, Callback callback)
      : loop_(loop), query_(query), callback_(std::move(callback)) {}
  bool open(const Target& target);
  void on_udp();
  void on_tcp(std::uint32_t events);
  bool send_rest();
  void read_stream();
  void finish(Outcome outcome);

  EventLoop& loop_;
  const Query& query_;
  Callback callback_;
  UniqueFd socket_;
  EventLoop::TimerId timer_ = 0;
  std::uint16_t id_ = 0;
  std::uint32_t own_wrong_ = 0;
  std::uint32_t* wrong_ = &own_wrong_;
  // TCP: with its length in front.
  Message out_;
  std::size_t sent_ = 0;
  Message in_;
};

}  // namespace egressd::dns
