#pragma once

#include <cstring>
#include <expected>
#include <string>
#include <utility>

namespace egressd {

// What went wrong, for a person to read. Functions that can fail return Result<T>; there are no
// exceptions across module borders and no second error type.
//
//   if (!fd) return std::unexpected(Error::from_errno("open " + path));   // at the source
//   return std::unexpected(std::move(r.error()).context("load policy"));  // on the way up
//
// Libraries never log an error they return: only daemon/, cli/ and main.cpp print.
struct Error {
  int code = 0;         // errno value (positive), or 0 when no system call is behind it
  std::string message;  // complete sentence fragment, no trailing newline

  static Error of(std::string message) { return {0, std::move(message)}; }

  // Appends strerror(err); call it directly after the failing system call.
  static Error from_errno(std::string what, int err = errno) {
    return {err, std::move(what) + ": " + std::strerror(err)};
  }

  // The same error with `what: ` in front.
  Error context(const std::string& what) && { return {code, what + ": " + message}; }
};

template <typename T>
using Result = std::expected<T, Error>;

}  // namespace egressd
