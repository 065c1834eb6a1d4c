#pragma once

#include <chrono>
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

  // True while somebody has the file open for writing: what it holds may be half of what it will
  // (fcntl(2), leases). False where that cannot be told: not a regular file, no such file, a file
  // system without leases. SIGIO must be ignored: a writer may come while it is looked.
  static bool is_being_written(const std::string& path);

  // The loop must outlive the watch; `on_change` must not destroy it.
  static Result<std::unique_ptr<FileWatch>> open(EventLoop& loop, std::vector<std::string> paths,
                                                 std::function<void()> on_change,
                                                 std::chrono::milliseconds delay = kDelay);
  ~FileWatch();
  FileWatch(const FileWatch&) = delete;
  FileWatch& operator=(const FileWatch&) = delete;

 private:
  FileWatch(EventLoop& loop, std::vector<std::string> paths, std::function<void()> on_change,
            std::chrono::milliseconds delay)
      : loop_(loop), paths_(std::move(paths)), on_change_(std::move(on_change)), delay_(delay) {}

  // Begins anew: what a path leads to may be another file now.
  Result<void> arm();
  void add(const std::string& path);
  void on_event();

  EventLoop& loop_;
  const std::vector<std::string> paths_;
  std::function<void()> on_change_;
  const std::chrono::milliseconds delay_;
  UniqueFd inotify_;
  std::unordered_multimap<int, std::string> names_;  // by watch of a directory: entries that matter
  EventLoop::TimerId timer_ = 0;
};

}  // namespace egressd::daemon
