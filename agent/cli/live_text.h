#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "audit/record.h"

// What the stream of `watch` holds, as text for a terminal; shared by `watch` and `top`.
namespace egressd::cli {

enum class ColorWhen { Auto, Always, Never };

// Auto: `fd` is a terminal, and neither NO_COLOR (https://no-color.org) nor TERM=dumb speaks
// against it.
bool use_color(ColorWhen when, int fd);

// Record::to_text(), the verdict in colour.
std::string record_text(const audit::Record& record, bool color);
std::string in_event_color(const std::string& text, bool color);

// One line of the stream: a record, or else something that happened.
struct LiveLine {
  std::optional<audit::Record> record = {};
  std::string event = {};  // if it is no record: for a person, printable
  std::uint64_t lost = 0;  // records it says are missing from the stream
  bool dropped = false;    // said by the socket: they came faster than this client read them
};

// Nothing if `line` is no JSON object.
std::optional<LiveLine> read_live_line(const std::string& line);

}  // namespace egressd::cli
