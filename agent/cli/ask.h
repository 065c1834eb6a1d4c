#pragma once

#include <expected>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "cli/commands.h"
#include "control/client.h"

// Asking the daemon, and reading what it says; shared by the commands that do.
namespace egressd::cli {

inline constexpr std::chrono::seconds kTimeout{10};

struct Answer {
  control::Client client;  // for the lines after the first
  nlohmann::ordered_json first;
};

enum class Failure { NoDaemon, Refused };

struct AskError {
  Failure failure;
  std::string message;
};

std::expected<Answer, AskError> ask(const std::string& socket, const std::string& command,
                                    std::map<std::string, std::string> arguments = {});
// Says it on `io.err`; the exit code that belongs to it.
int report(const AskError& error, const DaemonOptions& options, Streams io);

// One line, ASCII.
std::string dump(const nlohmann::ordered_json& j);
// What a member says, whatever its type: answers of a newer daemon are shown, not refused. "-" if
// it is not there.
std::string text_of(const nlohmann::ordered_json& j, const char* key);
std::optional<long long> number_of(const nlohmann::ordered_json& j, const char* key);
// The members of a list.
std::string joined(const nlohmann::ordered_json& j, const char* key, const char* separator);
// "curl[4711]", or where the entry comes from if nobody asked: policy, resolver.
std::string asker_text(const nlohmann::ordered_json& j);

}  // namespace egressd::cli
