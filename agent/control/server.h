#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/event_loop.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "control/message.h"

namespace egressd::control {

struct Connection;

// The answering end of one request. Copies stand for the same connection and may be kept beyond
// the handler; once the connection is gone every call does nothing.
class Responder {
 public:
  Responder() = default;  // of no connection

  // Queues a line (without newline). When the client has not read kMaxBuffered bytes, the line is
  // dropped instead and a {"dropped":N} line says so later. A line is never cut, and the first
  // one always fits.
  void send(std::string_view line);
  // Calls `next` for line after line as the client reads, until it returns false: an answer of
  // any length in bounded memory. The connection is closed after the last. What `next` holds
  // lives until then, or until the client goes.
  void stream(std::function<bool(std::string& line)> next);
  // Leaves the connection open after the handler returns; for watchers.
  void keep_open();
  // Closes as soon as everything queued is written. Without keep_open() or stream() the server
  // does it when the handler returns.
  void close();
  [[nodiscard]] bool is_open() const { return !connection_.expired(); }

 private:
  friend class Server;
  explicit Responder(std::weak_ptr<Connection> connection) : connection_(std::move(connection)) {}
  std::weak_ptr<Connection> connection_;
};

// Responders that all get the same lines.
class Watchers {
 public:
  void add(const Responder& responder);
  void broadcast(std::string_view line);
  // Those still connected. Forgets the rest.
  std::size_t size();
  // For daemons that make a line only if somebody wants it; may count one that has just left.
  [[nodiscard]] bool empty() const { return responders_.empty(); }

 private:
  std::vector<Responder> responders_;
};

// The daemon's end of protocol.md. Runs inside the event loop, never blocks, and no client can
// make it keep more than kMaxClients times the two buffers.
class Server {
 public:
  using Handler = std::function<void(const Request&, Responder&)>;

  static constexpr std::size_t kMaxClients = 32;
  static constexpr std::size_t kMaxBuffered = 256u << 10;

  struct Options {
    std::string path = kDefaultSocket;
    // To send the request after connecting, as a whole.
    std::chrono::milliseconds request_timeout{5000};
    // For a client that has its answer but reads nothing of it. Watchers are not timed.
    std::chrono::milliseconds drain_timeout{30000};
  };

  // Makes the socket's directory (0755, the last component only) if it is not there, and the
  // socket (0600). A socket file that nobody listens on any more is replaced; one that a live
  // daemon holds is an error, as is a directory in which others could replace the socket.
  // `loop` must outlive the server. The file is removed on destruction.
  static Result<std::unique_ptr<Server>> open(EventLoop& loop, Options options, Handler handler);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  [[nodiscard]] std::size_t clients() const { return connections_.size(); }

 private:
  friend struct Connection;
  Server(EventLoop& loop, Options options, Handler handler);

  Result<void> listen();
  Result<void> watch_listener();
  void accept_some();
  void admit(UniqueFd fd);
  void on_ready(int fd, std::uint32_t events);
  void read_request(const std::shared_ptr<Connection>& connection);
  void handle(const std::shared_ptr<Connection>& connection, std::string_view line);
  void drop(int fd);

  EventLoop& loop_;
  Options options_;
  Handler handler_;
  UniqueFd lock_;
  UniqueFd listener_;
  std::uint64_t socket_device_ = 0;
  std::uint64_t socket_inode_ = 0;
  EventLoop::TimerId accept_again_ = 0;
  std::unordered_map<int, std::shared_ptr<Connection>> connections_;
};

}  // namespace egressd::control
