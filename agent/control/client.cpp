#include "control/client.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <thread>

namespace egressd::control {
namespace {

using Steady = std::chrono::steady_clock;
using Deadline = std::optional<Steady::time_point>;

// 0 if the deadline passed.
Result<int> wait_for(int fd, short events, const Deadline& deadline) {
  for (;;) {
    int left = -1;
    if (deadline) {
      const auto ms = std::chrono::ceil<std::chrono::milliseconds>(*deadline - Steady::now());
      left = static_cast<int>(std::clamp<std::chrono::milliseconds::rep>(ms.count(), 0, 1 << 30));
    }
    pollfd p{.fd = fd, .events = events, .revents = 0};
    const int n = ::poll(&p, 1, left);
    if (n >= 0) return n;
    if (errno != EINTR) return std::unexpected(Error::from_errno("poll"));
  }
}

Error timed_out(const std::string& what) { return Error::from_errno(what, ETIMEDOUT); }

}  // namespace

Result<Client> Client::request(const std::string& path, const Request& request,
                               std::chrono::milliseconds timeout) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path))
    return std::unexpected(Error::from_errno("connect to " + path, ENAMETOOLONG));
  std::ranges::copy(path, address.sun_path);

  const Deadline deadline = Steady::now() + timeout;
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return std::unexpected(Error::from_errno("socket"));
  // EAGAIN: the queue of the listener is full, and there is nothing to poll for.
  while (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return std::unexpected(Error::from_errno("connect to " + path));
    if (Steady::now() >= *deadline) return std::unexpected(timed_out("connect to " + path));
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }

  const std::string line = format_request(request) + "\n";
  std::size_t sent = 0;
  while (sent < line.size()) {
    const auto n = ::send(fd.get(), line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
    if (n >= 0) {
      sent += static_cast<std::size_t>(n);
    } else if (errno == EAGAIN) {
      const auto ready = wait_for(fd.get(), POLLOUT, deadline);
      if (!ready) return std::unexpected(ready.error());
      if (*ready == 0) return std::unexpected(timed_out("send to " + path));
    } else if (errno == EPIPE || errno == ECONNRESET) {
      break;  // refused before it was read whole: the answer says why
    } else if (errno != EINTR) {
      return std::unexpected(Error::from_errno("send to " + path));
    }
  }
  return Client(std::move(fd));
}

Result<std::optional<std::string>> Client::read_line(
    std::optional<std::chrono::milliseconds> timeout) {
  Deadline deadline;
  if (timeout) deadline = Steady::now() + *timeout;
  for (;;) {
    const auto newline = buffer_.find('\n', scanned_);
    if (newline != std::string::npos) {
      std::string line = buffer_.substr(0, newline);
      buffer_.erase(0, newline + 1);
      scanned_ = 0;
      return line;
    }
    scanned_ = buffer_.size();
    if (buffer_.size() > kMaxLine)
      return std::unexpected(Error::of("the daemon's line is too long"));

    std::array<char, 16384> chunk{};
    const auto n = ::recv(fd_.get(), chunk.data(), chunk.size(), 0);
    if (n > 0) {
      buffer_.append(chunk.data(), static_cast<std::size_t>(n));
    } else if (n == 0) {
      if (!buffer_.empty())
        return std::unexpected(Error::from_errno("the daemon's answer ends in half a line", EPIPE));
      return std::nullopt;
    } else if (errno == EAGAIN) {
      const auto ready = wait_for(fd_.get(), POLLIN, deadline);
      if (!ready) return std::unexpected(ready.error());
      if (*ready == 0) return std::unexpected(timed_out("read the daemon's answer"));
    } else if (errno != EINTR) {
      return std::unexpected(Error::from_errno("read the daemon's answer"));
    }
  }
}

}  // namespace egressd::control
