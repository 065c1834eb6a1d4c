#include <signal.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <string>

#include "base/event_loop.h"
#include "base/unique_fd.h"
#include "daemon/boot.h"
#include "daemon/confine.h"
#include "daemon/daemon.h"

namespace {

using egressd::Error;
using egressd::EventLoop;
using egressd::Result;
using egressd::UniqueFd;
using egressd::daemon::Daemon;

constexpr int kExitFailure = 1;
constexpr int kExitPolicy = 2;

// Signals as events of the loop: TERM and INT end the agent (enforcement stays), HUP reloads.
Result<UniqueFd> signal_fd() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) ::sigaddset(&set, signal);
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGIO, SIG_IGN);  // of a lease that a writer wants back, see FileWatch
  UniqueFd fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) return std::unexpected(Error::from_errno("signalfd"));
  return fd;
}

Result<void> run(const egressd::daemon::Options& options) {
  auto loop = EventLoop::create();
  if (!loop) return std::unexpected(std::move(loop.error()));
  auto signals = signal_fd();
  if (!signals) return std::unexpected(std::move(signals.error()));
  auto daemon = Daemon::start(**loop, options);
  if (!daemon) return std::unexpected(std::move(daemon.error()));
  // No reason to leave the machine without an agent.
  if (auto r = egressd::daemon::confine(); !r)
    spdlog::error("goes on with more rights than it needs: {}", r.error().message);
  auto watched = (*loop)->watch(signals->get(), EPOLLIN, [&](std::uint32_t) {
    signalfd_siginfo info{};
    while (::read(signals->get(), &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info))) {
      if (info.ssi_signo != SIGHUP) {
        (*daemon)->stopping();
        spdlog::info("stopping; what is in force stays in force ('egressctl detach' ends it)");
        (*loop)->stop();
        return;
      }
      (*daemon)->reopen_audit_log();
      (void)(*daemon)->reload();  // logged, and shown by `egressctl status`
    }
  });
  if (!watched) return watched;
  if (auto r = (*loop)->run(); !r) return r;
  return (*daemon)->outcome();
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"egressd: FQDN egress firewall for this machine"};
  app.set_version_flag("--version", EGRESSD_VERSION);
  app.require_subcommand(1);
  egressd::daemon::Options options;
  std::string log_level = "info";
  CLI::App* run_command = app.add_subcommand(
      "run", "Enforce a policy and keep it up to date; enforcement outlives the process");
  run_command->add_option("--policy", options.policy_path, "Policy file (YAML)")->required();
  run_command->add_option("--mode", options.mode, "Instead of the mode the policy names")
      ->check(CLI::IsMember({"audit", "enforce"}));
  run_command->add_option(
      "--cgroup", options.cgroup_path,
      "cgroup v2 directory to enforce on (default: the root, the whole machine)");
  run_command
      ->add_option(
          "--backend", options.backend,
          "What enforces: programs in the kernel; nftables, with DNS through the agent; or "
          "the programs with nftables behind them")
      ->check(CLI::IsMember({"bpf", "nft", "both"}))
      ->capture_default_str();
  run_command
      ->add_option("--nft-scope", options.nft_scope,
                   "With --backend both, what nftables judges: the whole host with what it "
                   "forwards, or nothing beyond --cgroup (default: host, if that is the root)")
      ->check(CLI::IsMember({"host", "cgroup"}));
  run_command->add_option("--state-dir", options.state_dir, "What must survive a restart")
      ->capture_default_str();
  run_command->add_option("--bpffs", options.bpffs_dir, "Where kernel objects are pinned")
      ->capture_default_str();
  run_command->add_option("--socket", options.socket_path, "Control socket of egressctl")
      ->capture_default_str();
  run_command->add_option(
      "--audit-log", options.audit.log,
      "File for denial records (JSON lines), '-' for standard output (the default, "
      "unless another --audit- option says where)");
  run_command
      ->add_option("--audit-format", options.audit.format,
                   "Keys of the lines: egressd's own, or the columns of Azure Firewall's tables")
      ->check(CLI::IsMember({"json", "azfw"}))
      ->capture_default_str();
  run_command->add_option("--audit-resource-id", options.audit.resource_id,
                          "This machine's _ResourceId in --audit-format azfw");
  run_command
      ->add_option("--audit-max-size", options.audit.max_size,
                   "Size (bytes, or 100MB and the like) at which FILE becomes FILE.1; 0: never")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str();
  run_command
      ->add_option("--audit-keep", options.audit.keep, "How many old files --audit-max-size keeps")
      ->check(CLI::Range(1u, 1000u))
      ->capture_default_str();
  run_command->add_flag("--await-resolv-conf", options.await_resolv_conf,
                        "Begin also while no DNS server is known: nobody may be asked until "
                        "resolv.conf names one");
  run_command->add_flag("--audit-journal", options.audit.journal,
                        "Denial records to systemd's journal, with a field for each key");
  run_command
      ->add_option("--dns-log", options.dns_log,
                   "Instead of the policy's dns.log: records of refused questions, or of all")
      ->check(CLI::IsMember({"denied", "all"}));
  run_command->add_option("--audit-syslog", options.audit.syslog,
                          "Denial records to syslog (RFC 5424): unix, unix:/path or ADDRESS:PORT "
                          "(UDP)");
  run_command
      ->add_option("--metrics-listen", options.metrics_listen,
                   "ADDRESS:PORT of /metrics, /healthz and /readyz, or off")
      ->capture_default_str();
  run_command
      ->add_option("--max-learned", options.max_learned,
                   "Addresses learned from DNS the kernel holds at most")
      ->check(CLI::Range(1024u, 16u << 20))
      ->capture_default_str();
  run_command
      ->add_option("--log-level", log_level, "Level of the agent's own log on standard error")
      ->check(CLI::IsMember({"trace", "debug", "info", "warning", "error", "critical", "off"}))
      ->capture_default_str();

  egressd::daemon::BootOptions boot_options{.state_dir = options.state_dir,
                                            .policy_path = "/etc/egressd/policy.yaml",
                                            .bpffs_dir = options.bpffs_dir,
                                            .resolv_conf = {},
                                            .off = false};
  CLI::App* boot_command = app.add_subcommand(
      "boot",
      "Close the machine by nftables until an agent is in force: with the last good policy's "
      "addresses, before the network comes up");
  boot_command->add_option("--state-dir", boot_options.state_dir, "Where the agent keeps that")
      ->capture_default_str();
  boot_command
      ->add_option("--policy", boot_options.policy_path,
                   "Policy file, for a machine whose last good policy is missing")
      ->capture_default_str();
  boot_command
      ->add_option("--bpffs", boot_options.bpffs_dir, "Where an agent's kernel objects are pinned")
      ->capture_default_str();
  boot_command->add_flag("--off", boot_options.off, "Remove it: it refuses nothing any more");
  CLI11_PARSE(app, argc, argv);

  spdlog::set_default_logger(spdlog::stderr_logger_st("egressd"));
  spdlog::set_level(spdlog::level::from_str(log_level));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%f%z %l %v");
  Result<void> r;
  try {
    r = boot_command->parsed() ? egressd::daemon::boot(boot_options) : run(options);
  } catch (const std::exception& e) {  // std::bad_alloc: nothing of ours throws
    r = std::unexpected(Error::of(std::string("out of memory? ") + e.what() +
                                  "; what is in force stays in force, start egressd again"));
  }
  if (!r) {
    std::fprintf(stderr, "%s\n", r.error().message.c_str());
    // Policy errors begin with the file's name, like a compiler's.
    return !options.policy_path.empty() && r.error().message.starts_with(options.policy_path + ":")
               ? kExitPolicy
               : kExitFailure;
  }
  return 0;
}
