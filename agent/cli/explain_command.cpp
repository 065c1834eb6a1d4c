#include <algorithm>
#include <charconv>
#include <ostream>
#include <set>

#include "audit/record.h"
#include "cli/ask.h"
#include "cli/destination.h"
#include "cli/table.h"
#include "enforce/process_sockets.h"

namespace egressd::cli {
namespace {

using audit::printable;
using nlohmann::ordered_json;

std::expected<Answer, AskError> ask_about(const DaemonOptions& options,
                                          const policy::Destination& d) {
  std::map<std::string, std::string> arguments{
      {"port", std::to_string(d.port)},
      {"protocol", std::to_string(static_cast<unsigned>(d.protocol))}};
  if (d.address)
    arguments["address"] = d.address->to_string();
  else
    arguments["fqdn"] = d.fqdn;
  return ask(options.socket, "explain", std::move(arguments));
}

bool is_true(const ordered_json& j, const char* key) {
  const auto it = j.find(key);
  return it != j.end() && it->is_boolean() && it->get<bool>();
}

const char* verdict_of(const ordered_json& j) {
  if (is_true(j, "would_deny")) return "WOULD BE DENIED (audit mode lets it pass)";
  return is_true(j, "allowed") ? "ALLOWED" : "DENIED";
}

std::string ago(const ordered_json& j, const char* key) {
  const auto n = number_of(j, key);
  return n ? format_seconds(std::max(*n, 1LL)) + " ago" : "-";
}

void print(const ordered_json& j, const std::string& target, std::ostream& out) {
  out << printable(target) << ": " << verdict_of(j) << '\n';
  std::vector<std::vector<std::string>> rows;
  if (j.contains("rule"))
    rows.push_back({"  rule", text_of(j, "collection") + "/" + text_of(j, "rule")});
  rows.push_back({"  judged as", text_of(j, "by")});
  rows.push_back({"  because", text_of(j, "reason")});
  write_table(out, rows);
  if (const auto grants = j.find("grants"); grants != j.end() && !grants->empty()) {
    out << "learned from DNS:\n";
    rows = {{"  ADDRESS", "NAME", "PATTERN", "ANSWERED", "BY", "ASKED BY", "TIME LEFT"}};
    for (const auto& grant : *grants) {
      std::string name = text_of(grant, "fqdn");
      if (const auto chain = joined(grant, "cname_chain", " -> "); !chain.empty())
        name += " -> " + chain;
      const auto left = number_of(grant, "expires_in_seconds");
      rows.push_back({"  " + text_of(grant, "address"), name, text_of(grant, "pattern"),
                      ago(grant, "heard_seconds_ago"), text_of(grant, "server"), asker_text(grant),
                      left ? format_seconds(*left) : "-"});
    }
    write_table(out, rows);
  }
  if (const auto denied = j.find("denied"); denied != j.end() && !denied->empty()) {
    out << "latest denials:\n";
    for (const auto& line : *denied)
      if (const auto record = audit::Record::from_json(dump(line)))
        out << "  " << record->to_text() << '\n';
  }
  if (j.contains("to_allow"))
    out << "to allow it, add to the rules of a collection with action allow:\n  "
        << printable(text_of(j, "to_allow")) << '\n';
}

int explain_process(const DaemonOptions& options, int pid, const std::string& bpffs_dir,
                    Streams io) {
  const auto sockets = enforce::sockets_of(pid, bpffs_dir);
  if (!sockets) {
    io.err << "egressctl: " << printable(sockets.error().message) << '\n';
    return kFailed;
  }
  auto all = ordered_json::array();
  std::set<std::string> explained;
  for (const enforce::SocketVerdict& socket : *sockets) {
    AskedDestination asked;
    asked.destination = {.fqdn = "",
                         .address = socket.destination,
                         .port = socket.port,
                         .protocol = static_cast<net::Protocol>(socket.protocol)};
    const std::string target = asked.to_string();
    ordered_json j{
        {"destination", target},
        {"inbound", socket.inbound},
        {"generation", socket.generation},
        {"last_verdict",
         socket.generation == 0 && !socket.inbound
             ? "none"
             : audit::reason_name(socket.would_deny != 0 ? socket.would_deny : socket.reason)}};
    if (!socket.inbound && explained.insert(target).second) {
      auto answer = ask_about(options, asked.destination);
      if (!answer) return report(answer.error(), options, io);
      j["explanation"] = answer->first;
    }
    all.push_back(std::move(j));
  }
  if (options.json) {
    io.out << dump({{"pid", pid}, {"sockets", all}}) << '\n';
    return kOk;
  }
  if (all.empty()) io.out << "process " << pid << " has no socket that egressd has judged\n";
  for (const auto& j : all) {
    if (is_true(j, "inbound"))
      io.out << printable(text_of(j, "destination"))
             << ": ALLOWED\n  because the other side opened the connection\n";
    if (const auto it = j.find("explanation"); it != j.end())
      print(*it, text_of(j, "destination"), io.out);
  }
  return kOk;
}

}  // namespace

int explain(const DaemonOptions& options, const std::string& target, const std::string& bpffs_dir,
            Streams io) {
  int pid = 0;
  const auto [end, ec] = std::from_chars(target.data(), target.data() + target.size(), pid);
  if (ec == std::errc{} && end == target.data() + target.size() && pid > 0)
    return explain_process(options, pid, bpffs_dir, io);
  const auto asked = parse_destination(target);
  if (!asked) {
    io.err << "egressctl: " << printable(asked.error()) << '\n';
    return kUsage;
  }
  const auto answer = ask_about(options, asked->destination);
  if (!answer) return report(answer.error(), options, io);
  const auto& j = answer->first;
  if (options.json)
    io.out << dump(j) << '\n';
  else
    print(j, asked->to_string() + (asked->port_defaulted ? " (default port)" : ""), io.out);
  return is_true(j, "allowed") && !is_true(j, "would_deny") ? kOk : kDenied;
}

}  // namespace egressd::cli
