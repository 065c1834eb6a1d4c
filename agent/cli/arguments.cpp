#include <CLI/CLI.hpp>
#include <map>
#include <ostream>

#include "cli/analysis_commands.h"
#include "cli/commands.h"
#include "cli/completion.h"
#include "cli/doctor_command.h"
#include "cli/exec_command.h"
#include "cli/live_commands.h"
#include "control/message.h"
#include "enforce/pins.h"

namespace egressd::cli {

int run(int argc, const char* const* argv, Streams io) {
  CLI::App app{"egressctl: ask and control egressd", "egressctl"};
  app.require_subcommand(1);
  app.footer(
      "Exit codes: 0 done (verdict: all allowed; replay: nothing changes); 1 verdict, explain:\n"
      "something is denied, replay: something changes; 2 wrong arguments or an invalid policy;\n"
      "3 no daemon answers; 4 the daemon or the kernel refused.\n"
      "doctor: 0 all is well, 1 something is degraded, 4 something is broken.\n"
      "exec: the command's own, 128 + signal if one ended it; 125 exec itself failed, 126 the\n"
      "command cannot be run, 127 it was not found.");

  bool json = false;
  std::string socket = control::kDefaultSocket;
  std::string bpffs = enforce::kDefaultBpffsDir;
  std::string file;
  std::string policy;
  std::string name;
  std::string cloud;
  std::vector<std::string> destinations;
  long long duration = 0;  // seconds
  std::string reason;

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
  const auto add_bpffs = [&](CLI::App* sub) {
    sub->add_option("--bpffs", bpffs, "Where the programs are pinned")->capture_default_str();
  };
  const auto add_duration = [&](CLI::App* sub) {
    return sub->add_option("--for", duration, "How long: 90s, 15m, 2h; a day at most")
        ->transform(CLI::AsNumberWithUnit(
            std::map<std::string, long long>{{"s", 1}, {"m", 60}, {"h", 3600}},
            CLI::AsNumberWithUnit::UNIT_REQUIRED, "TIME"))
        ->check(CLI::Range(1LL, 86400LL));
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
  const LiveCommands live(app);
  auto* explain_command = add_daemon(
      "explain", "Why a destination, or what a process is connected to, is reachable or not");
  explain_command
      ->add_option("TARGET", name,
                   "NAME or ADDRESS, then [:PORT] and [/PROTO] as for `verdict`; or the number of "
                   "a process")
      ->required();
  add_bpffs(explain_command);
  auto* reload_command =
      add_daemon("reload", "Read the policy file again; the daemon also does when it changes");
  auto* try_command = add_daemon(
      "try", "Put a policy in force for a time; rolled back unless `confirm` comes before");
  try_command->add_option("FILE", file, "Policy file, as the daemon sees it")->required();
  add_duration(try_command)->required();
  auto* confirm_command =
      add_daemon("confirm", "Keep the policy on trial: it becomes the daemon's policy file");
  auto* rollback_command = add_daemon("rollback", "End a trial at once");
  auto* open_command = add(
      app, "open", "Break-glass: refuse nothing for a time, only record. Works without a daemon");
  add_duration(open_command)->required();
  open_command->add_option("--reason", reason, "Why, for the record")->required();
  add_bpffs(open_command);
  auto* close_command = add(app, "close", "End what `open` began. Works without a daemon");
  add_bpffs(close_command);
  auto* detach_command = add_daemon(
      "detach", "End enforcement: remove all of egressd from the kernel. Works without a daemon");
  add_bpffs(detach_command);

  const AnalysisCommands analysis(app);

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
  exec_command->add_option("--records", exec_options.records,
                           "File for the audit records, one line of JSON each");
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
  if (const auto code = live.run(io)) return *code;
  if (explain_command->parsed()) return explain(daemon, name, bpffs, io);
  if (reload_command->parsed()) return put_in_force(daemon, "reload", io);
  if (try_command->parsed()) return try_policy(daemon, file, std::chrono::seconds(duration), io);
  if (confirm_command->parsed()) return confirm(daemon, io);
  if (rollback_command->parsed()) return put_in_force(daemon, "rollback", io);
  if (open_command->parsed()) return open(bpffs, std::chrono::seconds(duration), reason, json, io);
  if (close_command->parsed()) return close(bpffs, json, io);
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
  return analysis.run(io).value_or(kUsage);
}

}  // namespace egressd::cli
