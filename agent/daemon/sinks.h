#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "audit/sink.h"
#include "base/result.h"

namespace egressd::daemon {

// Where records go and how they look.
struct AuditOptions {
  // File, or "-" for standard output. Absent: standard output, unless another sink is asked for.
  std::optional<std::string> log = {};
  std::string format = "json";   // json | azfw, of all but the journal
  std::uint64_t max_size = 0;    // bytes; 0: the file is not rotated
  unsigned keep = 5;             // rotated files
  std::string resource_id = {};  // _ResourceId in azfw
  bool journal = false;
  std::string syslog = {};  // target of audit::SyslogSink, empty: none
};

Result<std::unique_ptr<audit::FanOutSink>> open_sinks(const AuditOptions& options);

}  // namespace egressd::daemon
