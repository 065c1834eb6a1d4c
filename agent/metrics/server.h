#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>

#include "base/event_loop.h"
#include "base/result.h"
#include "metrics/listen_address.h"
#include "metrics/pages.h"

namespace egressd::metrics {

// HTTP/1.1 for GET and HEAD inside the event loop, without threads: what it shows needs no lock,
// and that it answers is the proof that the loop turns. No TLS, no passwords: for loopback.
//
// Whoever connects can take little: a bounded number of connections, of bytes of header, and of
// time for each connection, however slowly it sends or reads. One request per connection.
class Server {
 public:
  struct Options {
    unsigned max_connections = 16;                 // others wait in the backlog
    std::size_t max_header = 8192;                 // bytes, roughly
    std::chrono::milliseconds max_lifetime{5000};  // of a connection, then it is cut
  };
  using Handler = std::function<Page(std::string_view path)>;

  // Errors: EADDRINUSE and the like. `handler` must not destroy the Server. The loop must outlive
  // it.
  static Result<std::unique_ptr<Server>> open(EventLoop& loop, const ListenAddress& listen,
                                              Options options, Handler handler);
  virtual ~Server() = default;

  [[nodiscard]] virtual std::uint16_t port() const = 0;  // host byte order
};

}  // namespace egressd::metrics
