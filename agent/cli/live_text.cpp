#include "cli/live_text.h"

#include <stdlib.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <string_view>

#include "cli/ask.h"

namespace egressd::cli {
namespace {

using audit::printable;
using nlohmann::ordered_json;

constexpr const char* kRed = "\x1b[1;31m";
constexpr const char* kYellow = "\x1b[33m";
constexpr const char* kCyan = "\x1b[36m";
constexpr const char* kPlain = "\x1b[0m";

std::uint64_t count_of(const ordered_json& j, const char* key) {
  const auto it = j.find(key);
  return it != j.end() && it->is_number_unsigned() ? it->get<std::uint64_t>() : 0;
}

std::string gap_text(const ordered_json& gap) {
  const auto cause = text_of(gap, "cause");
  return printable(text_of(gap, "time") + " GAP        " + text_of(gap, "count") +
                   " records are missing " +
                   (cause == "kernel"      ? "here: they came faster than they were read"
                    : cause == "audit_log" ? "in the audit log: they could not be written"
                                           : "(" + cause + ")"));
}

// Whatever it is: its name, then its other keys.
std::string event_text(const ordered_json& event) {
  std::string name = text_of(event, "event");
  for (char& c : name) {
    if (c == '_') c = '-';
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  }
  std::string line = event.contains("time") ? text_of(event, "time") + " " + name : name;
  for (const auto& [key, value] : event.items()) {
    if (key == "event" || key == "time" || key == "schema") continue;
    auto text = value.is_string() ? value.get<std::string>() : dump(value);
    if (text.contains(' ')) text = '"' + text + '"';
    line += " " + key + "=" + text;
  }
  return printable(line);
}

}  // namespace

bool use_color(ColorWhen when, int fd) {
  if (when != ColorWhen::Auto) return when == ColorWhen::Always;
  const char* no_color = ::getenv("NO_COLOR");
  const char* term = ::getenv("TERM");
  return ::isatty(fd) == 1 && (no_color == nullptr || *no_color == '\0') &&
         (term == nullptr || std::string_view(term) != "dumb");
}

std::string record_text(const audit::Record& record, bool color) {
  auto line = record.to_text();
  if (!color) return line;
  // "TIME VERDICT …"
  const auto begin = line.find(' ') + 1;
  const auto end = line.find(' ', begin);
  line.insert(end, kPlain);
  line.insert(begin, record.denied ? kRed : kYellow);
  return line;
}

std::string in_event_color(const std::string& text, bool color) {
  return color ? kCyan + text + kPlain : text;
}

std::optional<LiveLine> read_live_line(const std::string& line) {
  const auto j = ordered_json::parse(line, nullptr, false);
  if (!j.is_object()) return std::nullopt;
  LiveLine out;
  if (j.contains("dropped")) {
    out.dropped = true;
    out.lost = count_of(j, "dropped");
    out.event =
        "(" + std::to_string(out.lost) + " more, not shown: they came faster than they were read)";
  } else if (j.contains("event")) {
    const bool gap = j["event"] == "gap";
    out.event = gap ? gap_text(j) : event_text(j);
    // What could only not be written to the log is in the stream.
    if (gap && text_of(j, "cause") != "audit_log") out.lost = count_of(j, "count");
  } else {
    out.record = audit::Record::from_json(line);
    if (!out.record) out.event = printable(line);
  }
  return out;
}

}  // namespace egressd::cli
