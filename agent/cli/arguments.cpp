#include <CLI/CLI.hpp>
#include <ostream>

#include "cli/commands.h"
#include "cli/completion.h"
#include "cli/doctor_command.h"
#include "cli/exec_command.h"
#include "control/message.h"
#include "enforce/pins.h"

namespace egressd::cli {

int run(int argc, const char* const* argv, Streams io) {
  CLI::App app{"egressctl: ask and control egressd", "egressctl"};
  app.require_subcommand(1);
  app.footer(
      "Exit codes: 0 done (verdict: all allowed); 1 verdict: something is denied; 2 wrong\n"
      "arguments or an invalid policy; 3 no daemon answers; 4 the daemon or the kernel refused.\n"
      "doctor: 0 all is well, 1 something is degraded, 4 something is broken.\n"
      "exec: the command's own, 128 + signal if one ended it; 125 exec itself failed, 126 the\n"
      "command cannot be run, 127 it was not found.");

  bool json = false;
  bool dns = false;
  std::string socket = control::kDefaultSocket;
  std::string bpffs = enforce::kDefaultBpffsDir;
  std::string file;
  std::string policy;
  std::string name;
  std::string cloud;
  std::vector<std::string> destinations;
  std::uint64_t count = 0;

  const auto add = [&](CLI::App& parent, const char* command, const char* text) {
    auto* sub = parent.add_subcommand(command, text);
    sub->add_flag("--json", json, "JSON for programs");
    return sub;
  };
  const auto add_daemon = [&](const char* command, const char* text) {
    auto* sub = add(app, command, text);
    sub->add_option("--socket", socket, "Control socket of the daemon")->capture_default_str();
    return sub;
  };
  const auto add_cloud = [&](CLI::App* sub) {
    sub->add_option("--cloud", cloud, "Only what this cloud opens")
        ->check(CLI::IsMember({"public", "usgov", "china"}));
  };

  auto* check_command = add(app, "check", "Validate a policy file");
  check_command->add_option("FILE", file, "Policy file")->required();

  auto* verdict_command =
      add(app, "verdict", "What a policy says of destinations; asks no daemon and no DNS");
  verdict_command->add_option("--policy", policy, "Policy file")->required();
  verdict_command
      ->add_option("DEST", destinations,
                   "NAME or ADDRESS, then [:PORT] and [/PROTO]; IPv6 with a port in brackets: "
                   "[2001:db8::1]:443. Default port 443, default protocol tcp")
      ->required();

  auto* tags = app.add_subcommand("tags", "FQDN tags this program knows");
  tags->require_subcommand(1);
  auto* tags_list_command = add(*tags, "list", "All tags");
  add_cloud(tags_list_command);
  auto* tags_show_command = add(*tags, "show", "What a tag opens, from which document");
  tags_show_command->add_option("NAME", name, "Name of the tag")->required();
  add_cloud(tags_show_command);

  auto* status_command = add_daemon("status", "State of the running daemon");
  auto* list_command = add_daemon("list", "Addresses in force");
  auto* watch_command = add_daemon("watch", "Denials as they happen, until Ctrl-C");
  watch_command->add_flag("--dns", dns,
                          "Instead, the names and addresses the kernel learns from DNS answers");
  watch_command->add_option("--count", count, "Stop after so many");
  auto* detach_command = add_daemon(
      "detach", "End enforcement: remove all of egressd from the kernel. Works without a daemon");
  detach_command->add_option("--bpffs", bpffs, "Where the programs are pinned")
      ->capture_default_str();

  doctor::Options doctor_options;
  doctor_options.state_dir = doctor::kDefaultStateDir;
  auto* doctor_command =
      add_daemon("doctor", "Look at this machine and the agent on it, say what is wrong");
  doctor_command->add_option("--policy", doctor_options.policy,
                             "Policy file (default: the daemon's)");
  doctor_command->add_option("--cgroup", doctor_options.cgroup,
                             "cgroup to look at (default: the daemon's)");
  doctor_command->add_option("--bpffs", bpffs, "Where the programs are pinned")
      ->capture_default_str();
  doctor_command->add_option("--state-dir", doctor_options.state_dir, "State of the daemon")
      ->capture_default_str();

  ExecOptions exec_options;
  auto* exec_command = add(app, "exec",
                           "Run a command that reaches what a policy allows and nothing else, with "
                           "an agent of its own");
  exec_command->add_option("--policy", exec_options.policy, "Policy file")->capture_default_str();
  exec_command->add_flag("--audit", exec_options.audit,
                         "Refuse nothing, list what would have been refused");
  exec_command->add_option("--summary", exec_options.summary,
                           "File for the list of refusals, '-' for standard output (default: "
                           "standard error, if there are any)");
  exec_command->add_option("--user", exec_options.user,
                           "Run the command as this user (default: whoever calls)");
  exec_command->add_option("--egressd", exec_options.egressd,
                           "The agent's program (default: beside egressctl, then in PATH)");
  exec_command->add_option("COMMAND", exec_options.command, "Command and arguments, after --")
      ->required();

  std::string shell;
  auto* completion_command = app.add_subcommand("completion", "Completion script for a shell");
  completion_command->add_option("SHELL", shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (app.exit(e, io.out, io.err) == 0) return kOk;
    // The others are the command's own.
    return exec_command->parsed() ? kExecFailed : kUsage;
  }

  const DaemonOptions daemon{.socket = socket, .json = json};
  if (check_command->parsed()) return check(file, json, io);
  if (verdict_command->parsed()) return verdict(policy, destinations, json, io);
  if (tags_list_command->parsed()) return tags_list(cloud, json, io);
  if (tags_show_command->parsed()) return tags_show(name, cloud, json, io);
  if (status_command->parsed()) return status(daemon, io);
  if (list_command->parsed()) return list(daemon, io);
  if (watch_command->parsed()) return watch(daemon, dns, count, io);
  if (detach_command->parsed()) return detach(daemon, bpffs, io);
  if (doctor_command->parsed()) {
    doctor_options.socket = socket;
    doctor_options.bpffs = bpffs;
    return doctor(doctor_options, json, io);
  }
  if (completion_command->parsed()) return write_completion(app, shell, io.out) ? kOk : kUsage;
  if (exec_command->parsed()) {
    exec_options.json = json;
    return exec(exec_options, io);
  }
  return kUsage;
}

}  // namespace egressd::cli
