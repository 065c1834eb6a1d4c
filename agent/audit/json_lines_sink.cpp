#include "audit/json_lines_sink.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cstdio>
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

Result<UniqueFd> open_for_append(const std::string& path, int flags = 0) {
  // O_NONBLOCK: opening a FIFO without a reader fails instead of waiting for one.
  UniqueFd fd(::open(path.c_str(),
                     O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | flags,
                     0640));
  if (!fd) return std::unexpected(Error::from_errno("open " + path));
  return fd;
}

std::uint64_t size_of(int fd) {
  struct stat st{};
  return ::fstat(fd, &st) == 0 ? static_cast<std::uint64_t>(st.st_size) : 0;
}

}  // namespace

Result<JsonLinesSink::Kind> JsonLinesSink::kind_of(int fd, const std::string& name) {
  struct stat st{};
  if (::fstat(fd, &st) != 0) return std::unexpected(Error::from_errno("stat " + name));
  if (S_ISSOCK(st.st_mode)) return Kind::Socket;
  if (S_ISFIFO(st.st_mode)) return Kind::Pipe;
  if (S_ISREG(st.st_mode)) return Kind::File;
  if (S_ISCHR(st.st_mode)) return Kind::Device;
  return std::unexpected(Error::of(name + " is no file, pipe or device that records can go to"));
}

Result<std::unique_ptr<JsonLinesSink>> JsonLinesSink::open_file(const std::string& path,
                                                                Options options) {
  auto fd = open_for_append(path);
  if (!fd) return std::unexpected(std::move(fd.error()));
  const auto kind = kind_of(fd->get(), path);
  if (!kind) return std::unexpected(kind.error());
  if (options.rotation.max_size != 0 && *kind != Kind::File)
    return std::unexpected(Error::of(path + " is no regular file and cannot be rotated"));
  auto sink = std::unique_ptr<JsonLinesSink>(
      new JsonLinesSink(path, std::move(*fd), *kind, std::move(options)));
  sink->written_ = size_of(sink->fd_.get());
  return sink;
}

Result<std::unique_ptr<JsonLinesSink>> JsonLinesSink::open_descriptor(
    int fd, std::shared_ptr<const Format> format) {
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
  return std::unique_ptr<JsonLinesSink>(
      new JsonLinesSink({}, std::move(own), *kind, {std::move(format), {}}));
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

bool JsonLinesSink::take_back(std::size_t done) {
  struct stat st{};
  // O_APPEND leaves the offset behind what was written.
  const auto end = ::lseek(fd_.get(), 0, SEEK_CUR);
  return end >= static_cast<off_t>(done) && ::fstat(fd_.get(), &st) == 0 && st.st_size == end &&
         ::ftruncate(fd_.get(), end - static_cast<off_t>(done)) == 0;
}

bool JsonLinesSink::put(std::string_view bytes) {
  if (!rest_.empty()) {
    rest_.erase(0, write_some(rest_));
    if (!rest_.empty()) return false;
  }
  const auto done = write_some(bytes);
  const int err = errno;
  written_ += done;
  if (done == bytes.size()) return true;
  if (done > 0 && kind_ == Kind::File && take_back(done)) {
    written_ -= done;
    errno = err;
    return false;
  }
  if (done == 0) {
    errno = err;
    return false;
  }
  rest_ = bytes.substr(done);
  return true;
}

Result<void> JsonLinesSink::write(const Record& record) {
  return write_line(options_.format->line(record) + '\n', 1);
}

Result<void> JsonLinesSink::write(const Notice& notice) {
  return write_line(options_.format->line(notice) + '\n', notice.weight());
}

Result<void> JsonLinesSink::write_line(std::string line, std::uint64_t records) {
  if (losses_.pending()) line = options_.format->line(losses_.gap()) + '\n' + line;
  auto rotated = rotate_for(line.size());
  if (put(line)) {
    losses_.noted();
    return rotated;
  }
  auto first = losses_.once(Error::from_errno("write " + name()));
  losses_.add(records);
  return first;
}

void JsonLinesSink::flush() {
  if (!losses_.pending() && rest_.empty()) return;
  if (!losses_.pending()) {
    (void)put({});
  } else if (put(options_.format->line(losses_.gap()) + '\n')) {
    losses_.noted();
  }
}

std::string JsonLinesSink::name() const {
  return path_.empty() ? "audit records to standard output" : path_;
}

Result<void> JsonLinesSink::reopen() {
  if (path_.empty()) return {};
  auto fd = open_for_append(path_);
  if (!fd) return std::unexpected(std::move(fd.error()));
  const auto kind = kind_of(fd->get(), path_);
  if (!kind) return std::unexpected(kind.error());
  if (!rest_.empty()) losses_.add();  // the other half is in the old file
  rest_.clear();
  fd_ = std::move(*fd);
  kind_ = *kind;
  written_ = size_of(fd_.get());
  next_look_ = 0;
  return {};
}

Result<void> JsonLinesSink::rotate_for(std::size_t more) {
  const auto max = options_.rotation.max_size;
  if (max == 0 || kind_ != Kind::File || written_ + more <= max || written_ < next_look_) return {};
  // Somebody may have emptied or moved it, or writes to it as well.
  written_ = size_of(fd_.get());
  if (written_ == 0 || written_ + more <= max) return {};
  auto r = rotate();
  if (r) {
    rotation_failed_ = false;
    return r;
  }
  // The file grows on; the next try is when it has done so by as much again.
  next_look_ = written_ + max;
  if (std::exchange(rotation_failed_, true)) return {};
  return r;
}

Result<void> JsonLinesSink::rotate() {
  struct stat ours{};
  struct stat there{};
  if (::fstat(fd_.get(), &ours) != 0) return std::unexpected(Error::from_errno("stat " + path_));
  // Put aside by somebody else, who has not said so yet.
  if (::stat(path_.c_str(), &there) != 0 || there.st_dev != ours.st_dev ||
      there.st_ino != ours.st_ino)
    return reopen();

  // First what can fail for want of space or permission: then nothing has moved.
  const auto next = path_ + ".next";
  auto fd = open_for_append(next, O_TRUNC | O_NOFOLLOW);
  if (!fd) return std::unexpected(std::move(fd.error()).context("rotate " + path_));
  const auto numbered = [this](unsigned number) { return path_ + "." + std::to_string(number); };
  for (unsigned number = options_.rotation.keep; number > 1; --number) {
    if (::rename(numbered(number - 1).c_str(), numbered(number).c_str()) != 0 && errno != ENOENT)
      return std::unexpected(Error::from_errno("rotate " + numbered(number - 1)));
  }
  if (::rename(path_.c_str(), numbered(1).c_str()) != 0 ||
      ::rename(next.c_str(), path_.c_str()) != 0)
    return std::unexpected(Error::from_errno("rotate " + path_));
  fd_ = std::move(*fd);
  written_ = 0;
  next_look_ = 0;
  return {};
}

}  // namespace egressd::audit
