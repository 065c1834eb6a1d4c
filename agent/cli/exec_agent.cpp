#include "cli/exec_agent.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <deque>
#include <fstream>
#include <vector>

#include "audit/record.h"
#include "control/client.h"

#ifndef BPF_FS_MAGIC
#define BPF_FS_MAGIC 0xcafe4a11
#endif

namespace egressd::cli {
namespace {

constexpr const char* kSystemBpffs = "/sys/fs/bpf";
constexpr std::chrono::seconds kAnswerWithin{2};
constexpr int kStopWithinMs = 5000;
constexpr std::size_t kLastLines = 10;

}  // namespace

Result<PrivateBpffs> private_bpffs(const std::string& name) {
  struct statfs s{};
  if (::statfs(kSystemBpffs, &s) == 0 && static_cast<unsigned long>(s.f_type) == BPF_FS_MAGIC)
    return PrivateBpffs{UniqueFd(), std::string(kSystemBpffs) + "/" + name};
  const UniqueFd context(::fsopen("bpf", FSOPEN_CLOEXEC));
  if (!context) return std::unexpected(Error::from_errno("open a BPF file system"));
  if (::fsconfig(context.get(), FSCONFIG_SET_STRING, "mode", "0700", 0) != 0 ||
      ::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0)
    return std::unexpected(Error::from_errno("make a BPF file system"));
  UniqueFd mount(::fsmount(context.get(), FSMOUNT_CLOEXEC,
                           MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC));
  if (!mount) return std::unexpected(Error::from_errno("mount a BPF file system"));
  std::string dir = "/proc/self/fd/" + std::to_string(mount.get()) + "/" + name;
  return PrivateBpffs{std::move(mount), std::move(dir)};
}

std::expected<Spawned, SpawnError> spawn(char* const* argv, const std::function<int()>& prepare) {
  struct Report {
    int code;
    int in_exec;
  };
  int pipe[2];
  if (::pipe2(pipe, O_CLOEXEC) != 0) return std::unexpected(SpawnError{errno});
  UniqueFd from_child(pipe[0]), to_parent(pipe[1]);
  const pid_t pid = ::fork();
  if (pid < 0) return std::unexpected(SpawnError{errno});
  if (pid == 0) {
    Report report{prepare(), 0};
    if (report.code == 0) {
      ::execvp(argv[0], argv);
      report = {errno, 1};
    }
    (void)!::write(to_parent.get(), &report, sizeof(report));
    ::_exit(125);
  }
  to_parent.reset();
  Report report{};
  ssize_t n = 0;
  do n = ::read(from_child.get(), &report, sizeof(report));
  while (n < 0 && errno == EINTR);
  if (n == static_cast<ssize_t>(sizeof(report))) {
    ::waitpid(pid, nullptr, 0);
    return std::unexpected(SpawnError{report.code, report.in_exec != 0});
  }
  // <sys/pidfd.h> of glibc 2.36 cannot be linked from C++.
  UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd) {
    const int err = errno;
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    return std::unexpected(SpawnError{err});
  }
  return Spawned{pid, std::move(pidfd)};
}

Result<PrivateAgent> PrivateAgent::start(const Options& options) {
  std::vector<std::string> words{options.program, "run",
                                 "--policy",      options.policy,
                                 "--cgroup",      options.cgroup,
                                 "--state-dir",   options.dir + "/state",
                                 "--bpffs",       options.bpffs->dir,
                                 "--socket",      options.dir + "/control.sock",
                                 "--audit-log",   options.dir + "/audit.jsonl",
                                 "--log-level",   "warning"};
  // They are the machine's agent's, which may only be starting.
  words.insert(words.end(), {"--metrics-listen", "off"});
  if (options.audit) words.insert(words.end(), {"--mode", "audit"});
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);

  const UniqueFd nothing(::open("/dev/null", O_RDWR | O_CLOEXEC));
  const std::string log_path = options.dir + "/egressd.log";
  const UniqueFd log(::open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!nothing || !log) return std::unexpected(Error::from_errno("open " + log_path));
  auto spawned = spawn(argv.data(), [&] {
    sigset_t none;
    ::sigemptyset(&none);
    if (::setpgid(0, 0) != 0 || ::dup2(nothing.get(), STDIN_FILENO) < 0 ||
        ::dup2(nothing.get(), STDOUT_FILENO) < 0 || ::dup2(log.get(), STDERR_FILENO) < 0)
      return errno;
    if (options.bpffs->mount && ::fcntl(options.bpffs->mount.get(), F_SETFD, 0) != 0) return errno;
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::unsetenv("NOTIFY_SOCKET");  // a service we run in is not ready when this agent is
    return 0;
  });
  if (!spawned)
    return std::unexpected(Error::from_errno("run " + options.program, spawned.error().code)
                               .context(spawned.error().in_exec
                                            ? "no egressd to enforce with; name it with --egressd"
                                            : "start egressd"));
  return PrivateAgent(spawned->pid, std::move(spawned->pidfd), options.dir);
}

Result<std::string> PrivateAgent::status() const {
  auto client = control::Client::request(dir_ + "/control.sock",
                                         {.command = "status", .arguments = {}}, kAnswerWithin);
  if (!client) return std::unexpected(std::move(client.error()));
  auto line = client->read_line(kAnswerWithin);
  if (!line) return std::unexpected(std::move(line.error()));
  if (!*line) return std::unexpected(Error::of("no answer"));
  return control::check_answer(std::move(**line));
}

std::string PrivateAgent::last_words() const {
  std::ifstream in(dir_ + "/egressd.log");
  std::deque<std::string> lines;
  for (std::string line; std::getline(in, line);) {
    lines.push_back(audit::printable(line));
    if (lines.size() > kLastLines) lines.pop_front();
  }
  std::string text;
  for (const std::string& line : lines) text += "  egressd: " + line + "\n";
  return text;
}

std::optional<std::string> PrivateAgent::ended() {
  int status = 0;
  if (pid_ != 0 && ::waitpid(pid_, &status, WNOHANG) == pid_) {
    pid_ = 0;
    how_ = WIFSIGNALED(status) ? "signal " + std::to_string(WTERMSIG(status))
                               : "exit status " + std::to_string(WEXITSTATUS(status));
  }
  if (pid_ != 0) return std::nullopt;
  return how_;
}

void PrivateAgent::stop() {
  if (ended()) return;
  ::kill(pid_, SIGTERM);
  pollfd gone{.fd = pidfd_.get(), .events = POLLIN, .revents = 0};
  if (::poll(&gone, 1, kStopWithinMs) <= 0) ::kill(pid_, SIGKILL);
  ::poll(&gone, 1, -1);
  (void)ended();
}

}  // namespace egressd::cli
