#include "daemon_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

namespace egressd::bench {

Daemon::Daemon(const Arena& arena, const std::string& name)
    : base_(arena.dir() + "/" + name), cgroup_(arena.cgroup() + "/" + name) {
  ::mkdir(cgroup_.c_str(), 0755);
}

Daemon::~Daemon() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  ::rmdir(cgroup_.c_str());
}

Result<std::unique_ptr<Daemon>> Daemon::start(const Arena& arena, const std::string& name,
                                              const Netns& netns, const std::string& egressd,
                                              const std::string& policy) {
  std::unique_ptr<Daemon> daemon(new Daemon(arena, name));
  const std::string& base = daemon->base_;
  std::vector<std::string> words = {egressd,       "run",           "--policy", policy,
                                    "--cgroup",    daemon->cgroup_, "--bpffs",  arena.bpffs(name),
                                    "--state-dir", base + ".state", "--socket", base + ".sock",
                                    "--audit-log", base + ".jsonl"};
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const std::string log = base + ".log";
  const auto r = netns.inside([&]() -> Result<void> {
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    ::posix_spawn_file_actions_addopen(&actions, 1, log.c_str(), O_WRONLY | O_CREAT | O_APPEND,
                                       0600);
    ::posix_spawn_file_actions_adddup2(&actions, 1, 2);
    const int err =
        ::posix_spawn(&daemon->pid_, egressd.c_str(), &actions, nullptr, argv.data(), environ);
    ::posix_spawn_file_actions_destroy(&actions);
    if (err != 0) {
      daemon->pid_ = -1;
      return std::unexpected(Error::from_errno("start " + egressd, err));
    }
    return {};
  });
  if (!r) return std::unexpected(r.error());
  return daemon;
}

bool Daemon::is_up() const { return ::access((base_ + ".sock").c_str(), F_OK) == 0; }

bool Daemon::ended() {
  if (pid_ > 0 && ::waitpid(pid_, nullptr, WNOHANG) == pid_) pid_ = -1;
  return pid_ <= 0;
}

std::string Daemon::log() const { return read_file(base_ + ".log").value_or(""); }

}  // namespace egressd::bench
