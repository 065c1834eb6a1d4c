#include "daemon/file_watch.h"

#include <sys/epoll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <array>
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
                                                   std::function<void()> on_change) {
  std::unique_ptr<FileWatch> watch(new FileWatch(loop, std::move(paths), std::move(on_change)));
  if (auto r = watch->arm(); !r) return std::unexpected(std::move(r.error()));
  return watch;
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
  fs::path link = path;
  for (int i = 0; i < kMaxLinks; ++i) {
    fs::path entry = link;
    int directory = -1;
    // The nearest ancestor that is there.
    while (directory < 0 && entry.has_relative_path()) {
      directory = ::inotify_add_watch(inotify_.get(), entry.parent_path().c_str(), kOfDirectory);
      if (directory >= 0)
        names_.emplace(directory, entry.filename());
      else
        entry = entry.parent_path();
    }
    std::error_code ec;
    const fs::path target = fs::read_symlink(link, ec);
    if (ec) return;
    link = (link.parent_path() / target).lexically_normal();
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
  timer_ = loop_.after(kDelay, [this] {
    timer_ = 0;
    // Before anybody reads: a change after that is another event. Without a watch there is still
    // this one call.
    (void)arm();
    on_change_();
  });
}

}  // namespace egressd::daemon
