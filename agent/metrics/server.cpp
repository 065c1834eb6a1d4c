#include "metrics/server.h"

#include <arpa/inet.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "base/unique_fd.h"

namespace egressd::metrics {
namespace {

constexpr int kBacklog = 64;

// An IPv4 address as such: a v4-mapped one would need a socket of both families.
socklen_t fill(sockaddr_storage& storage, const ListenAddress& listen) {
  const auto& bytes = listen.address.bytes();
  if (listen.address.is_v4()) {
    sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_port = htons(listen.port);
    std::memcpy(&in.sin_addr, bytes.data() + 12, sizeof(in.sin_addr));
    std::memcpy(&storage, &in, sizeof(in));
    return sizeof(in);
  }
  sockaddr_in6 in{};
  in.sin6_family = AF_INET6;
  in.sin6_port = htons(listen.port);
  std::memcpy(&in.sin6_addr, bytes.data(), sizeof(in.sin6_addr));
  std::memcpy(&storage, &in, sizeof(in));
  return sizeof(in);
}

Result<UniqueFd> listen_on(const ListenAddress& listen) {
  sockaddr_storage storage{};
  const socklen_t length = fill(storage, listen);
  UniqueFd fd(::socket(storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return std::unexpected(Error::from_errno("socket"));
  const int one = 1;
  // What an earlier agent's connections left in TIME_WAIT is no reason to wait.
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  if (storage.ss_family == AF_INET6)
    ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&storage), length) != 0 ||
      ::listen(fd.get(), kBacklog) != 0)
    return std::unexpected(Error::from_errno("listen on " + listen.to_string()));
  return fd;
}

class ServerImpl final : public Server {
 public:
  ServerImpl(EventLoop& loop, Options options, Handler handler)
      : loop_(loop), options_(options), handler_(std::move(handler)) {}
  ~ServerImpl() override {
    loop_.cancel(timer_);
    if (epoll_fd_ >= 0) loop_.unwatch(epoll_fd_);
    if (http_ != nullptr) ::MHD_stop_daemon(http_);
  }
  ServerImpl(const ServerImpl&) = delete;
  ServerImpl& operator=(const ServerImpl&) = delete;

  Result<void> open(const ListenAddress& listen);
  [[nodiscard]] std::uint16_t port() const override { return port_; }

 private:
  struct Open {
    int fd = -1;
    BootTime deadline{0};
  };

  static MHD_Result on_request(void* self, MHD_Connection* connection, const char* url,
                               const char* method, const char* version, const char* body,
                               std::size_t* body_size, void** context);
  static void on_connection(void* self, MHD_Connection* connection, void** context,
                            MHD_ConnectionNotificationCode what);
  MHD_Result answer(MHD_Connection* connection, const Page& page);
  void run();

  EventLoop& loop_;
  Options options_;
  Handler handler_;
  MHD_Daemon* http_ = nullptr;
  int epoll_fd_ = -1;  // the library's: what all its sockets wait for
  std::uint16_t port_ = 0;
  EventLoop::TimerId timer_ = 0;
  SystemClock clock_;
  std::map<MHD_Connection*, Open> open_;
  bool closed_ = false;  // a connection, in this round
};

Result<void> ServerImpl::open(const ListenAddress& listen) {
  auto fd = listen_on(listen);
  if (!fd) return std::unexpected(std::move(fd.error()));
  sockaddr_storage bound{};
  socklen_t length = sizeof(bound);
  if (::getsockname(fd->get(), reinterpret_cast<sockaddr*>(&bound), &length) != 0)
    return std::unexpected(Error::from_errno("getsockname"));
  // At the same place in both families.
  port_ = ntohs(reinterpret_cast<const sockaddr_in&>(bound).sin_port);
  http_ = ::MHD_start_daemon(MHD_USE_EPOLL, 0, nullptr, nullptr, &ServerImpl::on_request, this,
                             MHD_OPTION_LISTEN_SOCKET, fd->get(),                      //
                             MHD_OPTION_CONNECTION_LIMIT, options_.max_connections,    //
                             MHD_OPTION_CONNECTION_MEMORY_LIMIT, options_.max_header,  //
                             MHD_OPTION_NOTIFY_CONNECTION, &ServerImpl::on_connection, this,
                             MHD_OPTION_END);
  if (http_ == nullptr) return std::unexpected(Error::of("the HTTP library does not start"));
  (void)fd->release();  // closed by the library
  const auto* info = ::MHD_get_daemon_info(http_, MHD_DAEMON_INFO_EPOLL_FD);
  if (info == nullptr) return std::unexpected(Error::of("the HTTP library has no epoll set"));
  if (auto r = loop_.watch(info->epoll_fd, EPOLLIN, [this](std::uint32_t) { run(); }); !r) return r;
  epoll_fd_ = info->epoll_fd;
  return {};
}

// One round: what is ready is read, answered and written, without waiting.
void ServerImpl::run() {
  const BootTime now = clock_.now();
  // Cut, not closed: the library finds out, in this round or the next, and closes.
  for (const auto& [connection, open] : open_) {
    if (open.deadline <= now) ::shutdown(open.fd, SHUT_RDWR);
  }
  closed_ = false;
  ::MHD_run(http_);
  std::optional<std::chrono::nanoseconds> next;
  for (const auto& [connection, open] : open_) {
    // Those just cut need no timer: their end is an event.
    if (open.deadline > now && (!next || open.deadline - now < *next)) next = open.deadline - now;
  }
  // At its limit it listens no more, and again only when it is run after one has gone.
  if (closed_) next = std::chrono::nanoseconds(0);
  // Zero: it has read more than it has dealt with, of which epoll knows nothing.
  MHD_UNSIGNED_LONG_LONG wait_ms = 0;
  if (::MHD_get_timeout(http_, &wait_ms) == MHD_YES) {
    const auto wait = std::chrono::milliseconds(wait_ms);
    if (!next || wait < *next) next = wait;
  }
  loop_.cancel(std::exchange(timer_, 0));
  if (!next) return;
  timer_ = loop_.after(*next, [this] {
    timer_ = 0;
    run();
  });
}

void ServerImpl::on_connection(void* self, MHD_Connection* connection, void** /*context*/,
                               MHD_ConnectionNotificationCode what) {
  auto& server = *static_cast<ServerImpl*>(self);
  if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
    server.open_.erase(connection);
    server.closed_ = true;
    return;
  }
  const auto* info = ::MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
  if (info == nullptr) return;
  server.open_[connection] = {info->connect_fd, server.clock_.now() + server.options_.max_lifetime};
}

MHD_Result ServerImpl::answer(MHD_Connection* connection, const Page& page) {
  std::string body = page.body;
  MHD_Response* response =
      ::MHD_create_response_from_buffer(body.size(), body.data(), MHD_RESPMEM_MUST_COPY);
  if (response == nullptr) return MHD_NO;
  ::MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, page.type.c_str());
  ::MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
  if (page.status == MHD_HTTP_METHOD_NOT_ALLOWED)
    ::MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
  const MHD_Result result = ::MHD_queue_response(connection, page.status, response);
  ::MHD_destroy_response(response);
  return result;
}

MHD_Result ServerImpl::on_request(void* self, MHD_Connection* connection, const char* url,
                                  const char* method, const char* /*version*/, const char* /*body*/,
                                  std::size_t* /*body_size*/, void** /*context*/) {
  auto& server = *static_cast<ServerImpl*>(self);
  const std::string_view wanted = method;
  if (wanted != MHD_HTTP_METHOD_GET && wanted != MHD_HTTP_METHOD_HEAD)
    return server.answer(connection,
                         {.status = MHD_HTTP_METHOD_NOT_ALLOWED, .body = "only GET and HEAD\n"});
  return server.answer(connection, server.handler_(url));
}

}  // namespace

Result<std::unique_ptr<Server>> Server::open(EventLoop& loop, const ListenAddress& listen,
                                             Options options, Handler handler) {
  auto server = std::make_unique<ServerImpl>(loop, options, std::move(handler));
  if (auto r = server->open(listen); !r) return std::unexpected(std::move(r.error()));
  return server;
}

}  // namespace egressd::metrics
