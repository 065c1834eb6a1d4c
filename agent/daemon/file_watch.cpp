#include "daemon/file_watch.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>

namespace egressd::daemon {
namespace {

namespace fs = std::filesystem;

constexpr std::uint32_t kOfFile =
    IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB | IN_MOVE_SELF | IN_DELETE_SELF;
constexpr std::uint32_t kOfDirectory = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO |
                                       IN_MOVE_SELF | IN_DELETE_SELF | IN_ONLYDIR;
constexpr int kMaxLinks = 8;

}  // namespace

Result<std::unique_ptr<FileWatch>> FileWatch::open(EventLoop& loop, std::vector<std::string> paths,
                                                   std::function<void()> on_change,
                                                   std::chrono::milliseconds delay) {
  std::unique_ptr<FileWatch> watch(
      new FileWatch(loop, std::move(paths), std::move(on_change), delay));
  if (auto r = watch->arm(); !r) return std::unexpected(std::move(r.error()));
  return watch;
}

bool FileWatch::is_being_written(const std::string& path) {
  // A read lease is refused with EAGAIN exactly then, and is given back at once.
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  struct stat st{};
  if (!file || ::fstat(file.get(), &st) != 0 || !S_ISREG(st.st_mode)) return false;
  if (::fcntl(file.get(), F_SETLEASE, F_RDLCK) != 0) return errno == EAGAIN;
  ::fcntl(file.get(), F_SETLEASE, F_UNLCK);
  return false;
}

FileWatch::~FileWatch() {
  loop_.cancel(timer_);
  if (inotify_) loop_.unwatch(inotify_.get());
}

Result<void> FileWatch::arm() {
  UniqueFd fresh(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  if (!fresh) return std::unexpected(Error::from_errno("inotify"));
  if (inotify_) loop_.unwatch(inotify_.get());
  inotify_ = std::move(fresh);
  names_.clear();
  for (const std::string& path : paths_) add(path);
  return loop_.watch(inotify_.get(), EPOLLIN, [this](std::uint32_t) { on_event(); });
}

// What cannot be watched is not there or not ours to see; its directory tells when that changes.
void FileWatch::add(const std::string& path) {
  // The file itself, wherever links and mounts lead: a directory does not tell of a file that is
  // mounted over one of its entries.
  ::inotify_add_watch(inotify_.get(), path.c_str(), kOfFile);
  // And every entry the way to it depends on: each symbolic link (the kubelet swaps a directory by
  // one), and the last name or the first that is not there yet.
  fs::path rest = fs::absolute(path).lexically_normal().relative_path();
  fs::path at = "/";
  for (int links = 0; !rest.empty();) {
    const fs::path name = *rest.begin();
    const fs::path below = rest.lexically_relative(name);
    const fs::path entry = at / name;
    std::error_code ec;
    const auto kind = fs::symlink_status(entry, ec).type();
    const bool last = below.empty() || below == ".";
    if (last || kind == fs::file_type::symlink || kind == fs::file_type::not_found) {
      const int directory = ::inotify_add_watch(inotify_.get(), at.c_str(), kOfDirectory);
      if (directory >= 0) names_.emplace(directory, name);
    }
    if (kind == fs::file_type::symlink && links++ < kMaxLinks) {
      const fs::path target = fs::read_symlink(entry, ec);
      if (ec) return;
      rest = (last ? at / target : at / target / below).lexically_normal().relative_path();
      at = "/";
      continue;
    }
    if (last || kind == fs::file_type::not_found || kind == fs::file_type::none) return;
    at = entry;
    rest = below;
  }
}

void FileWatch::on_event() {
  alignas(inotify_event) std::array<char, 4096> buffer{};
  bool matters = false;
  for (;;) {
    const ssize_t n = ::read(inotify_.get(), buffer.data(), buffer.size());
    if (n <= 0) break;
    for (std::size_t at = 0; at + sizeof(inotify_event) <= static_cast<std::size_t>(n);) {
      inotify_event event{};
      std::memcpy(&event, buffer.data() + at, sizeof(event));
      const std::string name = event.len == 0 ? "" : buffer.data() + at + sizeof(event);
      at += sizeof(event) + event.len;
      const auto [first, last] = names_.equal_range(event.wd);
      matters |= name.empty() || std::any_of(first, last, [&](const auto& watched) {
                   return watched.second == name;
                 });
    }
  }
  if (!matters || timer_ != 0) return;
  timer_ = loop_.after(delay_, [this] {
    timer_ = 0;
    // Before anybody reads: a change after that is another event. Without a watch there is still
    // this one call.
    (void)arm();
    on_change_();
  });
}

}  // namespace egressd::daemon
