#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/event_loop.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace egressd::daemon {

// Tells when one of some files may have changed: written, replaced, made or removed, also behind a
// symbolic link or a bind mount, or in a directory that is not there yet (inotify(7)).
class FileWatch {
 public:
  // A file is often changed in several steps: the callback comes this long after the first.
  static constexpr std::chrono::milliseconds kDelay{200};

  // The loop must outlive the watch; `on_change` must not destroy it.
  static Result<std::unique_ptr<FileWatch>> open(EventLoop& loop, std::vector<std::string> paths,
                                                 std::function<void()> on_change);
  ~FileWatch();
  FileWatch(const FileWatch&) = delete;
  FileWatch& operator=(const FileWatch&) = delete;

 private:
  FileWatch(EventLoop& loop, std::vector<std::string> paths, std::function<void()> on_change)
      : loop_(loop), paths_(std::move(paths)), on_change_(std::move(on_change)) {}

  // Begins anew: what a path leads to may be another file now.
  Result<void> arm();
  void add(const std::string& path);
  void on_event();

  EventLoop& loop_;
  const std::vector<std::string> paths_;
  std::function<void()> on_change_;
  UniqueFd inotify_;
  std::unordered_multimap<int, std::string> names_;  // by watch of a directory: entries that matter
  EventLoop::TimerId timer_ = 0;
};

}  // namespace egressd::daemon
