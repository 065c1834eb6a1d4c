#include "audit/json_lines_sink.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <utility>

namespace egressd::audit {
namespace {

// Writing to a pipe whose reader is gone raises SIGPIPE, and write() has no flag against it. The
// signal is held back and taken out of the queue, so that the program need not ignore it.
ssize_t write_without_sigpipe(int fd, std::string_view bytes) {
  sigset_t pipe_only;
  sigset_t before;
  sigset_t pending;
  ::sigemptyset(&pipe_only);
  ::sigaddset(&pipe_only, SIGPIPE);
  ::sigpending(&pending);
  const bool was_pending = ::sigismember(&pending, SIGPIPE) == 1;
  ::pthread_sigmask(SIG_BLOCK, &pipe_only, &before);
  const auto n = ::write(fd, bytes.data(), bytes.size());
  const int err = errno;
  if (n < 0 && err == EPIPE && !was_pending) {
    const timespec now{};
    ::sigtimedwait(&pipe_only, nullptr, &now);
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  errno = err;
  return n;
}

Result<UniqueFd> open_for_append(const std::string& path) {
  // O_NONBLOCK: opening a FIFO without a reader fails instead of waiting for one.
  UniqueFd fd(::open(path.c_str(),
                     O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0640));
  if (!fd) return std::unexpected(Error::from_errno("open " + path));
  return fd;
}

}  // namespace

Result<JsonLinesSink::Kind> JsonLinesSink::kind_of(int fd, const std::string& name) {
  struct stat st{};
  if (::fstat(fd, &st) != 0) return std::unexpected(Error::from_errno("stat " + name));
  if (S_ISSOCK(st.st_mode)) return Kind::Socket;
  if (S_ISFIFO(st.st_mode)) return Kind::Pipe;
  if (S_ISREG(st.st_mode) || S_ISCHR(st.st_mode)) return Kind::File;
  return std::unexpected(Error::of(name + " is no file, pipe or device that records can go to"));
}

Result<std::unique_ptr<JsonLinesSink>> JsonLinesSink::open_file(const std::string& path) {
  auto fd = open_for_append(path);
  if (!fd) return std::unexpected(std::move(fd.error()));
  const auto kind = kind_of(fd->get(), path);
  if (!kind) return std::unexpected(kind.error());
  return std::unique_ptr<JsonLinesSink>(new JsonLinesSink(path, std::move(*fd), *kind));
}

Result<std::unique_ptr<JsonLinesSink>> JsonLinesSink::open_descriptor(int fd) {
  const auto name = "descriptor " + std::to_string(fd);
  const auto kind = kind_of(fd, name);
  if (!kind) return std::unexpected(kind.error());
  UniqueFd own;
  // O_NONBLOCK on the inherited description would reach every process that shares it (the shell
  // on the same terminal): open the object anew. Sockets cannot be, and need not: MSG_DONTWAIT.
  if (*kind != Kind::Socket) {
    const auto link = "/proc/self/fd/" + std::to_string(fd);
    own.reset(::open(link.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  }
  if (!own) own.reset(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!own) return std::unexpected(Error::from_errno("duplicate " + name));
  return std::unique_ptr<JsonLinesSink>(new JsonLinesSink({}, std::move(own), *kind));
}

std::size_t JsonLinesSink::write_some(std::string_view bytes) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const auto rest = bytes.substr(done);
    ssize_t n = 0;
    if (kind_ == Kind::Socket) {
      n = ::send(fd_.get(), rest.data(), rest.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    } else {
      // Still blocking if the descriptor could not be opened anew: ask first.
      pollfd p{.fd = fd_.get(), .events = POLLOUT, .revents = 0};
      if (::poll(&p, 1, 0) == 0) {
        errno = EAGAIN;
        return done;
      }
      n = kind_ == Kind::Pipe ? write_without_sigpipe(fd_.get(), rest)
                              : ::write(fd_.get(), rest.data(), rest.size());
    }
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return done;
    if (n == 0) {
      errno = EIO;
      return done;
    }
    done += static_cast<std::size_t>(n);
  }
  return done;
}

Result<void> JsonLinesSink::write(const Record& record) {
  std::string out;
  if (torn_) out.push_back('\n');
  if (lost_in_a_row_ > 0)
    out += "{\"schema\":" + std::to_string(Record::kSchema) +
           ",\"lost\":" + std::to_string(lost_in_a_row_) + "}\n";
  out += record.to_json();
  out.push_back('\n');

  const auto done = write_some(out);
  if (done == out.size()) {
    torn_ = false;
    lost_in_a_row_ = 0;
    return {};
  }
  auto error = Error::from_errno(path_.empty() ? "write audit record" : "write " + path_);
  if (done > 0) torn_ = out[done - 1] != '\n';
  ++lost_;
  if (lost_in_a_row_++ > 0) return {};
  return std::unexpected(std::move(error));
}

Result<void> JsonLinesSink::reopen() {
  if (path_.empty()) return {};
  auto fd = open_for_append(path_);
  if (!fd) return std::unexpected(std::move(fd.error()));
  const auto kind = kind_of(fd->get(), path_);
  if (!kind) return std::unexpected(kind.error());
  fd_ = std::move(*fd);
  kind_ = *kind;
  torn_ = false;
  return {};
}

}  // namespace egressd::audit
