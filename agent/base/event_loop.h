#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <unordered_map>

#include "base/clock.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace egressd {

// One epoll set and one timer list: the only place the agent waits. Single-threaded; every
// callback runs on the thread inside run() and must not block.
class EventLoop {
 public:
  using FdCallback = std::function<void(std::uint32_t events)>;  // EPOLL* bits
  using TimerCallback = std::function<void()>;
  using TimerId = std::uint64_t;  // 0 is never a live timer

  static Result<std::unique_ptr<EventLoop>> create();

  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Calls `callback` when `fd` has one of `events`. Watching an fd again replaces events and
  // callback. The loop does not own the fd: unwatch() before closing it.
  Result<void> watch(int fd, std::uint32_t events, FdCallback callback);
  void unwatch(int fd);

  // Calls `callback` once, `delay` from now (not earlier).
  TimerId after(std::chrono::nanoseconds delay, TimerCallback callback);
  void cancel(TimerId id);

  // Runs until stop(). Fails only when epoll itself does.
  Result<void> run();
  // One round: waits at most `timeout`, dispatches what is ready.
  Result<void> run_once(std::chrono::milliseconds timeout);
  void stop() { stopped_ = true; }

 private:
  explicit EventLoop(UniqueFd epoll) : epoll_(std::move(epoll)) {}
  void fire_timers();

  UniqueFd epoll_;
  SystemClock clock_;
  bool stopped_ = false;
  TimerId next_id_ = 1;
  // shared_ptr: a callback may unwatch() itself while it runs.
  std::unordered_map<int, std::shared_ptr<FdCallback>> watches_;
  std::map<std::pair<BootTime, TimerId>, TimerCallback> timers_;
  std::unordered_map<TimerId, BootTime> deadlines_;
};

}  // namespace egressd
