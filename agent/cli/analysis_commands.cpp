#include "cli/analysis_commands.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "analysis/learn.h"
#include "analysis/record_stream.h"
#include "analysis/replay.h"
#include "analysis/report.h"
#include "policy/parser.h"

namespace egressd::cli {
namespace {

using analysis::StreamStats;
using audit::printable;
using nlohmann::ordered_json;

void say(Streams io, const std::string& text) { io.err << "egressctl: " << text << '\n'; }

// Reads every file, "-" and none at all being standard input. False: said why.
bool read_all(const std::vector<std::string>& files, StreamStats& stats,
              const analysis::Visitor& visitor, Streams io) {
  const auto read = [&](std::istream& in, const std::string& name) {
    if (analysis::read_records(in, stats, visitor)) return true;
    say(io, printable(name) + " could not be read to its end");
    return false;
  };
  if (files.empty()) return read(std::cin, "standard input");
  for (const auto& file : files) {
    if (file == "-") {
      if (!read(std::cin, "standard input")) return false;
      continue;
    }
    std::error_code ignored;
    if (std::filesystem::is_directory(file, ignored)) {
      say(io, printable(file) + " is a directory; name the files in it");
      return false;
    }
    errno = 0;
    std::ifstream in(file, std::ios::binary);
    if (!in) {
      say(io, "cannot open " + printable(file) + ": " +
                  std::strerror(errno));  // NOLINT(concurrency-mt-unsafe)
      return false;
    }
    if (!read(in, file)) return false;
  }
  return true;
}

// What of the input was no record; said on the error stream, so that the output stays what it is.
void say_stats(const StreamStats& stats, Streams io) {
  if (stats.records == 0 && stats.gaps == 0)
    say(io,
        "no audit records in the input; they are what egressd writes with --audit, a line each");
  if (stats.bad > 0) say(io, analysis::counted(stats.bad, "line") + " skipped: no audit records");
  if (stats.gaps > 0)
    say(io, "the records are not complete: " + analysis::counted(stats.lost, "record") +
                " lost in " + analysis::counted(stats.gaps, "gap"));
}

// False: said why.
bool load(const std::string& file, std::optional<policy::Policy>& out, Streams io) {
  auto parsed = policy::load_policy(file, policy::TagCatalog::builtin());
  if (parsed) {
    out = std::move(parsed->policy);
    return true;
  }
  for (const auto& d : parsed.error()) io.err << printable(d.to_string()) << '\n';
  return false;
}

struct LearnArguments {
  std::vector<std::string> files;
  std::string policy;
  std::string collection = "learned";
  std::vector<std::uint16_t> ports = {443};
};

int learn(const LearnArguments& arguments, Streams io) {
  const auto& name = arguments.collection;
  if (name.empty() || name.size() > 128 || name == "tags" || printable(name) != name ||
      name.contains('"')) {
    say(io,
        "--name must be 1 to 128 printable ASCII characters without quotes and backslashes, "
        "and not 'tags'");
    return kUsage;
  }
  std::optional<policy::Policy> existing;
  if (!arguments.policy.empty() && !load(arguments.policy, existing, io)) return kUsage;
  if (existing &&
      std::ranges::any_of(existing->collections, [&](const auto& c) { return c.name == name; }))
    say(io, "warning: the given policy has a collection '" + printable(name) +
                "' already; --name gives the new one another name");
  auto ports = arguments.ports;
  std::ranges::sort(ports);
  ports.erase(std::ranges::unique(ports).begin(), ports.end());
  analysis::Learner learner({.collection = name,
                             .asked_ports = std::move(ports),
                             .existing = existing ? &*existing : nullptr});
  StreamStats stats;
  if (!read_all(arguments.files, stats,
                {.record = [&](const audit::Record& record) { learner.add(record); }}, io))
    return kUsage;
  const auto learned = learner.finish();
  io.out << learned.yaml;
  for (const auto& warning : learned.warnings) say(io, "warning: " + warning);
  say_stats(stats, io);
  if (learned.rules == 0) {
    say(io, "nothing to make a rule of: the output is no policy");
    return kOk;
  }
  // What limits say of the whole file is known to its parser only.
  const auto checked = policy::parse_policy(learned.yaml, "learned", policy::TagCatalog::builtin());
  if (checked) return kOk;
  for (const auto& d : checked.error()) io.err << printable(d.to_string()) << '\n';
  say(io, "the output is no valid policy; learn from fewer records");
  return kFailed;
}

struct ReplayArguments {
  std::vector<std::string> files;
  std::string policy;
  bool json = false;
};

std::string place_of(const analysis::ReplayGroup& group) {
  std::string out = printable(group.destination);
  if (group.question) return "DNS question for " + out;
  if (group.port != 0) {
    if (out.contains(':')) out = "[" + out + "]";
    out += ":" + std::to_string(group.port);
  }
  return out + "/" + net::to_string(group.protocol);
}

ordered_json to_json(const analysis::ReplayGroup& group) {
  ordered_json j{{"destination", group.destination},
                 {"port", group.port},
                 {"protocol", net::to_string(group.protocol)},
                 {"question", group.question},
                 {"count", group.count},
                 {"before", analysis::to_string(group.before)},
                 {"before_reason", group.before_reason},
                 {"after", analysis::to_string(group.after)}};
  if (!group.after_rule.empty()) j["after_rule"] = group.after_rule;
  j["why"] = group.why;
  return j;
}

void print(const analysis::ReplayGroup& group, std::ostream& out) {
  const bool uncertain = group.after == analysis::Outcome::Uncertain;
  out << place_of(group) << "  (" << group.count << ")\n  - " << analysis::to_string(group.before)
      << ": " << printable(group.before_reason) << "\n  " << (uncertain ? "? " : "+ ")
      << analysis::to_string(group.after);
  if (!group.after_rule.empty()) {
    out << " by " << printable(group.after_rule) << '\n';
  } else {
    out << ": " << printable(group.why) << '\n';
  }
}

int replay(const ReplayArguments& arguments, Streams io) {
  std::optional<policy::Policy> policy;
  if (!load(arguments.policy, policy, io)) return kUsage;
  analysis::Replay replay(*policy);
  StreamStats stats;
  if (!read_all(arguments.files, stats,
                {.record = [&](const audit::Record& record) { replay.add(record); }}, io))
    return kUsage;
  const auto& totals = replay.totals();
  const auto changes = replay.changes();
  if (arguments.json) {
    auto list = ordered_json::array();
    for (const auto& group : changes) list.push_back(to_json(group));
    io.out << ordered_json{{"verdicts", totals.verdicts},
                           {"changed", totals.changed},
                           {"uncertain", totals.uncertain},
                           {"nameless", totals.nameless},
                           {"unjudged", totals.unjudged},
                           {"unlisted", totals.others},
                           {"records", stats.records},
                           {"bad_lines", stats.bad},
                           {"gaps", stats.gaps},
                           {"lost", stats.lost},
                           {"changes", std::move(list)}}
                  .dump(-1, ' ', true, ordered_json::error_handler_t::replace)
           << '\n';
  } else {
    for (const auto& group : changes) print(group, io.out);
    io.out << totals.changed << " of " << analysis::counted(totals.verdicts, "recorded verdict")
           << " would change";
    if (totals.uncertain > 0) io.out << ", " << totals.uncertain << " are uncertain";
    io.out << '\n';
    if (totals.others > 0)
      io.out << totals.others << " of them are not listed: too many destinations\n";
    if (totals.nameless > 0)
      io.out
          << totals.nameless
          << " were judged by their address only: no name was known. Under this policy the agent "
             "may know names for them\n";
    if (totals.unjudged > 0)
      io.out << totals.unjudged << " are not for policies to decide (such as malformed packets)\n";
  }
  say_stats(stats, io);
  return totals.changed > 0 || totals.uncertain > 0 ? kDenied : kOk;
}

struct ReportArguments {
  std::vector<std::string> files;
  std::string policy;
  std::string output = "-";
};

int report(const ReportArguments& arguments, Streams io) {
  std::optional<policy::Policy> policy;
  if (!arguments.policy.empty() && !load(arguments.policy, policy, io)) return kUsage;
  analysis::Report report;
  StreamStats stats;
  if (!read_all(arguments.files, stats,
                {.record = [&](const audit::Record& record) { report.add(record); },
                 .gap = [&](std::uint64_t lost) { report.add_gap(lost); }},
                io))
    return kUsage;
  const auto page = report.html(stats, policy ? &*policy : nullptr);
  say_stats(stats, io);
  if (arguments.output == "-") {
    io.out << page;
    return kOk;
  }
  std::ofstream out(arguments.output, std::ios::binary | std::ios::trunc);
  out << page;
  out.close();
  if (!out) {
    say(io, "cannot write " + printable(arguments.output) +
                "; name a file in a directory that exists and has room");
    return kUsage;
  }
  return kOk;
}

}  // namespace

struct AnalysisCommands::Impl {
  CLI::App* learn = nullptr;
  CLI::App* replay = nullptr;
  CLI::App* report = nullptr;
  LearnArguments learn_arguments;
  ReplayArguments replay_arguments;
  ReportArguments report_arguments;
};

AnalysisCommands::AnalysisCommands(CLI::App& app) : impl_(std::make_unique<Impl>()) {
  auto& learn = impl_->learn_arguments;
  impl_->learn = app.add_subcommand(
      "learn", "A policy that would have allowed what audit records say was denied, as YAML");
  impl_->learn->add_option("--from", learn.files,
                           "Audit records, JSON lines; - or none: standard input");
  impl_->learn->add_option("--name", learn.collection, "Name of the collection")
      ->capture_default_str();
  impl_->learn
      ->add_option("--ports", learn.ports,
                   "Ports for names that were asked, but that no connection was seen to")
      ->delimiter(',')
      ->check(CLI::Range(1, 65535))
      ->capture_default_str();
  impl_->learn->add_option("--policy", learn.policy,
                           "Leave out what this policy file allows already");

  auto& replay = impl_->replay_arguments;
  impl_->replay = app.add_subcommand(
      "replay", "Which recorded verdicts another policy would change; exit code 1 if any");
  impl_->replay->add_option("--policy", replay.policy, "The other policy file")->required();
  impl_->replay->add_option("RECORDS", replay.files,
                            "Audit records, JSON lines; - or none: standard input");
  impl_->replay->add_flag("--json", replay.json, "JSON for programs");

  auto& report = impl_->report_arguments;
  impl_->report = app.add_subcommand("report", "Audit records as one HTML page");
  impl_->report->add_option("RECORDS", report.files,
                            "Audit records, JSON lines; - or none: standard input");
  impl_->report->add_option("-o,--output", report.output, "File to write; - is standard output")
      ->capture_default_str();
  impl_->report->add_option("--policy", report.policy,
                            "Policy file; the page lists its rules that no record names");
}

AnalysisCommands::~AnalysisCommands() = default;

std::optional<int> AnalysisCommands::run(Streams io) const {
  if (impl_->learn->parsed()) return learn(impl_->learn_arguments, io);
  if (impl_->replay->parsed()) return replay(impl_->replay_arguments, io);
  if (impl_->report->parsed()) return report(impl_->report_arguments, io);
  return std::nullopt;
}

}  // namespace egressd::cli
