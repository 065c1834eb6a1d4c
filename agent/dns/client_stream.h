#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "base/clock.h"
#include "base/event_loop.h"
#include "base/unique_fd.h"
#include "dns/query.h"

namespace egressd::dns {

// One TCP connection of a client (RFC 7766): questions come one behind the other, answers go back
// in whatever order they are given. What a client does not take, or asks too fast, is not read.
class ClientStream : public std::enable_shared_from_this<ClientStream> {
 public:
  struct Limits {
    std::chrono::nanoseconds idle{0};  // without a whole question, and with nothing to answer
    std::size_t max_waiting = 0;       // questions without an answer
    std::size_t max_unsent = 0;        // bytes; above, no question is read
  };
  // Bytes that all streams hold together. The one whose client leaves an answer untaken when they
  // are too many is closed.
  struct Budget {
    std::size_t max = 0;
    std::size_t used = 0;
  };
  struct Handler {
    // Each needs one answer(), from inside or later.
    std::function<void(std::span<const std::uint8_t>)> on_message;
    std::function<void()> on_closed;  // the last call; not from inside answer()
  };

  ClientStream(EventLoop& loop, UniqueFd socket, Limits limits, std::shared_ptr<Budget> budget,
               Handler handler)
      : loop_(loop),
        socket_(std::move(socket)),
        limits_(limits),
        budget_(std::move(budget)),
        handler_(std::move(handler)) {}
  ~ClientStream();
  ClientStream(const ClientStream&) = delete;
  ClientStream& operator=(const ClientStream&) = delete;

  // False if it cannot be watched.
  bool start();
  // An empty one ends the connection.
  void answer(const Message& message);

 private:
  void on_events(std::uint32_t events);
  bool read();  // false: the connection is over
  void take_whole();
  bool send_rest();  // false: the connection is over
  void forget_sent();
  // Also closes what is over, and goes on with what waits in in_.
  void go_on();
  void rest();
  void close();
  [[nodiscard]] bool has_room() const {
    return waiting_ < limits_.max_waiting && out_.size() - sent_ <= limits_.max_unsent;
  }

  EventLoop& loop_;
  SystemClock clock_;
  UniqueFd socket_;
  Limits limits_;
  std::shared_ptr<Budget> budget_;
  Handler handler_;
  EventLoop::TimerId timer_ = 0;
  BootTime active_{0};
  std::uint32_t watched_ = 0;
  std::size_t waiting_ = 0;
  bool ended_ = false;   // by the client: it asks no more
  bool taking_ = false;  // answers given from inside on_message() wait for their turn
  bool broken_ = false;
  Message in_;
  Message out_;
  std::size_t sent_ = 0;
  std::size_t whole_ = 0;    // of sent_, in whole answers
  std::size_t counted_ = 0;  // in budget_
};

}  // namespace egressd::dns
