#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "control/message.h"

namespace egressd::control {

// The command's end: blocking, one request.
class Client {
 public:
  static constexpr std::size_t kMaxLine = 64u << 20;

  // Connects and sends. Error::code is ENOENT or ECONNREFUSED when no daemon is there, and
  // ETIMEDOUT when it did not take the request in time.
  static Result<Client> request(const std::string& path, const Request& request,
                                std::chrono::milliseconds timeout);

  // The next line, or nothing at the end of the answer. Without a timeout it waits for ever;
  // Error::code is ETIMEDOUT when it has passed, and the line can be asked for again.
  Result<std::optional<std::string>> read_line(std::optional<std::chrono::milliseconds> timeout);
  // To poll for more; lines may be waiting in here already, a timeout of zero asks for those.
  [[nodiscard]] int fd() const { return fd_.get(); }

 private:
  explicit Client(UniqueFd fd) : fd_(std::move(fd)) {}

  UniqueFd fd_;
  std::string buffer_;
  std::size_t scanned_ = 0;
};

}  // namespace egressd::control
