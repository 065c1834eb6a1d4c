#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>

#include "base/result.h"

// The messages of protocol.md. Lines are passed without their newline.
namespace egressd::control {

inline constexpr int kVersion = 1;
inline constexpr std::size_t kMaxRequestBytes = 64u << 10;  // newline included
inline constexpr const char* kDefaultSocket = "/run/egressd/control.sock";

struct Request {
  std::string command;
  // Members other than "v" and "cmd": strings as they are, integers in decimal, true and false.
  std::map<std::string, std::string> arguments;
};

// Any bytes are safe to give; the error is fit to send back.
Result<Request> parse_request(std::string_view line);
std::string format_request(const Request& request);

// {"v":1,"ok":true} with the members of `body` after it. `body` is a JSON object, or empty.
std::string ok_line(std::string_view body = {});
std::string error_line(std::string_view message);
// {"dropped":N}: this many lines are missing here.
std::string dropped_line(std::size_t count);

// First line of an answer: the line itself if it says ok, else its error.
Result<std::string> check_answer(std::string line);

}  // namespace egressd::control
