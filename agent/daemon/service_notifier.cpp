#include "daemon/service_notifier.h"

#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <optional>
#include <utility>

namespace egressd::daemon {
namespace {

std::string_view variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// Half the time it is given; 0: no watchdog, or another process is meant.
std::chrono::microseconds watchdog_interval() {
  const auto limit = number(variable("WATCHDOG_USEC"));
  const auto pid = variable("WATCHDOG_PID");
  if (!limit || (!pid.empty() && number(pid) != static_cast<std::uint64_t>(::getpid())))
    return std::chrono::microseconds(0);
  return std::chrono::microseconds(*limit / 2);
}

}  // namespace

Result<std::unique_ptr<ServiceNotifier>> ServiceNotifier::open(EventLoop& loop) {
  const std::string_view path = variable("NOTIFY_SOCKET");
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  if (path.empty())
    return std::unique_ptr<ServiceNotifier>(new ServiceNotifier(loop, UniqueFd(), to, 0));
  // '@' stands for the zero byte of an abstract address, which has no terminating one.
  if ((path[0] != '/' && path[0] != '@') || path.size() < 2 || path.size() >= sizeof(to.sun_path))
    return std::unexpected(
        Error::of("NOTIFY_SOCKET is neither a path nor an abstract address; unset it, or start "
                  "egressd as a service of Type=notify"));
  std::memcpy(to.sun_path, path.data(), path.size());
  if (path[0] == '@') to.sun_path[0] = '\0';
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  // What is told must arrive, but a service manager that hangs must not hang the agent for long.
  const timeval second{.tv_sec = 1, .tv_usec = 0};
  if (!socket || ::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &second, sizeof(second)) != 0)
    return std::unexpected(Error::from_errno("open a socket to the service manager"));
  std::unique_ptr<ServiceNotifier> manager(
      new ServiceNotifier(loop, std::move(socket), to, path[0] == '@' ? size : size + 1));
  manager->feed_every_ = watchdog_interval();
  return manager;
}

ServiceNotifier::~ServiceNotifier() {
  loop_.cancel(timer_);
  if (ready_) send("STOPPING=1");
}

void ServiceNotifier::ready(std::string_view status) {
  send("READY=1\nSTATUS=" + std::string(status));
  // Not before: the first word would start the watchdog while the start itself still takes its
  // time.
  if (!std::exchange(ready_, true) && feed_every_.count() != 0) feed();
}

void ServiceNotifier::reloading() {
  if (!ready_) return;
  // The time tells this reload from an earlier one (Type=notify-reload).
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  const auto microseconds = static_cast<std::int64_t>(now.tv_sec) * 1'000'000 +
                            static_cast<std::int64_t>(now.tv_nsec) / 1000;
  send("RELOADING=1\nMONOTONIC_USEC=" + std::to_string(microseconds));
}

void ServiceNotifier::status(std::string_view text) { send("STATUS=" + std::string(text)); }

// The address goes with every datagram: the socket's other end may be made anew meanwhile. One
// that is lost is missed by the service manager alone, which then does what its unit says.
void ServiceNotifier::send(const std::string& lines) const {
  if (!socket_) return;
  while (::sendto(socket_.get(), lines.data(), lines.size(), MSG_NOSIGNAL,
                  reinterpret_cast<const sockaddr*>(&to_), size_) < 0 &&
         errno == EINTR) {
  }
}

void ServiceNotifier::feed() {
  send("WATCHDOG=1");
  timer_ = loop_.after(feed_every_, [this] { feed(); });
}

}  // namespace egressd::daemon
