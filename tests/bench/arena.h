#pragma once

#include <netinet/in.h>

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "base/result.h"
#include "base/unique_fd.h"

namespace egressd::bench {

// Set by SIGINT and SIGTERM; checked between slices, so that everything made is removed.
bool interrupted();
void watch_signals();

// CPUs this process may use: senders are pinned to the first, the bulk sink to the second.
struct Cpus {
  int sender = 0;
  int sink = 0;
};
Cpus choose_cpus();
void pin_this_thread(int cpu);

// A network namespace, alive as long as this object or a socket or thread in it.
class Netns {
 public:
  static Result<Netns> create();
  [[nodiscard]] int fd() const { return fd_.get(); }
  // A name `ip` understands.
  [[nodiscard]] std::string path() const;
  // Runs `work` on this thread inside the namespace.
  Result<void> inside(const std::function<Result<void>()>& work) const;
  // `ip -batch` with these lines, inside the namespace.
  Result<void> ip(const std::string& lines) const;

 private:
  explicit Netns(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

// What all variants share; its destructor removes it: a directory with a private bpffs (in a mount
// namespace of this process, so that even kill -9 leaves no mount), the cgroup above the variants'
// cgroups, and the namespace that receives.
class Arena {
 public:
  static Result<std::unique_ptr<Arena>> create();
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  [[nodiscard]] const std::string& dir() const { return dir_; }
  [[nodiscard]] std::string bpffs(const std::string& name) const { return dir_ + "/bpf/" + name; }
  [[nodiscard]] const std::string& cgroup() const { return cgroup_; }
  [[nodiscard]] const Netns& sink() const { return *sink_; }

 private:
  Arena() = default;
  Result<void> open();

  std::string dir_;
  std::string cgroup_;
  std::string home_;  // cgroup we came from
  bool mounted_ = false;
  std::unique_ptr<Netns> sink_;
};

// A network namespace linked to the sink, a cgroup, and a thread that lives in both. Everything
// the variant sends is sent by that thread from sockets it opened.
class Place {
 public:
  // index < 250 tells apart the links: 192.168.INDEX.0/24, the sink is .1. Everything else goes
  // there too.
  static Result<std::unique_ptr<Place>> create(const Arena& arena, const std::string& name,
                                               int index, int cpu);
  ~Place();
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

  [[nodiscard]] const std::string& cgroup() const { return cgroup_; }
  [[nodiscard]] const Netns& netns() const { return *netns_; }
  // Hands `work` to the thread and waits until it is done.
  void run(const std::function<void()>& work);

 private:
  Place() = default;
  void loop(int cpu);

  std::string cgroup_;
  std::unique_ptr<Netns> netns_;
  Result<void> ready_;

  std::mutex mutex_;
  std::condition_variable changed_;
  const std::function<void()>* work_ = nullptr;
  bool started_ = false;
  bool stop_ = false;
  std::thread thread_;
};

Result<void> write_file(const std::string& path, const std::string& text);
Result<std::string> read_file(const std::string& path);

}  // namespace egressd::bench
