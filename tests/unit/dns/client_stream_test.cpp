#include "dns/client_stream.h"

#include "forwarder_fixture.h"

namespace egressd::dns {
namespace {

class ClientStreamFixture : public testing::Test {
 protected:
  ClientStreamFixture() : loop_(std::move(*EventLoop::create())) {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    client_ = UniqueFd(ends[0]);
    UniqueFd socket(ends[1]);
    const int small = 4096;
    ::setsockopt(socket.get(), SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    stream_ = std::make_shared<ClientStream>(
        *loop_, std::move(socket), ClientStream::Limits{std::chrono::milliseconds(300), 64, 65536},
        budget_,
        ClientStream::Handler{[this](std::span<const std::uint8_t>) { stream_->answer(reply_); },
                              [this] { closed_ = true; }});
    EXPECT_TRUE(stream_->start());
  }
  void ask() const {
    static const Message questions(4000, 0);  // of no bytes each
    ::send(client_.get(), questions.data(), questions.size(), MSG_NOSIGNAL);
  }
  std::size_t take(std::size_t size) const {
    Message in(size);
    const ssize_t n = ::recv(client_.get(), in.data(), in.size(), 0);
    return n < 0 ? 0 : static_cast<std::size_t>(n);
  }

  std::unique_ptr<EventLoop> loop_;
  std::shared_ptr<ClientStream::Budget> budget_ =
      std::make_shared<ClientStream::Budget>(ClientStream::Budget{.max = 1 << 20});
  UniqueFd client_;
  std::shared_ptr<ClientStream> stream_;
  Message reply_ = Message(1000, 7);
  bool closed_ = false;
};

TEST_F(ClientStreamFixture, WhoReadsSteadilyButNeverAllDoesNotMakeItGrow) {
  std::size_t taken = 0;
  std::size_t most = 0;
  for (int i = 0; i < 20000 && taken < (2u << 20); ++i) {
    ask();
    ASSERT_TRUE(loop_->run_once(std::chrono::milliseconds(0)));
    taken += take(700);
    most = std::max(most, budget_->used);
  }
  EXPECT_GE(taken, 2u << 20);
  EXPECT_FALSE(closed_);
  EXPECT_GT(most, 60000u);
  EXPECT_LT(most, 65536u * 2 + 2 * 1002);
}

TEST_F(ClientStreamFixture, AllStreamsTogetherHoldSoMuch) {
  budget_->used = budget_->max;  // by others
  ask();
  for (int i = 0; i < 20 && !closed_; ++i)
    ASSERT_TRUE(loop_->run_once(std::chrono::milliseconds(5)));
  EXPECT_TRUE(closed_);
  EXPECT_EQ(budget_->used, budget_->max);
}

TEST_F(ClientStreamFixture, SingleBytesDoNotHoldAConnection) {
  reply_ = Message(60000, 7);
  ask();
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(900);
  while (!closed_ && std::chrono::steady_clock::now() < end) {
    ASSERT_TRUE(loop_->run_once(std::chrono::milliseconds(20)));
    take(300);
  }
  EXPECT_TRUE(closed_);
  EXPECT_EQ(budget_->used, 0u);
}

}  // namespace
}  // namespace egressd::dns
