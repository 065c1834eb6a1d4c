#include <unistd.h>

#include <map>
#include <ostream>

#include "cli/ask.h"
#include "cli/live_commands.h"
#include "cli/table.h"

namespace egressd::cli {
namespace {

using audit::printable;
using nlohmann::ordered_json;

// "a.example -> b.example: 192.0.2.1, 192.0.2.2 (ttl 60s, from 192.0.2.53, asked by curl[4711])"
std::string learned_text(const ordered_json& j) {
  std::string line = text_of(j, "fqdn");
  if (const auto chain = joined(j, "cname_chain", " -> "); !chain.empty()) line += " -> " + chain;
  line += ": " + joined(j, "addresses", ", ") + " (ttl ";
  const auto ttl = number_of(j, "ttl_seconds");
  line += !ttl ? "-" : *ttl > 0 ? format_seconds(*ttl) : "0s";
  line += ", from " + text_of(j, "server");
  if (j.contains("asked_by")) line += ", asked by " + asker_text(j);
  return printable(line + ")");
}

// With --dns: answers, one a line.
std::string answer_text(const ordered_json& j) {
  if (j.contains("event") && j["event"] == "dns_learned") return learned_text(j);
  return printable(dump(j));
}

}  // namespace

int watch(const WatchOptions& options, Streams io) {
  std::map<std::string, std::string> arguments;
  if (options.dns) arguments["dns"] = "true";
  auto answer = ask(options.daemon.socket, "watch", std::move(arguments));
  if (!answer) return report(answer.error(), options.daemon, io);
  const bool color = !options.daemon.json && use_color(options.color, STDOUT_FILENO);
  for (std::uint64_t seen = 0; options.count == 0 || seen < options.count;) {
    const auto line = answer->client.read_line(std::nullopt);
    if (!line || !*line) {
      io.err << "egressctl: "
             << (line ? std::string("the daemon has gone") : printable(line.error().message))
             << '\n';
      return kNoDaemon;
    }
    const auto live = read_live_line(**line);
    if (!live) {
      io.err << "egressctl: the daemon sent a line that is no JSON object\n";
      return kFailed;
    }
    // What is no record is always shown: a filter must not hide that records are missing, or that
    // nothing is refused at the moment.
    if (live->record && !options.filter.matches(*live->record)) continue;
    if (options.dns ? !live->dropped : live->record.has_value()) ++seen;
    if (options.daemon.json) {
      io.out << dump(ordered_json::parse(**line, nullptr, false)) << '\n';
    } else if (live->record) {
      io.out << record_text(*live->record, color) << '\n';
    } else if (options.dns && !live->dropped) {
      io.out << answer_text(ordered_json::parse(**line, nullptr, false)) << '\n';
    } else {
      io.out << in_event_color(live->event, color) << '\n';
    }
    // A pipe must see each line when it happens. A reader that has left ends the watch.
    if (!io.out.flush()) return kFailed;
  }
  return kOk;
}

}  // namespace egressd::cli
