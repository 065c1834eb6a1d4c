#include "cli/ask.h"

#include <ostream>

#include "audit/record.h"

namespace egressd::cli {

using audit::printable;
using nlohmann::ordered_json;

std::expected<Answer, AskError> ask(const std::string& socket, const std::string& command,
                                    std::map<std::string, std::string> arguments) {
  auto client = control::Client::request(
      socket, {.command = command, .arguments = std::move(arguments)}, kTimeout);
  if (!client) {
    const bool denied = client.error().code == EACCES || client.error().code == EPERM;
    return std::unexpected(
        AskError{denied ? Failure::Refused : Failure::NoDaemon, std::move(client.error().message)});
  }
  auto line = client->read_line(kTimeout);
  if (!line) return std::unexpected(AskError{Failure::NoDaemon, std::move(line.error().message)});
  if (!*line)
    return std::unexpected(
        AskError{Failure::NoDaemon, socket + ": the daemon closed without an answer"});
  auto first = control::check_answer(std::move(**line));
  if (!first) return std::unexpected(AskError{Failure::Refused, std::move(first.error().message)});
  return Answer{std::move(*client), ordered_json::parse(*first, nullptr, false)};
}

int report(const AskError& error, const DaemonOptions& options, Streams io) {
  io.err << "egressctl: " << printable(error.message) << '\n';
  if (error.failure == Failure::Refused) return kFailed;
  io.err << "No daemon answers on " << printable(options.socket)
         << ". Is egressd running, and with this --socket? Enforcement may be in force without "
            "it; `egressctl detach` ends it.\n";
  return kNoDaemon;
}

std::string dump(const ordered_json& j) {
  return j.dump(-1, ' ', true, ordered_json::error_handler_t::replace);
}

std::string text_of(const ordered_json& j, const char* key) {
  const auto it = j.find(key);
  if (it == j.end() || it->is_null()) return "-";
  return it->is_string() ? it->get<std::string>() : dump(*it);
}

std::optional<long long> number_of(const ordered_json& j, const char* key) {
  const auto it = j.find(key);
  if (it == j.end() || !it->is_number()) return std::nullopt;
  return it->get<long long>();
}

std::string joined(const ordered_json& j, const char* key, const char* separator) {
  std::string out;
  const auto it = j.find(key);
  if (it == j.end() || !it->is_array()) return out;
  for (const auto& item : *it) {
    if (!out.empty()) out += separator;
    out += item.is_string() ? item.get<std::string>() : dump(item);
  }
  return out;
}

std::string asker_text(const ordered_json& j) {
  const auto it = j.find("asked_by");
  if (it == j.end() || !it->is_object()) return text_of(j, "source");
  const std::string comm = text_of(*it, "comm");
  return (comm == "-" || comm.empty() ? "?" : comm) + "[" + text_of(*it, "pid") + "]";
}

}  // namespace egressd::cli
