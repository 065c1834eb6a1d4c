#include "daemon/metrics_endpoint.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "base/unique_fd.h"

namespace egressd::daemon {
namespace {

using testing::HasSubstr;
using namespace std::chrono_literals;

class MetricsEndpointTest : public testing::Test {
 protected:
  void SetUp() override {
    loop = std::move(*EventLoop::create());
    // A free port, taken by somebody else until `other` is closed.
    other.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    to.sin_family = AF_INET;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(to);
    ASSERT_EQ(::bind(other.get(), reinterpret_cast<sockaddr*>(&to), length), 0);
    ASSERT_EQ(::listen(other.get(), 1), 0);
    ASSERT_EQ(::getsockname(other.get(), reinterpret_cast<sockaddr*>(&to), &length), 0);
  }
  Result<std::unique_ptr<MetricsEndpoint>> open(const std::string& listen) {
    return MetricsEndpoint::open(*loop, listen, [this] {
      metrics::Snapshot s;
      s.taken = clock.now();
      s.generation = ++taken;
      return s;
    });
  }
  std::string listen() const { return "127.0.0.1:" + std::to_string(ntohs(to.sin_port)); }
  std::string ask(const std::string& path) {
    const UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof(to)) != 0) return "";
    const std::string request = "GET " + path + " HTTP/1.0\r\n\r\n";
    (void)::send(fd.get(), request.data(), request.size(), MSG_NOSIGNAL);
    std::string all;
    for (const BootTime until = clock.now() + 5s; clock.now() < until;) {
      EXPECT_TRUE(loop->run_once(5ms));
      char buffer[65536];
      const ssize_t n = ::recv(fd.get(), buffer, sizeof(buffer), MSG_DONTWAIT);
      if (n == 0) break;
      if (n > 0) all.append(buffer, static_cast<std::size_t>(n));
    }
    return all;
  }

  std::unique_ptr<EventLoop> loop;
  SystemClock clock;
  UniqueFd other;
  sockaddr_in to{};
  std::uint32_t taken = 0;
};

TEST_F(MetricsEndpointTest, OffListensNowhereAndComplainsOfNothing) {
  other.reset();
  const auto endpoint = open("off");
  ASSERT_TRUE(endpoint);
  EXPECT_EQ((*endpoint)->error(), "");
  EXPECT_EQ(ask("/healthz"), "");
}

TEST_F(MetricsEndpointTest, WhatIsNoAddressIsRefused) {
  const auto endpoint = open("9477");
  ASSERT_FALSE(endpoint);
  EXPECT_THAT(endpoint.error().message, HasSubstr("--metrics-listen: '9477' is no ADDRESS:PORT"));
}

TEST_F(MetricsEndpointTest, APortInUseIsTriedAgain) {
  const auto endpoint = open(listen());
  ASSERT_TRUE(endpoint);
  EXPECT_THAT((*endpoint)->error(), HasSubstr("Address already in use"));
  other.reset();
  for (const BootTime until = clock.now() + 10s; !(*endpoint)->error().empty();) {
    ASSERT_LT(clock.now(), until);
    ASSERT_TRUE(loop->run_once(100ms));
  }
  EXPECT_THAT(ask("/healthz"), HasSubstr("200 OK"));
  EXPECT_EQ(taken, 0u);
}

TEST_F(MetricsEndpointTest, TheKernelIsAskedOnceASecondAtMost) {
  other.reset();
  const auto endpoint = open(listen());
  ASSERT_TRUE(endpoint);
  for (int i = 0; i < 20; ++i) {
    const BootTime before = clock.now();
    const std::string page = ask("/metrics");
    if (clock.now() - before < 500ms && i == 0) {
      EXPECT_THAT(page, HasSubstr("generation 1\n"));
    }
  }
  EXPECT_LE(taken, 2u);
  const BootTime until = clock.now() + 1s;
  while (clock.now() < until) ASSERT_TRUE(loop->run_once(50ms));
  const std::uint32_t before = taken;
  EXPECT_THAT(ask("/metrics"), HasSubstr("generation " + std::to_string(before + 1)));
}

}  // namespace
}  // namespace egressd::daemon
