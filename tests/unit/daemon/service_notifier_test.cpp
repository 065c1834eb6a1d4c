#include "daemon/service_notifier.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <cstring>
#include <thread>

namespace egressd::daemon {
namespace {

using testing::HasSubstr;
using testing::StartsWith;
using namespace std::chrono_literals;

// A service manager's end: a datagram socket at a path or an abstract address.
class ServiceNotifierTest : public testing::Test {
 protected:
  void SetUp() override {
    forget();
    loop_ = std::move(*EventLoop::create());
  }
  void TearDown() override {
    forget();
    if (path_[0] == '/') ::unlink(path_.c_str());
  }
  static void forget() {
    for (const char* name : {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}) ::unsetenv(name);
  }

  void listen(const std::string& path) {
    path_ = path;
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof(address.sun_path));
    if (path[0] == '@') address.sun_path[0] = '\0';
    const auto size = offsetof(sockaddr_un, sun_path) + path.size() + (path[0] == '@' ? 0 : 1);
    socket_ = UniqueFd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address),
                     static_cast<socklen_t>(size)),
              0)
        << std::strerror(errno);
    ::setenv("NOTIFY_SOCKET", path.c_str(), 1);
  }
  std::unique_ptr<ServiceNotifier> open() {
    auto manager = ServiceNotifier::open(*loop_);
    EXPECT_TRUE(manager.has_value()) << manager.error().message;
    return std::move(*manager);
  }
  // The next datagram; empty if none comes.
  std::string received(std::chrono::milliseconds wait = 0ms) {
    pollfd ready{socket_.get(), POLLIN, 0};
    if (::poll(&ready, 1, static_cast<int>(wait.count())) != 1) return "";
    char buffer[512];
    const auto n = ::recv(socket_.get(), buffer, sizeof(buffer), 0);
    return n < 0 ? "" : std::string(buffer, static_cast<std::size_t>(n));
  }
  static std::string name() { return "egressd-notify-" + std::to_string(::getpid()); }

  std::unique_ptr<EventLoop> loop_;
  UniqueFd socket_;
  std::string path_ = " ";
};

TEST_F(ServiceNotifierTest, TellsAPathEachStep) {
  listen(testing::TempDir() + name());
  auto manager = open();
  EXPECT_EQ(received(), "");
  manager->status("waits");
  EXPECT_EQ(received(), "STATUS=waits");
  manager->reloading();
  EXPECT_EQ(received(), "") << "what has not started does not reload";
  manager->ready("enforce");
  EXPECT_EQ(received(), "READY=1\nSTATUS=enforce");
  manager->reloading();
  EXPECT_THAT(received(), StartsWith("RELOADING=1\nMONOTONIC_USEC="));
  manager->ready("again");
  EXPECT_EQ(received(), "READY=1\nSTATUS=again");
  manager.reset();
  EXPECT_EQ(received(), "STOPPING=1");
}

TEST_F(ServiceNotifierTest, TellsAnAbstractAddress) {
  listen("@" + name());
  open()->ready("enforce");
  EXPECT_EQ(received(), "READY=1\nSTATUS=enforce");
  EXPECT_EQ(received(), "STOPPING=1");
}

TEST_F(ServiceNotifierTest, AnAgentThatNeverBeganDoesNotStop) {
  listen("@" + name());
  open().reset();
  EXPECT_EQ(received(), "");
}

TEST_F(ServiceNotifierTest, WithoutASocketNothingIsToldAndNoTimerRuns) {
  ::setenv("WATCHDOG_USEC", "20000", 1);
  auto manager = open();
  manager->status("waits");
  manager->ready("enforce");
  manager->reloading();
  const auto begun = std::chrono::steady_clock::now();
  ASSERT_TRUE(loop_->run_once(50ms).has_value());
  EXPECT_GE(std::chrono::steady_clock::now() - begun, 49ms) << "a timer woke the loop";
}

TEST_F(ServiceNotifierTest, FeedsTheWatchdogOnlyWhileTheLoopTurns) {
  listen("@" + name());
  ::setenv("WATCHDOG_USEC", "100000", 1);
  ::setenv("WATCHDOG_PID", std::to_string(::getpid()).c_str(), 1);
  auto manager = open();
  ASSERT_TRUE(loop_->run_once(60ms).has_value());
  EXPECT_EQ(received(), "") << "not while it starts";
  manager->ready("enforce");
  EXPECT_EQ(received(), "READY=1\nSTATUS=enforce");
  EXPECT_EQ(received(), "WATCHDOG=1");
  manager->ready("again");
  EXPECT_EQ(received(), "READY=1\nSTATUS=again");
  EXPECT_EQ(received(), "") << "one timer";
  // Stuck for longer than the watchdog waits.
  std::this_thread::sleep_for(120ms);
  EXPECT_EQ(received(), "");
  const auto begun = std::chrono::steady_clock::now();
  ASSERT_TRUE(loop_->run_once(1s).has_value());
  EXPECT_EQ(received(), "WATCHDOG=1");
  EXPECT_EQ(received(), "") << "once a turn";
  ASSERT_TRUE(loop_->run_once(1s).has_value());
  EXPECT_EQ(received(), "WATCHDOG=1");
  EXPECT_GE(std::chrono::steady_clock::now() - begun, 49ms) << "half of the time";
}

TEST_F(ServiceNotifierTest, LeavesAWatchdogOfAnotherProcessAlone) {
  listen("@" + name());
  ::setenv("WATCHDOG_USEC", "20000", 1);
  ::setenv("WATCHDOG_PID", "1", 1);
  auto manager = open();
  manager->ready("enforce");
  EXPECT_EQ(received(), "READY=1\nSTATUS=enforce");
  ASSERT_TRUE(loop_->run_once(30ms).has_value());
  EXPECT_EQ(received(), "");
}

TEST_F(ServiceNotifierTest, GoesOnWhenNobodyListensAndIsHeardByWhoComesLater) {
  ::setenv("NOTIFY_SOCKET", ("@" + name()).c_str(), 1);
  auto manager = open();
  manager->ready("enforce");
  listen("@" + name());
  manager->ready("enforce");
  EXPECT_EQ(received(), "READY=1\nSTATUS=enforce");
}

TEST_F(ServiceNotifierTest, AnAddressOfNoUseIsAnError) {
  for (const std::string& bad : {std::string("vsock:2:1"), std::string("@"), std::string("/"),
                                 "/" + std::string(200, 'x')}) {
    ::setenv("NOTIFY_SOCKET", bad.c_str(), 1);
    const auto manager = ServiceNotifier::open(*loop_);
    ASSERT_FALSE(manager.has_value()) << bad;
    EXPECT_THAT(manager.error().message, HasSubstr("NOTIFY_SOCKET"));
  }
}

}  // namespace
}  // namespace egressd::daemon
