#include "control/message.h"

#include <nlohmann/json.hpp>

namespace egressd::control {
namespace {

using nlohmann::json;

std::string dump(const auto& value) {
  // ASCII only, so that an answer may be shown on a terminal as it is.
  return value.dump(-1, ' ', true, json::error_handler_t::replace);
}

}  // namespace

Result<Request> parse_request(std::string_view line) {
  if (line.size() >= kMaxRequestBytes) return std::unexpected(Error::of("request is too long"));
  const json j = json::parse(line, nullptr, false);
  if (j.is_discarded() || !j.is_object())
    return std::unexpected(Error::of("request is not a JSON object"));
  const auto version = j.find("v");
  if (version == j.end() || !version->is_number_integer() || *version != kVersion)
    return std::unexpected(
        Error::of("request is not of protocol version " + std::to_string(kVersion)));
  const auto command = j.find("cmd");
  if (command == j.end() || !command->is_string())
    return std::unexpected(Error::of("request has no cmd"));

  Request request{.command = command->get<std::string>(), .arguments = {}};
  for (const auto& [key, value] : j.items()) {
    if (key == "v" || key == "cmd") continue;
    if (value.is_string())
      request.arguments[key] = value.get<std::string>();
    else if (value.is_number_integer() || value.is_boolean())
      request.arguments[key] = value.dump();
    else
      return std::unexpected(Error::of("argument is neither text, integer nor true or false"));
  }
  return request;
}

std::string format_request(const Request& request) {
  nlohmann::ordered_json j;
  j["v"] = kVersion;
  j["cmd"] = request.command;
  for (const auto& [key, value] : request.arguments) j[key] = value;
  return dump(j);
}

std::string ok_line(std::string_view body) {
  std::string line = "{\"v\":" + std::to_string(kVersion) + ",\"ok\":true";
  const auto open = body.find('{');
  const auto close = body.rfind('}');
  if (open != std::string_view::npos && close != std::string_view::npos && open < close) {
    const auto members = body.substr(open + 1, close - open - 1);
    if (members.find_first_not_of(" \t") != std::string_view::npos)
      line.append(",").append(members);
  }
  return line + "}";
}

std::string error_line(std::string_view message) {
  nlohmann::ordered_json j;
  j["v"] = kVersion;
  j["ok"] = false;
  j["error"] = message;
  return dump(j);
}

std::string dropped_line(std::size_t count) {
  return "{\"dropped\":" + std::to_string(count) + "}";
}

Result<std::string> check_answer(std::string line) {
  const json j = json::parse(line, nullptr, false);
  if (!j.is_object() || !j.contains("v") || j["v"] != kVersion || !j.contains("ok") ||
      !j["ok"].is_boolean())
    return std::unexpected(Error::of("the answer is not of protocol version " +
                                     std::to_string(kVersion) + ": another program's socket?"));
  if (j["ok"].get<bool>()) return line;
  const auto error = j.find("error");
  return std::unexpected(Error::of(error != j.end() && error->is_string()
                                       ? error->get<std::string>()
                                       : "the daemon gave no reason"));
}

}  // namespace egressd::control
