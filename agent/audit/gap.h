#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace egressd::audit {

// Records that are missing, noted in their place.
struct Gap {
  std::chrono::system_clock::time_point time;  // when it began, as far as known
  std::uint64_t count = 0;
  std::string cause;  // audit_log: could not be written; kernel: came faster than they were read

  // One line of JSON without the newline.
  [[nodiscard]] std::string to_json() const;
};

}  // namespace egressd::audit
