#include "dns/client_stream.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <utility>

namespace egressd::dns {
namespace {

// At a time, so that others get their turn.
constexpr std::size_t kChunk = 16384;
// Sent bytes are kept so long, rather than moving the rest with each.
constexpr std::size_t kForgetSent = 65536;

bool would_block() { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

}  // namespace

ClientStream::~ClientStream() { close(); }

bool ClientStream::start() {
  active_ = clock_.now();
  watched_ = EPOLLIN;
  const auto watched =
      loop_.watch(socket_.get(), EPOLLIN, [weak = weak_from_this()](std::uint32_t events) {
        if (const auto self = weak.lock()) self->on_events(events);
      });
  if (watched) rest();
  return watched.has_value();
}

void ClientStream::rest() {
  timer_ = loop_.after(std::max(active_ + limits_.idle - clock_.now(), BootTime(0)),
                       [weak = weak_from_this()] {
                         const auto self = weak.lock();
                         if (!self) return;
                         self->timer_ = 0;
                         // Questions under way have an end of their own.
                         if (self->waiting_ != 0) self->active_ = self->clock_.now();
                         if (self->clock_.now() - self->active_ >= self->limits_.idle)
                           self->broken_ = true;
                         else
                           self->rest();
                         self->go_on();
                       });
}

void ClientStream::on_events(std::uint32_t events) {
  if ((events & EPOLLERR) != 0) broken_ = true;
  if (!broken_ && (events & EPOLLOUT) != 0 && !send_rest()) broken_ = true;
  // A hang-up without anything to read comes with EPOLLIN only where that is watched.
  if (!broken_ && (events & (EPOLLIN | EPOLLHUP)) != 0 && !read()) broken_ = true;
  go_on();
}

bool ClientStream::read() {
  std::array<std::uint8_t, kChunk> chunk;
  const ssize_t n = ::recv(socket_.get(), chunk.data(), chunk.size(), 0);
  if (n < 0) return would_block();
  if (n == 0)
    ended_ = true;
  else
    in_.insert(in_.end(), chunk.begin(), chunk.begin() + n);
  return true;
}

void ClientStream::take_whole() {
  taking_ = true;
  std::size_t at = 0;
  while (!broken_ && has_room() && in_.size() - at >= 2) {
    const std::size_t size = static_cast<std::size_t>(in_[at]) << 8 | in_[at + 1];
    if (in_.size() - at - 2 < size) break;
    ++waiting_;
    active_ = clock_.now();
    handler_.on_message(std::span(in_).subspan(at + 2, size));
    at += 2 + size;
  }
  in_.erase(in_.begin(), in_.begin() + static_cast<std::ptrdiff_t>(at));
  taking_ = false;
}

void ClientStream::answer(const Message& message) {
  if (waiting_ == 0 || !socket_) return;
  --waiting_;
  if (message.empty()) {
    broken_ = true;
  } else {
    out_.push_back(static_cast<std::uint8_t>(message.size() >> 8));
    out_.push_back(static_cast<std::uint8_t>(message.size()));
    out_.insert(out_.end(), message.begin(), message.end());
  }
  if (taking_) return;
  if (!broken_ && !send_rest()) broken_ = true;
  // What is left to do is done from the loop: it may close the stream under whoever answers.
  loop_.after(BootTime(0), [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->go_on();
  });
}

bool ClientStream::send_rest() {
  bool alive = true;
  while (sent_ < out_.size()) {
    const ssize_t n = ::send(socket_.get(), out_.data() + sent_, out_.size() - sent_, MSG_NOSIGNAL);
    if (n < 0) {
      alive = would_block();
      break;
    }
    sent_ += static_cast<std::size_t>(n);
  }
  forget_sent();
  return alive && (out_.empty() || budget_->used <= budget_->max);
}

void ClientStream::forget_sent() {
  while (whole_ < sent_) {
    // Single bytes now and then do not hold a connection.
    const std::size_t size = static_cast<std::size_t>(out_[whole_]) << 8 | out_[whole_ + 1];
    if (whole_ + 2 + size > sent_) break;
    whole_ += 2 + size;
    active_ = clock_.now();
  }
  if (sent_ == out_.size() || whole_ >= kForgetSent) {
    out_.erase(out_.begin(), out_.begin() + static_cast<std::ptrdiff_t>(whole_));
    sent_ -= whole_;
    whole_ = 0;
  }
  budget_->used += out_.size() - counted_;
  counted_ = out_.size();
}

void ClientStream::go_on() {
  if (!socket_) return;
  if (!broken_) {
    take_whole();
    if (!send_rest()) broken_ = true;
  }
  const bool over = ended_ && waiting_ == 0 && out_.empty();
  if (broken_ || over) {
    close();
    const auto on_closed = std::move(handler_.on_closed);
    if (on_closed) on_closed();
    return;
  }
  const std::uint32_t wanted = (ended_ || !has_room() ? 0u : static_cast<std::uint32_t>(EPOLLIN)) |
                               (out_.empty() ? 0u : static_cast<std::uint32_t>(EPOLLOUT));
  if (wanted == watched_) return;
  watched_ = wanted;
  // Of nothing the loop still tells errors and hang-ups: those would come again and again.
  if (wanted == 0) {
    loop_.unwatch(socket_.get());
    return;
  }
  if (!loop_.watch(socket_.get(), wanted, [weak = weak_from_this()](std::uint32_t events) {
        if (const auto self = weak.lock()) self->on_events(events);
      }))
    broken_ = true;  // the idle timer ends it
}

void ClientStream::close() {
  budget_->used -= std::exchange(counted_, 0);
  loop_.cancel(std::exchange(timer_, 0));
  if (!socket_) return;
  loop_.unwatch(socket_.get());
  socket_.reset();
}

}  // namespace egressd::dns
