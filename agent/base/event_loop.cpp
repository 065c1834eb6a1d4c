#include "base/event_loop.h"

#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace egressd {

Result<std::unique_ptr<EventLoop>> EventLoop::create() {
  UniqueFd fd(::epoll_create1(EPOLL_CLOEXEC));
  if (!fd) return std::unexpected(Error::from_errno("epoll_create1"));
  return std::unique_ptr<EventLoop>(new EventLoop(std::move(fd)));
}

Result<void> EventLoop::watch(int fd, std::uint32_t events, FdCallback callback) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  const int op = watches_.contains(fd) ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
  if (::epoll_ctl(epoll_.get(), op, fd, &event) != 0)
    return std::unexpected(Error::from_errno("epoll_ctl"));
  watches_[fd] = std::make_shared<FdCallback>(std::move(callback));
  return {};
}

void EventLoop::unwatch(int fd) {
  if (watches_.erase(fd) != 0) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

EventLoop::TimerId EventLoop::after(std::chrono::nanoseconds delay, TimerCallback callback) {
  const TimerId id = next_id_++;
  const BootTime deadline = clock_.now() + std::max(delay, std::chrono::nanoseconds(0));
  timers_.emplace(std::pair(deadline, id), std::move(callback));
  deadlines_.emplace(id, deadline);
  return id;
}

void EventLoop::cancel(TimerId id) {
  const auto it = deadlines_.find(id);
  if (it == deadlines_.end()) return;
  timers_.erase({it->second, id});
  deadlines_.erase(it);
}

void EventLoop::fire_timers() {
  const BootTime now = clock_.now();
  // A timer set by a callback fires in a later round, so that file descriptors get their turn.
  const TimerId first_new = next_id_;
  for (auto it = timers_.begin(); it != timers_.end() && it->first.first <= now;) {
    if (it->first.second >= first_new) {
      ++it;
      continue;
    }
    TimerCallback callback = std::move(it->second);
    deadlines_.erase(it->first.second);
    timers_.erase(it);
    callback();
    it = timers_.begin();  // the callback may have changed the list
  }
}

Result<void> EventLoop::run_once(std::chrono::milliseconds timeout) {
  if (!timers_.empty()) {
    const auto left = timers_.begin()->first.first - clock_.now();
    timeout = std::clamp(std::chrono::ceil<std::chrono::milliseconds>(left),
                         std::chrono::milliseconds(0), timeout);
  }
  std::array<epoll_event, 64> events{};
  const int n = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()),
                             static_cast<int>(timeout.count()));
  if (n < 0 && errno != EINTR) return std::unexpected(Error::from_errno("epoll_wait"));
  for (int i = 0; i < n; ++i) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    // Looked up afresh: an earlier callback of this round may have unwatched it.
    const auto it = watches_.find(event.data.fd);
    if (it == watches_.end()) continue;
    const std::shared_ptr<FdCallback> callback = it->second;
    (*callback)(event.events);
  }
  fire_timers();
  return {};
}

Result<void> EventLoop::run() {
  stopped_ = false;
  while (!stopped_) {
    if (auto r = run_once(std::chrono::hours(1)); !r) return r;
  }
  return {};
}

}  // namespace egressd
