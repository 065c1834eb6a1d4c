#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "audit/record.h"
#include "base/result.h"

namespace egressd::audit {

// Where records go. A sink that fails loses records, never enforcement: it must not block.
class Sink {
 public:
  virtual ~Sink() = default;

  // An error is returned once when writing starts to fail, so that it can be logged without
  // flooding the log; after that records are only counted until writing works again.
  virtual Result<void> write(const Record& record) = 0;
  // For log rotation: goes on in a new file of the same name. On failure the old file stays.
  virtual Result<void> reopen() = 0;
  // Records lost since the start.
  [[nodiscard]] virtual std::uint64_t lost() const = 0;
};

}  // namespace egressd::audit
