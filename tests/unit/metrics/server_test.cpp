#include "metrics/server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "base/unique_fd.h"

namespace egressd::metrics {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;
using namespace std::chrono_literals;

// The loop runs in the test's thread, clients are non-blocking sockets.
class ServerTest : public testing::Test {
 protected:
  void SetUp() override { loop = std::move(*EventLoop::create()); }

  void start(Server::Options options = {}, const char* address = "127.0.0.1:0") {
    auto opened =
        Server::open(*loop, *ListenAddress::parse(address), options, [this](std::string_view path) {
          paths.emplace_back(path);
          return Page{.body = body};
        });
    ASSERT_TRUE(opened) << opened.error().message;
    server = std::move(*opened);
    ASSERT_NE(server->port(), 0);
  }

  UniqueFd connect() {
    UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(server->port());
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&to), sizeof(to)), 0);
    ::fcntl(fd.get(), F_SETFL, O_NONBLOCK);
    return fd;
  }
  static void send(const UniqueFd& fd, std::string_view text) {
    (void)::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL);
  }
  // Appends what there is; false once the other side has closed.
  static bool receive(const UniqueFd& fd, std::string& all) {
    char buffer[65536];
    const ssize_t n = ::recv(fd.get(), buffer, sizeof(buffer), 0);
    if (n > 0) all.append(buffer, static_cast<std::size_t>(n));
    return n > 0 || (n < 0 && errno == EAGAIN);
  }
  std::string ask(const std::string& request) {
    const UniqueFd fd = connect();
    send(fd, request);
    std::string all;
    const BootTime until = clock.now() + 5s;
    while (receive(fd, all)) {
      if (clock.now() > until) return all + " (not closed)";
      EXPECT_TRUE(loop->run_once(10ms));
    }
    return all;
  }

  std::unique_ptr<EventLoop> loop;
  std::unique_ptr<Server> server;
  SystemClock clock;
  std::string body = "hello\n";
  std::vector<std::string> paths;
};

TEST_F(ServerTest, GetIsAnsweredAndClosed) {
  start();
  const std::string reply = ask("GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(reply, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(reply, HasSubstr("Content-Length: 6\r\n"));
  EXPECT_THAT(reply, HasSubstr("Connection: close\r\n"));
  EXPECT_THAT(reply, EndsWith("\r\n\r\nhello\n"));
  EXPECT_THAT(paths, testing::ElementsAre("/metrics"));
}

TEST_F(ServerTest, HeadHasTheLengthButNoBody) {
  start();
  const std::string reply = ask("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(reply, HasSubstr("Content-Length: 6\r\n"));
  EXPECT_THAT(reply, EndsWith("\r\n\r\n"));
}

TEST_F(ServerTest, OtherMethodsAreRefused) {
  start();
  for (const char* method : {"POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get"}) {
    const std::string reply =
        ask(std::string(method) + " / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    EXPECT_THAT(reply, StartsWith("HTTP/1.1 405 ")) << method;
    EXPECT_THAT(reply, HasSubstr("Allow: GET, HEAD\r\n")) << method;
  }
  EXPECT_TRUE(paths.empty());
}

TEST_F(ServerTest, GarbageAndLongHeadersAreRefused) {
  start();
  EXPECT_THAT(ask("GET / HTTP/1.1\r\nHost: a\r\nX: " + std::string(20000, 'x') + "\r\n\r\n"),
              Not(HasSubstr("200 OK")));
  EXPECT_THAT(ask("GET /" + std::string(20000, 'x') + " HTTP/1.1\r\nHost: a\r\n\r\n"),
              Not(HasSubstr("200 OK")));
  EXPECT_THAT(ask(std::string("\x16\x03\x01\x00\x00\r\n\r\n", 9)), Not(HasSubstr("200 OK")));
  EXPECT_TRUE(paths.empty());
  EXPECT_THAT(ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), HasSubstr("200 OK"));
}

TEST_F(ServerTest, ALongBodyArrivesWhole) {
  start();
  body = std::string(4 << 20, 'b');
  const std::string reply = ask("GET / HTTP/1.0\r\n\r\n");
  EXPECT_EQ(reply.size() - reply.find("\r\n\r\n") - 4, body.size());
}

// Sends a byte now and then, for ever: no idle timeout would end that.
TEST_F(ServerTest, SlowClientsAreCutAndOthersServed) {
  start({.max_connections = 2, .max_lifetime = 200ms});
  std::vector<UniqueFd> slow;
  for (int i = 0; i < 2; ++i) {
    slow.push_back(connect());
    send(slow.back(), "GET / HTTP/1.1\r\nX: ");
  }
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(loop->run_once(10ms));
  const UniqueFd late = connect();
  send(late, "GET / HTTP/1.0\r\n\r\n");
  const BootTime begun = clock.now();
  std::string reply;
  while (receive(late, reply) && clock.now() < begun + 5s) {
    for (const UniqueFd& fd : slow) send(fd, "x");
    ASSERT_TRUE(loop->run_once(10ms));
  }
  EXPECT_THAT(reply, HasSubstr("200 OK"));
  EXPECT_GT(clock.now() - begun, 50ms);  // it had to wait for a place
  for (const UniqueFd& fd : slow) {
    std::string nothing;
    while (receive(fd, nothing) && clock.now() < begun + 5s) ASSERT_TRUE(loop->run_once(10ms));
    EXPECT_LT(clock.now(), begun + 5s) << nothing;
  }
}

// Neither does one who never reads what he asked for.
TEST_F(ServerTest, WhoDoesNotReadIsCut) {
  start({.max_connections = 1, .max_lifetime = 200ms});
  body = std::string(64 << 20, 'b');
  const UniqueFd deaf = connect();
  send(deaf, "GET / HTTP/1.0\r\n\r\n");
  while (paths.empty()) ASSERT_TRUE(loop->run_once(10ms));
  body = "short\n";
  EXPECT_THAT(ask("GET / HTTP/1.0\r\n\r\n"), EndsWith("short\n"));
}

TEST_F(ServerTest, AnAddressInUseIsAnError) {
  start();
  const auto second = Server::open(*loop, {*net::IpAddress::parse("127.0.0.1"), server->port()}, {},
                                   [](auto) { return Page{}; });
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, EADDRINUSE);
  EXPECT_THAT(second.error().message, HasSubstr("127.0.0.1:" + std::to_string(server->port())));
}

// With an open connection too: what an agent that ends leaves must not keep the next one out.
TEST_F(ServerTest, ThePortIsFreeAtOnceAfterTheEnd) {
  start();
  const std::uint16_t port = server->port();
  ask("GET / HTTP/1.0\r\n\r\n");
  const UniqueFd open = connect();
  ASSERT_TRUE(loop->run_once(10ms));
  const BootTime begun = clock.now();
  server.reset();
  EXPECT_LT(clock.now() - begun, 500ms);
  const auto again = Server::open(*loop, {*net::IpAddress::parse("127.0.0.1"), port}, {},
                                  [](auto) { return Page{}; });
  EXPECT_TRUE(again) << again.error().message;
}

TEST_F(ServerTest, Ipv6) { start({}, "[::1]:0"); }

}  // namespace
}  // namespace egressd::metrics
