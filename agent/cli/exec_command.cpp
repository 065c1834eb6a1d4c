#include "cli/exec_command.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <ostream>
#include <thread>

#include "audit/record.h"
#include "cli/exec_agent.h"
#include "cli/exec_cgroup.h"
#include "cli/exec_summary.h"
#include "enforce/pins.h"
#include "policy/parser.h"

namespace egressd::cli {
namespace {

namespace fs = std::filesystem;
using audit::printable;
using nlohmann::json;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::array kForwarded{SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};
constexpr int kAskAgainMs = 20;
// Loading takes a second, the first DNS answers up to five; an emulated machine is slower.
constexpr std::chrono::seconds kInForceWithin{60};
// Records reach the file within some tens of milliseconds.
constexpr milliseconds kRecordsWithin{2000};

struct User {
  std::string name, home, shell;
  uid_t uid = 0;
  gid_t gid = 0;
};

Result<User> find_user(const std::string& name) {
  errno = 0;
  const passwd* found = ::getpwnam(name.c_str());
  if (found == nullptr)
    return std::unexpected(errno == 0 ? Error::of("no user '" + name + "' on this machine")
                                      : Error::from_errno("look up user '" + name + "'"));
  return User{found->pw_name, found->pw_dir, found->pw_shell, found->pw_uid, found->pw_gid};
}

int become(const User& user) {
  if (::initgroups(user.name.c_str(), user.gid) != 0 ||
      ::setresgid(user.gid, user.gid, user.gid) != 0 ||
      ::setresuid(user.uid, user.uid, user.uid) != 0)
    return errno;
  ::setenv("HOME", user.home.c_str(), 1);
  ::setenv("SHELL", user.shell.c_str(), 1);
  ::setenv("USER", user.name.c_str(), 1);
  ::setenv("LOGNAME", user.name.c_str(), 1);
  return 0;
}

// A socket belongs to the cgroup it was made in: what the caller hands down would not be judged.
// Standard input, output and error stay what the caller gave.
void close_network_sockets() {
  std::vector<int> sockets;
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator("/proc/self/fd", ec)) {
    const int fd = std::atoi(entry.path().filename().c_str());
    int domain = AF_UNIX;
    socklen_t length = sizeof(domain);
    if (fd > STDERR_FILENO && ::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 &&
        domain != AF_UNIX)
      sockets.push_back(fd);
  }
  for (const int fd : sockets) ::close(fd);
}

// One run: what it makes goes with it, in the order in which it must.
class Run {
 public:
  Run(const ExecOptions& options, Streams io) : options_(options), io_(io) {}
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;
  ~Run() { clean_up(); }

  int run();

 private:
  int fail(const std::string& message) const {
    io_.err << "egressctl: " << printable(message) << '\n';
    return kExecFailed;
  }
  int fail(const Error& error) const {
    std::string message = error.message;
    if ((error.code == EPERM || error.code == EACCES) && ::geteuid() != 0)
      message += "; run it as root: sudo egressctl exec --user \"$USER\" …";
    return fail(message);
  }

  Result<void> take_signals();
  Result<void> make_places();
  [[nodiscard]] std::string find_egressd() const;
  Result<void> start_agent();
  // Nothing once the policy is in force, else the exit code.
  std::optional<int> wait_in_force();
  std::expected<Spawned, SpawnError> start_command();
  int wait_for_command(const Spawned& command);
  void notice_agent();
  [[nodiscard]] std::optional<std::uint64_t> denials_counted() const;
  ExecSummary collect(ExecSummary::Outcome& outcome);
  bool copy_records();
  int summarize(int exit_code);
  void clean_up();
  std::optional<signalfd_siginfo> next_signal() const;

  const ExecOptions& options_;
  Streams io_;
  bool audit_ = false;
  std::optional<User> user_;
  std::ofstream summary_file_;
  std::ofstream records_file_;

  sigset_t mask_before_{};
  struct sigaction pipe_before_{};
  UniqueFd signals_;

  std::string dir_;  // private directory
  std::optional<ExecCgroup> cgroup_;
  std::optional<PrivateBpffs> bpffs_;
  std::optional<PrivateAgent> agent_;
  std::string agent_end_;  // how the agent ended before its time
};

// What is sent to this process is meant for the command. A signal that is ignored stays so.
Result<void> Run::take_signals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int signal : kForwarded) {
    struct sigaction now{};
    if (::sigaction(signal, nullptr, &now) == 0 && now.sa_handler != SIG_IGN)
      ::sigaddset(&set, signal);
  }
  ::sigprocmask(SIG_BLOCK, &set, &mask_before_);
  // A reader of the summary that has left must not keep us from cleaning up.
  struct sigaction ignore{};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGPIPE, &ignore, &pipe_before_);
  signals_ = UniqueFd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals_) return std::unexpected(Error::from_errno("signalfd"));
  return {};
}

std::optional<signalfd_siginfo> Run::next_signal() const {
  signalfd_siginfo info{};
  if (::read(signals_.get(), &info, sizeof(info)) != static_cast<ssize_t>(sizeof(info)))
    return std::nullopt;
  return info;
}

Result<void> Run::make_places() {
  const char* tmp = std::getenv("TMPDIR");
  // The name is also that of the cgroup and of the directory for pins: no dots, which the BPF file
  // system refuses.
  std::string pattern =
      std::string(tmp != nullptr && *tmp != '\0' ? tmp : "/run") + "/egressd-exec-XXXXXX";
  if (::mkdtemp(pattern.data()) == nullptr)
    return std::unexpected(Error::from_errno("make a private directory " + pattern));
  dir_ = pattern;
  const std::string name = fs::path(dir_).filename();
  auto cgroup = ExecCgroup::create(name);
  if (!cgroup) return std::unexpected(std::move(cgroup.error()));
  cgroup_ = std::move(*cgroup);
  auto bpffs = private_bpffs(name);
  if (!bpffs) return std::unexpected(std::move(bpffs.error()));
  bpffs_ = std::move(*bpffs);
  return {};
}

std::string Run::find_egressd() const {
  if (!options_.egressd.empty()) {
    // Not looked for in PATH: a file was meant.
    return options_.egressd.find('/') == std::string::npos ? "./" + options_.egressd
                                                           : options_.egressd;
  }
  std::error_code ec;
  const fs::path beside = fs::read_symlink("/proc/self/exe", ec).parent_path() / "egressd";
  if (!ec && ::access(beside.c_str(), X_OK) == 0 && fs::is_regular_file(beside, ec)) return beside;
  return "egressd";
}

Result<void> Run::start_agent() {
  auto agent = PrivateAgent::start({.program = find_egressd(),
                                    .policy = options_.policy,
                                    .cgroup = cgroup_->path(),
                                    .dir = dir_,
                                    .audit = options_.audit,
                                    .bpffs = &*bpffs_});
  if (!agent) return std::unexpected(std::move(agent.error()));
  agent_.emplace(std::move(*agent));
  return {};
}

std::optional<int> Run::wait_in_force() {
  const auto deadline = steady_clock::now() + kInForceWithin;
  for (;;) {
    if (const auto line = agent_->status()) {
      const auto j = json::parse(*line, nullptr, false);
      const auto layers = j.is_object() ? j.find("layers") : j.end();
      if (layers != j.end() && layers->is_array() && !layers->empty() &&
          std::ranges::all_of(*layers, [](const json& layer) {
            return layer.is_object() && layer.value("attached", false);
          }))
        return std::nullopt;
    }
    std::array<pollfd, 2> fds{{{.fd = signals_.get(), .events = POLLIN, .revents = 0},
                               {.fd = agent_->pidfd(), .events = POLLIN, .revents = 0}}};
    ::poll(fds.data(), fds.size(), kAskAgainMs);
    if (const auto signal = next_signal()) return 128 + static_cast<int>(signal->ssi_signo);
    if (const auto how = agent_->ended()) {
      io_.err << "egressctl: the policy could not be put in force, so nothing was run; egressd "
                 "ended with "
              << *how << ":\n"
              << agent_->last_words();
      return kExecFailed;
    }
    if (steady_clock::now() > deadline) {
      io_.err << "egressctl: egressd has not put the policy in force within "
              << kInForceWithin.count() << " s, so nothing was run\n"
              << agent_->last_words();
      return kExecFailed;
    }
  }
}

std::expected<Spawned, SpawnError> Run::start_command() {
  std::vector<std::string> words = options_.command;
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  return spawn(argv.data(), [&] {
    // Before the first instruction that is not ours: nothing of it is ever outside.
    if (!cgroup_->enter()) return errno;
    close_network_sockets();
    if (user_) {
      if (const int err = become(*user_); err != 0) return err;
    }
    ::sigaction(SIGPIPE, &pipe_before_, nullptr);
    ::sigprocmask(SIG_SETMASK, &mask_before_, nullptr);
    return 0;
  });
}

void Run::notice_agent() {
  if (!agent_end_.empty()) return;
  const auto how = agent_->ended();
  if (!how) return;
  agent_end_ = "the agent ended early (" + *how + ")";
  io_.err << "egressctl: " << agent_end_
          << "; what was in force stays in force until the command ends, but names are no longer "
             "resolved and refusals not recorded\n"
          << agent_->last_words();
}

int Run::wait_for_command(const Spawned& command) {
  for (;;) {
    std::array<pollfd, 3> fds{
        {{.fd = command.pidfd.get(), .events = POLLIN, .revents = 0},
         {.fd = signals_.get(), .events = POLLIN, .revents = 0},
         // Once it has been waited for it would be readable for ever.
         {.fd = agent_end_.empty() ? agent_->pidfd() : -1, .events = POLLIN, .revents = 0}}};
    if (::poll(fds.data(), fds.size(), -1) < 0 && errno != EINTR) break;
    while (const auto signal = next_signal()) {
      // What the terminal sends, the command has got already: it is in the same process group.
      if (signal->ssi_code != SI_KERNEL) ::kill(command.pid, static_cast<int>(signal->ssi_signo));
    }
    if (fds[2].revents != 0) notice_agent();
    if (fds[0].revents != 0) break;
  }
  int status = 0;
  while (::waitpid(command.pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

// Refusals, and what audit mode let pass.
std::optional<std::uint64_t> Run::denials_counted() const {
  const auto line = agent_->status();
  if (!line) return std::nullopt;
  const auto j = json::parse(*line, nullptr, false);
  if (!j.is_object() || !j.contains("counters") || !j["counters"].is_object()) return std::nullopt;
  std::uint64_t sum = 0;
  for (std::uint32_t i = 0; i < EGRESSD_REASON_MAX; ++i) {
    if (!egressd_reason_is_deny(i) && i != EGRESSD_ALLOW_AUDIT) continue;
    const auto n = j["counters"].find(audit::reason_name(i));
    if (n != j["counters"].end() && n->is_number_unsigned()) sum += n->get<std::uint64_t>();
  }
  return sum;
}

ExecSummary Run::collect(ExecSummary::Outcome& outcome) {
  const auto deadline = steady_clock::now() + kRecordsWithin;
  for (;;) {
    notice_agent();
    ExecSummary summary;
    summary.add_file(agent_->audit_log());
    const auto counted = agent_end_.empty() ? denials_counted() : std::nullopt;
    outcome.counted = counted.value_or(0);
    outcome.incomplete = !agent_end_.empty() ? agent_end_
                         : !counted          ? "the agent does not answer"
                                             : "";
    if (!counted || summary.total() >= *counted || steady_clock::now() > deadline) return summary;
    std::this_thread::sleep_for(milliseconds(kAskAgainMs));
  }
}

// Of an empty log nothing is copied, which operator<< would take for an error.
bool Run::copy_records() {
  std::ifstream log(agent_->audit_log(), std::ios::binary);
  if (log.peek() != std::ifstream::traits_type::eof()) records_file_ << log.rdbuf();
  return static_cast<bool>(records_file_.flush());
}

int Run::summarize(int exit_code) {
  ExecSummary::Outcome outcome{
      .audit = audit_, .exit_code = exit_code, .counted = 0, .incomplete = {}};
  const ExecSummary summary = collect(outcome);
  if (!options_.records.empty() && !copy_records())
    return fail("the records could not be written to " + options_.records);
  const bool silent = options_.summary.empty() && !options_.json && summary.total() == 0 &&
                      outcome.counted == 0 && outcome.incomplete.empty();
  if (silent) return exit_code;
  std::ostream& out = options_.summary.empty()  ? io_.err
                      : options_.summary == "-" ? io_.out
                                                : summary_file_;
  if (options_.json)
    summary.print_json(out, outcome);
  else
    summary.print(out, outcome);
  if (!out.flush() && !options_.summary.empty())
    return fail("the summary could not be written to " + options_.summary);
  return exit_code;
}

void Run::clean_up() {
  const auto complain = [&](const Error& error) {
    io_.err << "egressctl: cleaning up: " << printable(error.message) << '\n';
  };
  bool empty = true;
  if (cgroup_) {
    if (const auto killed = cgroup_->kill_all(); !killed) {
      complain(killed.error());
      empty = false;
    }
  }
  if (agent_) agent_->stop();
  // What cannot be killed is not set free either.
  if (bpffs_ && empty) {
    if (const auto r = enforce::detach_pinned(bpffs_->dir); !r) complain(r.error());
  }
  if (cgroup_ && empty) {
    if (const auto r = cgroup_->remove(); !r) complain(r.error());
  }
  if (!dir_.empty()) {
    std::error_code ec;
    fs::remove_all(dir_, ec);
    if (ec) complain(Error{ec.value(), "remove " + dir_ + ": " + ec.message()});
  }
  cgroup_.reset();
  agent_.reset();
  bpffs_.reset();
  dir_.clear();
}

int Run::run() {
  if (!options_.user.empty()) {
    auto user = find_user(options_.user);
    if (!user) return fail(user.error());
    user_ = std::move(*user);
  }
  if (!options_.summary.empty() && options_.summary != "-") {
    summary_file_.open(options_.summary);
    if (!summary_file_) return fail(Error::from_errno("open " + options_.summary));
  }
  if (!options_.records.empty()) {
    records_file_.open(options_.records, std::ios::binary);
    if (!records_file_) return fail(Error::from_errno("open " + options_.records));
  }
  const auto parsed = policy::load_policy(options_.policy, policy::TagCatalog::builtin());
  for (const auto& d : parsed ? parsed->warnings : parsed.error())
    io_.err << printable(d.to_string()) << '\n';
  if (!parsed) return kExecFailed;
  audit_ = options_.audit || parsed->policy.mode == policy::Mode::Audit;

  if (auto r = take_signals(); !r) return fail(r.error());
  if (auto r = make_places(); !r) return fail(r.error());
  if (auto r = start_agent(); !r) return fail(r.error());
  if (const auto code = wait_in_force()) return *code;
  io_.out.flush();
  io_.err.flush();
  const auto command = start_command();
  if (!command) {
    const auto& [code, in_exec] = command.error();
    fail(Error::from_errno(in_exec ? options_.command.front() : "start the command", code));
    return !in_exec                            ? kExecFailed
           : code == ENOENT || code == ENOTDIR ? kExecNoCommand
                                               : kExecCannotRun;
  }
  const int exit_code = wait_for_command(*command);
  if (const auto killed = cgroup_->kill_all(); killed && *killed > 0)
    io_.err << "egressctl: the command left " << *killed
            << (*killed == 1 ? " process" : " processes") << " running; killed\n";
  return summarize(exit_code);
}

}  // namespace

int exec(const ExecOptions& options, Streams io) { return Run(options, io).run(); }

}  // namespace egressd::cli
