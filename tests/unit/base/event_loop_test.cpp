#include "base/event_loop.h"

#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <unistd.h>

namespace egressd {
namespace {

using std::chrono::milliseconds;

TEST(EventLoop, ReadableFdCallsItsCallback) {
  auto loop = EventLoop::create();
  ASSERT_TRUE(loop);
  int fds[2];
  ASSERT_EQ(::pipe(fds), 0);
  UniqueFd read_end(fds[0]);
  UniqueFd write_end(fds[1]);
  int calls = 0;
  ASSERT_TRUE((*loop)->watch(read_end.get(), EPOLLIN, [&](std::uint32_t) {
    ++calls;
    (*loop)->unwatch(read_end.get());  // from inside its own callback
  }));
  ASSERT_EQ(::write(write_end.get(), "x", 1), 1);
  ASSERT_TRUE((*loop)->run_once(milliseconds(1000)));
  ASSERT_TRUE((*loop)->run_once(milliseconds(0)));
  EXPECT_EQ(calls, 1);
}

TEST(EventLoop, TimersFireInOrderAndCancelledOnesDoNot) {
  auto loop = EventLoop::create();
  ASSERT_TRUE(loop);
  std::string order;
  (*loop)->after(milliseconds(20), [&] {
    order += 'b';
    (*loop)->stop();
  });
  (*loop)->after(milliseconds(5), [&] { order += 'a'; });
  const auto cancelled = (*loop)->after(milliseconds(1), [&] { order += 'x'; });
  (*loop)->cancel(cancelled);
  ASSERT_TRUE((*loop)->run());
  EXPECT_EQ(order, "ab");
}

TEST(EventLoop, TimerThatSetsItselfDoesNotStarveTheLoop) {
  auto loop = EventLoop::create();
  ASSERT_TRUE(loop);
  int fired = 0;
  std::function<void()> again = [&] {
    ++fired;
    (*loop)->after(milliseconds(0), again);
  };
  (*loop)->after(milliseconds(0), again);
  ASSERT_TRUE((*loop)->run_once(milliseconds(10)));
  EXPECT_EQ(fired, 1);
}

}  // namespace
}  // namespace egressd
