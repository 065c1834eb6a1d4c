#pragma once

#include <sys/types.h>

#include <functional>
#include <optional>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace egressd::cli {

// Where an agent of our own pins its programs: a directory below /sys/fs/bpf, or, where no BPF file
// system is mounted there, below one that is mounted nowhere and lives as long as somebody has it
// open.
struct PrivateBpffs {
  UniqueFd mount;   // open only in the second case; inherited by the agent
  std::string dir;  // the same for this process and the agent
};
Result<PrivateBpffs> private_bpffs(const std::string& name);

// An egressd of our own, in a process group of its own: what the terminal sends to the command
// does not end it.
class PrivateAgent {
 public:
  struct Options {
    std::string program;  // with a slash: that file; else looked for in PATH
    std::string policy;
    std::string cgroup;
    std::string dir;  // private directory for all it keeps
    bool audit = false;
    const PrivateBpffs* bpffs = nullptr;
  };

  // Starts it without waiting for anything but exec().
  static Result<PrivateAgent> start(const Options& options);
  PrivateAgent(PrivateAgent&&) noexcept = default;
  PrivateAgent& operator=(PrivateAgent&&) = delete;
  // Does not end it.
  ~PrivateAgent() = default;

  [[nodiscard]] int pidfd() const { return pidfd_.get(); }
  // First line of the answer to `status`; an error while nobody answers.
  [[nodiscard]] Result<std::string> status() const;
  // Where records go.
  [[nodiscard]] std::string audit_log() const { return dir_ + "/audit.jsonl"; }
  // What it last said on standard error, for a person.
  [[nodiscard]] std::string last_words() const;
  // How it ended ("exit status 1", "signal 9"), once it has.
  std::optional<std::string> ended();
  // Asks it to end, and makes it after a while.
  void stop();

 private:
  PrivateAgent(pid_t pid, UniqueFd pidfd, std::string dir)
      : pid_(pid), pidfd_(std::move(pidfd)), dir_(std::move(dir)) {}

  pid_t pid_;  // 0: waited for
  UniqueFd pidfd_;
  std::string dir_;
  std::string how_;
};

// Forks, runs `prepare` in the child and then `argv`. `prepare` returns 0 or an errno. The error
// says what of it failed: Error::code is its errno, and the message begins with argv[0].
struct Spawned {
  pid_t pid;
  UniqueFd pidfd;
};
struct SpawnError {
  int code = 0;
  bool in_exec = false;  // execvp() itself refused; else `prepare`, or fork()
};
std::expected<Spawned, SpawnError> spawn(char* const* argv, const std::function<int()>& prepare);

}  // namespace egressd::cli
