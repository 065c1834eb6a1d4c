#include "control/server.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <utility>

namespace egressd::control {
namespace {

// A stream is asked for more lines below this, and works through this many buffers a round.
constexpr std::size_t kStreamLow = 64u << 10;
constexpr int kRoundsPerFlush = 16;
constexpr int kAcceptsPerRound = 16;
// After accept() failed for want of descriptors: the listener stays readable, so look away.
constexpr std::chrono::seconds kAcceptPause{1};

std::string directory_of(const std::string& path) {
  const auto slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

Result<void> prepare_directory(const std::string& dir) {
  if (::mkdir(dir.c_str(), 0755) == 0) {
    // Whatever the umask: the socket's own mode is what keeps others out.
    if (::chmod(dir.c_str(), 0755) != 0)
      return std::unexpected(Error::from_errno("set mode of " + dir));
  } else if (errno != EEXIST) {
    return std::unexpected(Error::from_errno("create directory " + dir));
  }
  struct stat st{};
  if (::stat(dir.c_str(), &st) != 0) return std::unexpected(Error::from_errno("stat " + dir));
  if (!S_ISDIR(st.st_mode)) return std::unexpected(Error::from_errno(dir, ENOTDIR));
  const bool ours = st.st_uid == 0 || st.st_uid == ::geteuid();
  const bool writable_by_others = (st.st_mode & 022) != 0 && (st.st_mode & S_ISVTX) == 0;
  if (!ours || writable_by_others)
    return std::unexpected(Error::of("others than root could replace files in " + dir));
  return {};
}

Result<sockaddr_un> socket_address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path))
    return std::unexpected(Error::of("socket path " + path + " is empty or longer than " +
                                     std::to_string(sizeof(address.sun_path) - 1) + " bytes"));
  std::ranges::copy(path, address.sun_path);
  return address;
}

// Removes the socket file of a daemon that is gone; anything else in its place is an error.
Result<void> clear_stale(const std::string& path, const sockaddr_un& address) {
  struct stat st{};
  if (::lstat(path.c_str(), &st) != 0) {
    if (errno == ENOENT) return {};
    return std::unexpected(Error::from_errno("stat " + path));
  }
  if (!S_ISSOCK(st.st_mode)) return std::unexpected(Error::of(path + " exists and is no socket"));
  if (st.st_uid != 0 && st.st_uid != ::geteuid())
    return std::unexpected(Error::of(path + " belongs to another user"));
  const UniqueFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe) return std::unexpected(Error::from_errno("socket"));
  const int r =
      ::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  if (r == 0 || errno != ECONNREFUSED)
    return std::unexpected(Error::of("another daemon listens on " + path));
  if (::unlink(path.c_str()) != 0) return std::unexpected(Error::from_errno("remove " + path));
  return {};
}

void send_and_forget(int fd, std::string line) {
  line.push_back('\n');
  (void)::send(fd, line.data(), line.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
}

}  // namespace

struct Connection : std::enable_shared_from_this<Connection> {
  Connection(Server& owner, UniqueFd socket) : server(owner), fd(std::move(socket)) {}

  Server& server;
  UniqueFd fd;  // not open: dropped
  std::string in;
  std::string out;  // [written, end) is still to go
  std::size_t written = 0;
  std::size_t dropped = 0;
  std::function<bool(std::string&)> next;
  bool handled = false;
  bool keep_open = false;
  bool closing = false;
  EventLoop::TimerId timer = 0;

  [[nodiscard]] std::size_t pending() const { return out.size() - written; }

  void append(std::string_view line) {
    if (written == out.size()) {
      out.clear();
      written = 0;
    } else if (written >= kStreamLow) {
      out.erase(0, written);
      written = 0;
    }
    out.append(line).push_back('\n');
  }

  void send(std::string_view line) {
    if (!fd || closing) return;
    // Once behind, lines are dropped until half is read: one gap, not one gap every other line.
    const auto limit = dropped > 0 ? Server::kMaxBuffered / 2 : Server::kMaxBuffered;
    if (pending() > 0 && pending() + line.size() + 1 > limit) {
      ++dropped;
    } else {
      note_dropped();
      append(line);
    }
    flush();
  }

  void note_dropped() {
    if (dropped == 0) return;
    append(dropped_line(dropped));
    dropped = 0;
  }

  void fill() {
    if (dropped > 0 && pending() <= Server::kMaxBuffered / 2) note_dropped();
    std::string line;
    while (next && pending() < kStreamLow) {
      // Taken out for the call: it may close the connection, which forgets `next`.
      auto produce = std::exchange(next, nullptr);
      line.clear();
      if (!produce(line)) {
        closing = true;
      } else {
        append(line);
        if (fd && !closing) next = std::move(produce);
      }
    }
  }

  // Writes what the client takes. May drop the connection.
  void flush() {
    if (!fd) return;
    bool progress = false;
    for (int round = 0; round < kRoundsPerFlush; ++round) {
      fill();
      if (pending() == 0) break;
      const auto n = ::send(fd.get(), out.data() + written, pending(), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == EAGAIN) break;
      if (n < 0) return server.drop(fd.get());
      written += static_cast<std::size_t>(n);
      progress = true;
    }
    if (pending() == 0 && !next && dropped == 0 && closing) return server.drop(fd.get());
    if (handled) {
      update_watch();
      if ((closing || next) && (progress || timer == 0)) arm(server.options_.drain_timeout);
    }
  }

  void update_watch() {
    // With nothing asked for, epoll still reports EPOLLHUP: that is how a watcher's end is seen.
    const std::uint32_t events = pending() > 0 || next ? std::uint32_t{EPOLLOUT} : 0u;
    const int number = fd.get();
    Server& s = server;
    if (!s.loop_.watch(number, events, [&s, number](std::uint32_t e) { s.on_ready(number, e); }))
      s.drop(number);
  }

  void arm(std::chrono::milliseconds delay) {
    disarm();
    timer = server.loop_.after(delay, [weak = weak_from_this()] {
      const auto self = weak.lock();
      if (!self || !self->fd) return;
      self->timer = 0;
      if (!self->handled) send_and_forget(self->fd.get(), error_line("no request in time"));
      self->server.drop(self->fd.get());
    });
  }

  void disarm() {
    if (timer != 0) server.loop_.cancel(timer);
    timer = 0;
  }
};

void Responder::send(std::string_view line) {
  if (const auto c = connection_.lock()) c->send(line);
}

void Responder::stream(std::function<bool(std::string&)> next) {
  const auto c = connection_.lock();
  if (!c || !c->fd || c->closing) return;
  c->next = std::move(next);
  c->keep_open = true;
  c->flush();
}

void Responder::keep_open() {
  if (const auto c = connection_.lock()) c->keep_open = true;
}

void Responder::close() {
  const auto c = connection_.lock();
  if (!c || !c->fd) return;
  c->next = nullptr;
  c->closing = true;
  c->flush();
}

void Watchers::add(const Responder& responder) { responders_.push_back(responder); }

void Watchers::broadcast(std::string_view line) {
  for (auto& responder : responders_) responder.send(line);
  size();
}

std::size_t Watchers::size() {
  std::erase_if(responders_, [](const Responder& r) { return !r.is_open(); });
  return responders_.size();
}

Server::Server(EventLoop& loop, Options options, Handler handler)
    : loop_(loop), options_(std::move(options)), handler_(std::move(handler)) {}

Server::~Server() {
  while (!connections_.empty()) drop(connections_.begin()->first);
  if (accept_again_ != 0) loop_.cancel(accept_again_);
  if (!listener_) return;
  loop_.unwatch(listener_.get());
  struct stat st{};
  if (::lstat(options_.path.c_str(), &st) == 0 && st.st_dev == socket_device_ &&
      st.st_ino == socket_inode_)
    ::unlink(options_.path.c_str());
}

Result<std::unique_ptr<Server>> Server::open(EventLoop& loop, Options options, Handler handler) {
  std::unique_ptr<Server> server(new Server(loop, std::move(options), std::move(handler)));
  if (auto r = server->listen(); !r) return std::unexpected(std::move(r.error()));
  return server;
}

Result<void> Server::listen() {
  const auto& path = options_.path;
  const auto address = socket_address(path);
  if (!address) return std::unexpected(address.error());
  if (auto r = prepare_directory(directory_of(path)); !r) return r;

  // Two daemons starting at once would both find the socket stale; the lock lets one through. Its
  // file stays behind: removing it would bring the same race back.
  const auto lock_path = path + ".lock";
  lock_.reset(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!lock_) return std::unexpected(Error::from_errno("open " + lock_path));
  if (::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK)
      return std::unexpected(Error::of("another daemon listens on " + path));
    return std::unexpected(Error::from_errno("lock " + lock_path));
  }
  if (auto r = clear_stale(path, *address); !r) return r;

  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return std::unexpected(Error::from_errno("socket"));
  // bind() takes the mode from here: the file never exists with a wider one.
  if (::fchmod(fd.get(), 0600) != 0)
    return std::unexpected(Error::from_errno("set mode of " + path));
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof(*address)) != 0)
    return std::unexpected(Error::from_errno("bind " + path));
  struct stat st{};
  if (::lstat(path.c_str(), &st) != 0) return std::unexpected(Error::from_errno("stat " + path));
  socket_device_ = st.st_dev;
  socket_inode_ = st.st_ino;
  listener_ = std::move(fd);
  if (::listen(listener_.get(), SOMAXCONN) != 0)
    return std::unexpected(Error::from_errno("listen on " + path));
  return watch_listener();
}

Result<void> Server::watch_listener() {
  return loop_.watch(listener_.get(), EPOLLIN, [this](std::uint32_t) { accept_some(); });
}

void Server::accept_some() {
  for (int i = 0; i < kAcceptsPerRound; ++i) {
    UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (fd) {
      admit(std::move(fd));
      continue;
    }
    if (errno == EINTR || errno == ECONNABORTED) continue;
    if (errno == EAGAIN) return;
    loop_.unwatch(listener_.get());
    accept_again_ = loop_.after(kAcceptPause, [this] {
      accept_again_ = 0;
      (void)watch_listener();
    });
    return;
  }
}

void Server::admit(UniqueFd fd) {
  ucred peer{};
  socklen_t length = sizeof(peer);
  if (::getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return;
  if (peer.uid != 0 && peer.uid != ::geteuid())
    return send_and_forget(fd.get(), error_line("permission denied: only root may ask"));
  if (connections_.size() >= kMaxClients)
    return send_and_forget(fd.get(), error_line("too many clients"));

  const int number = fd.get();
  auto connection = std::make_shared<Connection>(*this, std::move(fd));
  if (!loop_.watch(number, EPOLLIN, [this, number](std::uint32_t e) { on_ready(number, e); }))
    return;
  connections_.emplace(number, connection);
  connection->arm(options_.request_timeout);
}

void Server::on_ready(int fd, std::uint32_t events) {
  const auto it = connections_.find(fd);
  if (it == connections_.end()) return;
  const auto connection = it->second;  // survives being dropped below
  if (!connection->handled && (events & EPOLLIN) != 0) return read_request(connection);
  if ((events & (EPOLLHUP | EPOLLERR)) != 0) return drop(fd);
  connection->flush();
}

void Server::read_request(const std::shared_ptr<Connection>& connection) {
  auto& in = connection->in;
  std::array<char, 8192> chunk{};
  while (in.size() < kMaxRequestBytes) {
    const auto room = std::min(chunk.size(), kMaxRequestBytes - in.size());
    const auto n = ::recv(connection->fd.get(), chunk.data(), room, MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    if (n < 0) return drop(connection->fd.get());
    if (n == 0) {
      if (!in.empty())
        send_and_forget(connection->fd.get(), error_line("request ends without a newline"));
      return drop(connection->fd.get());
    }
    const auto searched = in.size();
    in.append(chunk.data(), static_cast<std::size_t>(n));
    if (const auto newline = in.find('\n', searched); newline != std::string::npos) {
      const std::string line = in.substr(0, newline);
      in = {};
      return handle(connection, line);
    }
  }
  send_and_forget(connection->fd.get(), error_line("request is too long"));
  drop(connection->fd.get());
}

void Server::handle(const std::shared_ptr<Connection>& connection, std::string_view line) {
  connection->disarm();
  connection->handled = true;
  Responder responder(connection);
  if (auto request = parse_request(line)) {
    handler_(*request, responder);
  } else {
    responder.send(error_line(request.error().message));
  }
  if (!connection->fd) return;
  if (!connection->keep_open) connection->closing = true;
  connection->flush();
}

void Server::drop(int fd) {
  const auto it = connections_.find(fd);
  if (it == connections_.end()) return;
  const auto connection = std::move(it->second);
  connections_.erase(it);
  connection->disarm();
  connection->next = nullptr;
  loop_.unwatch(fd);
  connection->fd.reset();
}

}  // namespace egressd::control
