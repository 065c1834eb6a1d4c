#include "cli/live_commands.h"

#include <CLI/CLI.hpp>
#include <map>
#include <string>

#include "control/message.h"

namespace egressd::cli {
namespace {

const std::map<std::string, ColorWhen> kColors{
    {"auto", ColorWhen::Auto}, {"always", ColorWhen::Always}, {"never", ColorWhen::Never}};

CLI::App* add(CLI::App& app, const char* name, const char* text, DaemonOptions& daemon) {
  daemon.socket = control::kDefaultSocket;
  auto* command = app.add_subcommand(name, text);
  command->add_flag("--json", daemon.json, "JSON for programs");
  command->add_option("--socket", daemon.socket, "Control socket of the daemon")
      ->capture_default_str();
  return command;
}

// Into milliseconds.
CLI::Option* add_time(CLI::App* command, const char* name, const char* text, long long& into) {
  return command->add_option(name, into, text)
      ->transform(CLI::AsNumberWithUnit(
          std::map<std::string, long long>{{"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3600'000}},
          CLI::AsNumberWithUnit::UNIT_REQUIRED, "TIME"))
      ->check(CLI::Validator(
          [](const std::string& value) {
            const auto ms = std::stoll(value);
            return ms >= 100 && ms <= 86'400'000
                       ? std::string()
                       : std::string("must be 100ms at least and 24h at most");
          },
          ""));
}

}  // namespace

struct LiveCommands::Impl {
  CLI::App* watch = nullptr;
  CLI::App* top = nullptr;
  WatchOptions watch_options = {};
  std::string color = "auto";
  TopOptions top_options = {};
  std::string by = "destination";
  long long interval_ms = 2000;
  long long for_ms = 0;
  bool once = false;
};

LiveCommands::LiveCommands(CLI::App& app) : impl_(std::make_unique<Impl>()) {
  auto& watch = impl_->watch_options;
  impl_->watch = add(app, "watch", "Denials as they happen, until Ctrl-C", watch.daemon);
  auto* dns = impl_->watch->add_flag(
      "--dns", watch.dns, "Instead, the names and addresses the kernel learns from DNS answers");
  impl_->watch->add_option("--count", watch.count, "Stop after so many");
  impl_->watch->add_option("--color", impl_->color, "Colour: auto is on a terminal only")
      ->check(CLI::IsMember({"auto", "always", "never"}))
      ->capture_default_str();
  for (auto* filter : add_filter_options(*impl_->watch, watch.filter)) dns->excludes(filter);

  auto& top = impl_->top_options;
  impl_->top = add(app, "top", "What is denied most, as a table that stays current", top.daemon);
  impl_->top->add_option("--by", impl_->by, "What the rows are")
      ->check(CLI::IsMember({"destination", "process", "pod", "rule", "reason"}))
      ->capture_default_str();
  add_time(impl_->top, "--interval", "Time between two tables, such as 500ms or 10s (default: 2s)",
           impl_->interval_ms);
  add_time(impl_->top, "--for", "Count for so long, print one table and end", impl_->for_ms);
  impl_->top->add_flag("--once", impl_->once, "Count for one interval, print one table and end");
  impl_->top->add_option("--limit", top.limit, "Rows at most (default: all that fit)")
      ->check(CLI::Range(1u, 1'000'000u));
  add_filter_options(*impl_->top, top.filter);
}

LiveCommands::~LiveCommands() = default;

std::optional<int> LiveCommands::run(Streams io) const {
  if (impl_->watch->parsed()) {
    auto options = impl_->watch_options;
    options.color = kColors.at(impl_->color);
    return watch(options, io);
  }
  if (!impl_->top->parsed()) return std::nullopt;
  auto options = impl_->top_options;
  for (const auto by : {TopBy::Destination, TopBy::Process, TopBy::Pod, TopBy::Rule, TopBy::Reason})
    if (impl_->by == to_string(by)) options.by = by;
  options.interval = std::chrono::milliseconds(impl_->interval_ms);
  if (impl_->for_ms != 0)
    options.once = std::chrono::milliseconds(impl_->for_ms);
  else if (impl_->once)
    options.once = options.interval;
  return top(options, io);
}

}  // namespace egressd::cli
