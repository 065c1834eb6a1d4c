#pragma once

#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "dns/exchange.h"
#include "dns/forwarder.h"
#include "tests/support/dns_message.h"

namespace egressd::dns {

using test::DnsMessage;

inline net::IpAddress ip(std::string_view text) { return *net::IpAddress::parse(text); }

// A question as clients ask it; with EDNS if `udp_size` is not 0.
inline Message question(std::uint16_t id, std::string_view name, std::uint16_t type = 1,
                        std::uint16_t udp_size = 0) {
  DnsMessage message;
  message.header(id, 0x0100, 1, 0, 0, udp_size == 0 ? 0 : 1).question(name, type);
  if (udp_size != 0) message.u8(0).u16(41).u16(udp_size).u32(0).u16(0);
  return message.bytes();
}

inline std::uint16_t id_of(const Message& m) {
  return static_cast<std::uint16_t>(m[0] << 8 | m[1]);
}
inline int answers_in(const Message& m) { return m[6] << 8 | m[7]; }

// A socket of this test, bound to loopback or connected there.
class TestSocket {
 public:
  TestSocket(int type, std::uint16_t bind_port, std::uint16_t to_port = 0,
             const char* from = "127.0.0.1") {
    fd = UniqueFd(::socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    const int on = 1;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    sockaddr_storage at{};
    socklen_t size = to_sockaddr(ip(from), bind_port, at);
    EXPECT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&at), size), 0);
    EXPECT_EQ(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&at), &size), 0);
    address_of(at, port);
    if (to_port == 0) return;
    size = to_sockaddr(ip("127.0.0.1"), to_port, at);
    const int r = ::connect(fd.get(), reinterpret_cast<sockaddr*>(&at), size);
    EXPECT_TRUE(r == 0 || errno == EINPROGRESS);
  }
  void send(const Message& message) const {
    EXPECT_EQ(::send(fd.get(), message.data(), message.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(message.size()));
  }

  UniqueFd fd;
  std::uint16_t port = 0;
};

// A port that is free for UDP and TCP: other tests run beside this one.
inline std::uint16_t port_for_both() {
  for (int i = 0; i < 100; ++i) {
    const UniqueFd udp(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const UniqueFd tcp(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_storage at{};
    socklen_t size = to_sockaddr(ip("127.0.0.1"), 0, at);
    if (::bind(udp.get(), reinterpret_cast<sockaddr*>(&at), size) != 0) continue;
    ::getsockname(udp.get(), reinterpret_cast<sockaddr*>(&at), &size);
    if (::bind(tcp.get(), reinterpret_cast<sockaddr*>(&at), size) != 0) continue;
    std::uint16_t port = 0;
    address_of(at, port);
    return port;
  }
  return 0;
}

// A name server that does as it is told, on 127.0.0.1, by UDP and TCP on one port.
class PuppetServer {
 public:
  // What goes back: nothing, one message or several (the id is filled in).
  using Behave = std::function<std::vector<Message>(const Message& asked, bool tcp)>;

  PuppetServer(EventLoop& loop, Behave behave)
      : loop_(loop),
        behave_(std::move(behave)),
        udp_(SOCK_DGRAM, port_for_both()),
        tcp_(SOCK_STREAM, udp_.port) {
    EXPECT_EQ(::listen(tcp_.fd.get(), 64), 0);
    EXPECT_TRUE(loop_.watch(udp_.fd.get(), EPOLLIN, [this](std::uint32_t) { on_udp(); }));
    EXPECT_TRUE(loop_.watch(tcp_.fd.get(), EPOLLIN, [this](std::uint32_t) { on_accept(); }));
  }
  ~PuppetServer() {
    loop_.unwatch(udp_.fd.get());
    loop_.unwatch(tcp_.fd.get());
    for (const auto& fd : connections_) loop_.unwatch(fd.get());
  }
  PuppetServer(const PuppetServer&) = delete;
  PuppetServer& operator=(const PuppetServer&) = delete;

  [[nodiscard]] std::uint16_t port() const { return udp_.port; }
  std::vector<Message> asked;
  std::vector<std::uint16_t> asked_from;  // source ports, UDP

 private:
  void on_udp() {
    std::array<std::uint8_t, 4096> in;
    sockaddr_storage from{};
    socklen_t size = sizeof(from);
    ssize_t n = 0;
    while ((n = ::recvfrom(udp_.fd.get(), in.data(), in.size(), 0,
                           reinterpret_cast<sockaddr*>(&from), &size)) > 0) {
      asked.emplace_back(in.begin(), in.begin() + n);
      std::uint16_t port = 0;
      address_of(from, port);
      asked_from.push_back(port);
      for (const Message& m : behave_(Message(asked.back()), false))
        ::sendto(udp_.fd.get(), m.data(), m.size(), 0, reinterpret_cast<sockaddr*>(&from), size);
    }
  }
  void on_accept() {
    UniqueFd fd(::accept4(tcp_.fd.get(), nullptr, nullptr, SOCK_CLOEXEC));
    const int raw = fd.get();
    EXPECT_TRUE(loop_.watch(raw, EPOLLIN, [this, raw](std::uint32_t) {
      std::array<std::uint8_t, 4096> in;
      const ssize_t n = ::recv(raw, in.data(), in.size(), 0);
      if (n <= 2) {
        loop_.unwatch(raw);
        return;
      }
      asked.emplace_back(in.begin() + 2, in.begin() + n);
      for (const Message& m : behave_(Message(asked.back()), true)) {
        Message out{static_cast<std::uint8_t>(m.size() >> 8), static_cast<std::uint8_t>(m.size())};
        out.insert(out.end(), m.begin(), m.end());
        ::send(raw, out.data(), out.size(), MSG_NOSIGNAL);
      }
    }));
    connections_.push_back(std::move(fd));
  }

  EventLoop& loop_;
  Behave behave_;
  TestSocket udp_;
  TestSocket tcp_;
  std::vector<UniqueFd> connections_;
};

// The message asked, as an answer with these flags and as many records as `records` says.
inline Message answer_to(const Message& asked, std::uint16_t flags = 0x8180, int records = 0) {
  Message m = asked;
  m[2] = static_cast<std::uint8_t>(flags >> 8);
  m[3] = static_cast<std::uint8_t>(flags);
  m[10] = m[11] = 0;
  // Without the OPT record: the question ends 4 bytes behind the root label.
  std::size_t at = 12;
  while (m[at] != 0) at += m[at] + std::size_t{1};
  m.resize(at + 5);
  m[6] = static_cast<std::uint8_t>(records >> 8);
  m[7] = static_cast<std::uint8_t>(records);
  return m;
}

inline Message with_addresses(const Message& asked, int count, std::uint32_t first = 0xcb007101,
                              std::uint32_t ttl = 30) {
  DnsMessage m;
  m.bytes() = answer_to(asked, 0x8180, count);
  for (int i = 0; i < count; ++i) m.pointer(12).a(ttl, first + static_cast<std::uint32_t>(i));
  return m.bytes();
}

class ForwarderFixture : public testing::Test {
 protected:
  ForwarderFixture() : loop_(std::move(*EventLoop::create())) {
    options_.timeout = std::chrono::milliseconds(150);
    options_.deadline = std::chrono::milliseconds(1000);
    callbacks_.judge = [this](const Forwarder::Asked& asked) {
      judged_.push_back(asked.name);
      return asked.name.ends_with("bad.test") ? Forwarder::Judgement::Refuse
                                              : Forwarder::Judgement::Ask;
    };
    callbacks_.learn = [this](const Answer& answer, Forwarder::Done done) {
      learned_.push_back(answer);
      if (hold_)
        held_.push_back(std::move(done));
      else
        done({});
    };
    callbacks_.finished = [this](const Forwarder::Asked&, const Forwarder::Finished& finished) {
      finished_.push_back(finished);
    };
  }

  void create(std::initializer_list<std::uint16_t> ports) {
    for (const std::uint16_t port : ports)
      options_.servers.push_back({ip("127.0.0.1"), port, false});
    auto forwarder = Forwarder::create(*loop_, options_, callbacks_);
    ASSERT_TRUE(forwarder) << forwarder.error().message;
    forwarder_ = std::move(*forwarder);
  }
  bool run_until(const std::function<bool()>& done,
                 std::chrono::milliseconds limit = std::chrono::seconds(10)) {
    const auto end = std::chrono::steady_clock::now() + limit;
    while (!done()) {
      if (std::chrono::steady_clock::now() > end) return false;
      if (!loop_->run_once(std::chrono::milliseconds(5))) return false;
    }
    return true;
  }
  void run_for(std::chrono::milliseconds span) {
    run_until([] { return false; }, span);
  }
  TestSocket udp_client(const char* from = "127.0.0.1") {
    return {SOCK_DGRAM, 0, forwarder_->ports()[0].udp, from};
  }
  // The next message, empty if none comes in time.
  Message receive(const TestSocket& socket,
                  std::chrono::milliseconds limit = std::chrono::seconds(5)) {
    std::array<std::uint8_t, 65536> in;
    ssize_t n = -1;
    run_until([&] { return (n = ::recv(socket.fd.get(), in.data(), in.size(), 0)) >= 0; }, limit);
    return n < 0 ? Message() : Message(in.begin(), in.begin() + n);
  }
  Message ask(const Message& message) {
    const TestSocket client = udp_client();
    client.send(message);
    return receive(client);
  }
  // By TCP: everything the connection gives until it has `count` messages or ends.
  std::vector<Message> receive_stream(const TestSocket& socket, std::size_t count) {
    std::vector<Message> got;
    Message in;
    run_until([&] {
      std::array<std::uint8_t, 65536> chunk;
      const ssize_t n = ::recv(socket.fd.get(), chunk.data(), chunk.size(), 0);
      if (n == 0) return true;
      if (n > 0) in.insert(in.end(), chunk.begin(), chunk.begin() + n);
      for (;;) {
        if (in.size() < 2) break;
        const std::size_t size = static_cast<std::size_t>(in[0]) << 8 | in[1];
        if (in.size() < 2 + size) break;
        got.emplace_back(in.begin() + 2, in.begin() + 2 + static_cast<std::ptrdiff_t>(size));
        in.erase(in.begin(), in.begin() + 2 + static_cast<std::ptrdiff_t>(size));
      }
      return got.size() >= count;
    });
    return got;
  }
  TestSocket tcp_client() {
    TestSocket client(SOCK_STREAM, 0, forwarder_->ports()[0].tcp);
    run_for(std::chrono::milliseconds(5));
    return client;
  }
  static Message framed(const Message& message) {
    Message out{static_cast<std::uint8_t>(message.size() >> 8),
                static_cast<std::uint8_t>(message.size())};
    out.insert(out.end(), message.begin(), message.end());
    return out;
  }

  std::unique_ptr<EventLoop> loop_;
  Forwarder::Options options_;
  Forwarder::Callbacks callbacks_;
  std::vector<std::string> judged_;
  std::vector<Answer> learned_;
  std::vector<Forwarder::Finished> finished_;
  bool hold_ = false;
  std::vector<Forwarder::Done> held_;
  std::unique_ptr<Forwarder> forwarder_;
};

}  // namespace egressd::dns
