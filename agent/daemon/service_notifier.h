#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <memory>
#include <string>
#include <string_view>

#include "base/event_loop.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace egressd::daemon {

// What the agent tells whoever started it (sd_notify(3)): ready, reloading, stopping, alive. The
// protocol is a datagram of NAME=value lines to the socket NOTIFY_SOCKET names. Without that
// variable every call does nothing.
class ServiceNotifier {
 public:
  // Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID. If a watchdog is asked for, it is told
  // "alive" from the first ready() on, by a timer of `loop` at half its time: not while a callback
  // hangs. The socket is opened here, so that confine() may come after. `loop` must outlive the
  // object.
  // An error is a NOTIFY_SOCKET of no use: a service of Type=notify would never count as started.
  static Result<std::unique_ptr<ServiceNotifier>> open(EventLoop& loop);
  // Says that it is stopping, if it was ready.
  ~ServiceNotifier();
  ServiceNotifier(const ServiceNotifier&) = delete;
  ServiceNotifier& operator=(const ServiceNotifier&) = delete;

  // The policy is in force and attached, or a reload is over; `status` is one line for a person.
  void ready(std::string_view status);
  // Until the next ready(). Does nothing before the first: a service that starts does not reload.
  void reloading();
  // Before ready(): what it waits for.
  void status(std::string_view text);

 private:
  ServiceNotifier(EventLoop& loop, UniqueFd socket, const sockaddr_un& to, socklen_t size)
      : loop_(loop), socket_(std::move(socket)), to_(to), size_(size) {}
  void send(const std::string& lines) const;
  void feed();

  EventLoop& loop_;
  UniqueFd socket_;  // none: nobody to tell
  sockaddr_un to_;
  socklen_t size_;
  bool ready_ = false;
  std::chrono::microseconds feed_every_{0};
  EventLoop::TimerId timer_ = 0;
};

}  // namespace egressd::daemon
