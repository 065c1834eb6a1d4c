#include <array>
#include <chrono>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <ostream>

#include "audit/record.h"
#include "base/result.h"
#include "cli/ask.h"
#include "cli/commands.h"
#include "cli/table.h"
#include "control/client.h"
#include "enforce/boot_table.h"
#include "enforce/nft_table.h"
#include "enforce/pins.h"

namespace egressd::cli {
namespace {

using audit::printable;
using nlohmann::ordered_json;

void print_counters(const ordered_json& j, const char* key, std::ostream& out) {
  const auto it = j.find(key);
  if (it == j.end() || !it->is_object() || it->empty()) return;
  out << key << ":\n";
  std::vector<std::vector<std::string>> rows;
  for (const auto& [name, value] : it->items())
    rows.push_back({"  " + name, value.is_string() ? value.get<std::string>() : dump(value)});
  write_table(out, rows);
}

void print_array(const ordered_json& j, const char* key, std::ostream& out, auto row_of) {
  const auto it = j.find(key);
  if (it == j.end() || !it->is_array() || it->empty()) return;
  out << key << ":\n";
  std::vector<std::vector<std::string>> rows;
  for (const auto& element : *it)
    rows.push_back(element.is_object()
                       ? row_of(element)
                       : std::vector<std::string>{"  " + (element.is_string()
                                                              ? element.template get<std::string>()
                                                              : dump(element))});
  write_table(out, rows);
}

// Always these, and the others of `kDnsTrouble` once they have happened.
constexpr std::array kDnsShown{"asked", "learned", "denied_name"};
// Learned less, or with less room, than the policy would allow.
constexpr std::array kDnsTrouble{"events_lost",     "address_full", "address_quota",
                                 "address_evicted", "branch_lost",  "pending_failed"};

void print_dns(const ordered_json& j, std::ostream& out) {
  const auto dns = j.find("dns");
  if (dns == j.end() || !dns->is_object()) return;
  ordered_json shown = ordered_json::object();
  for (const char* name : kDnsShown)
    if (const auto n = number_of(*dns, name)) shown[name] = *n;
  for (const char* name : kDnsTrouble)
    if (const auto n = number_of(*dns, name); n && *n != 0) shown[name] = *n;
  print_counters({{"dns", std::move(shown)}}, "dns", out);
}

}  // namespace

int status(const DaemonOptions& options, Streams io) {
  const auto answer = ask(options.socket, "status");
  if (!answer) {
    if (enforce::boot_table_is_there().value_or(false))
      io.err << "egressctl: table inet egressd_boot closes this machine since it booted; start "
                "egressd, or open the machine: egressctl open, egressd boot --off\n";
    return report(answer.error(), options, io);
  }
  const auto& j = answer->first;
  if (options.json) {
    io.out << dump(j) << '\n';
    return kOk;
  }
  std::vector<std::vector<std::string>> rows;
  for (const auto* key :
       {"mode", "generation", "policy_path", "policy_hash", "last_good_reload", "cgroup", "pid"})
    rows.push_back({key, text_of(j, key)});
  const auto uptime = number_of(j, "uptime_seconds");
  rows.push_back({"uptime", !uptime ? "-" : *uptime > 0 ? format_seconds(*uptime) : "0s"});
  rows.push_back({"learned_entries", text_of(j, "learned_entries")});
  if (const auto m = j.find("meanwhile"); m != j.end() && m->is_object())
    rows.push_back({"while no agent ran", text_of(*m, "denials") + " denials, " +
                                              text_of(*m, "questions") + " refused questions, " +
                                              text_of(*m, "learned") + " answers learned"});
  write_table(io.out, rows);
  print_array(j, "layers", io.out, [](const ordered_json& layer) {
    const auto attached = layer.find("attached");
    const bool yes = attached != layer.end() && attached->is_boolean() && attached->get<bool>();
    return std::vector<std::string>{"  " + text_of(layer, "program"),
                                    yes ? "attached" : "NOT ATTACHED", text_of(layer, "detail")};
  });
  print_counters(j, "counters", io.out);
  print_counters(j, "stats", io.out);
  print_array(j, "audit_sinks", io.out, [](const ordered_json& sink) {
    return std::vector<std::string>{"  " + text_of(sink, "name"), text_of(sink, "lost") + " lost"};
  });
  print_dns(j, io.out);
  print_array(j, "resolver", io.out, [](const ordered_json& name) {
    const auto resolved = name.find("resolved");
    const bool yes = resolved != name.end() && resolved->is_boolean() && resolved->get<bool>();
    return std::vector<std::string>{"  " + text_of(name, "name"), yes ? "resolved" : "NOT RESOLVED",
                                    name.contains("error") ? text_of(name, "error") : ""};
  });
  print_array(j, "warnings", io.out, [](const ordered_json& warning) {
    return std::vector<std::string>{"  " + dump(warning)};
  });
  return kOk;
}

int list(const DaemonOptions& options, Streams io) {
  auto answer = ask(options.socket, "list");
  if (!answer) return report(answer.error(), options, io);
  std::vector<std::vector<std::string>> rows{
      {"ADDRESS", "NAME", "PATTERN", "RULE", "ASKED BY", "TIME LEFT"}};
  std::size_t missing = 0;
  for (;;) {
    const auto line = answer->client.read_line(kTimeout);
    if (!line) {
      io.err << "egressctl: " << printable(line.error().message) << '\n';
      return kFailed;
    }
    if (!*line) break;
    const auto j = ordered_json::parse(**line, nullptr, false);
    if (!j.is_object()) {
      io.err << "egressctl: the daemon sent a line that is no JSON object\n";
      return kFailed;
    }
    if (const auto dropped = number_of(j, "dropped")) missing += static_cast<std::size_t>(*dropped);
    if (options.json) {
      io.out << dump(j) << '\n';
      continue;
    }
    if (j.contains("dropped")) continue;
    const auto left = number_of(j, "expires_in_seconds");
    std::string name = text_of(j, "fqdn");
    if (const auto chain = joined(j, "cname_chain", " -> "); !chain.empty()) name += " -> " + chain;
    rows.push_back({text_of(j, "address"), std::move(name), text_of(j, "pattern"),
                    text_of(j, "collection") + "/" + text_of(j, "rule"), asker_text(j),
                    left ? format_seconds(*left) : "-"});
  }
  if (!options.json) write_table(io.out, rows);
  if (missing > 0) {
    io.err << "egressctl: " << missing << " entries are missing from this list\n";
    return kFailed;
  }
  return kOk;
}

int try_policy(const DaemonOptions& options, const std::string& file, std::chrono::seconds duration,
               Streams io) {
  std::error_code ec;
  const std::string path = std::filesystem::absolute(file, ec).string();
  const auto answer =
      ask(options.socket, "try", {{"path", path}, {"seconds", std::to_string(duration.count())}});
  if (!answer) return report(answer.error(), options, io);
  if (options.json)
    io.out << dump(answer->first) << '\n';
  else
    io.out << "generation " << text_of(answer->first, "generation") << " in force on trial for "
           << format_seconds(duration.count())
           << "; `egressctl confirm` keeps it, `egressctl rollback` ends it sooner\n";
  return kOk;
}

int confirm(const DaemonOptions& options, Streams io) {
  const auto answer = ask(options.socket, "confirm");
  if (!answer) return report(answer.error(), options, io);
  if (options.json)
    io.out << dump(answer->first) << '\n';
  else
    io.out << "confirmed: written to " << printable(text_of(answer->first, "policy_path")) << '\n';
  return kOk;
}

int put_in_force(const DaemonOptions& options, const std::string& command, Streams io) {
  const auto answer = ask(options.socket, command);
  if (!answer) return report(answer.error(), options, io);
  if (options.json)
    io.out << dump(answer->first) << '\n';
  else
    io.out << "generation " << text_of(answer->first, "generation") << " in force\n";
  return kOk;
}

int detach(const DaemonOptions& options, const std::string& bpffs_dir, Streams io) {
  std::vector<std::string> removed;
  bool by_daemon = false;
  // One part that fails must not keep the others in force.
  bool failed = false;
  const auto fail = [&](const Error& error) {
    io.err << "egressctl: " << printable(error.message) << '\n';
    failed = true;
  };
  if (const auto answer = ask(options.socket, "detach")) {
    by_daemon = true;
    if (const auto it = answer->first.find("removed"); it != answer->first.end() && it->is_array())
      for (const auto& item : *it)
        removed.push_back(item.is_string() ? item.get<std::string>() : dump(item));
  } else {
    // Also when a daemon is there but says no or hangs: the way out must not depend on it.
    io.err << "egressctl: " << printable(answer.error().message) << "; removing the pins in "
           << printable(bpffs_dir) << " without it\n";
    if (auto pins = enforce::detach_pinned(bpffs_dir))
      removed = std::move(*pins);
    else
      fail(pins.error());
    const auto table = enforce::remove_nft_table();
    if (!table) fail(table.error());
    if (table.value_or(false)) removed.emplace_back("table inet egressd (deleted)");
  }
  const auto boot = enforce::remove_boot_table();
  if (!boot) fail(boot.error());
  if (boot.value_or(false)) removed.emplace_back("table inet egressd_boot (deleted)");
  if (options.json) {
    io.out << dump({{"by", by_daemon ? "daemon" : "egressctl"}, {"removed", removed}}) << '\n';
    return failed ? kFailed : kOk;
  }
  for (const auto& item : removed) io.out << "removed " << printable(item) << '\n';
  if (failed) {
    io.err << "egressctl: not everything could be removed: what is left goes on refusing\n";
    return kFailed;
  }
  io.out << (removed.empty() ? "nothing was attached\n"
                             : "egressd no longer enforces anything on this machine\n");
  return kOk;
}

}  // namespace egressd::cli
