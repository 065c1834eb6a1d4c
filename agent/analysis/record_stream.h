#pragma once

#include <cstdint>
#include <functional>
#include <iosfwd>

#include "audit/record.h"

namespace egressd::analysis {

// A longer line is no record of ours; it is skipped without being kept in memory.
inline constexpr std::size_t kMaxLineBytes = 1u << 20;

// What the lines of one or more files were. Every line but an empty one is counted once.
struct StreamStats {
  std::uint64_t records = 0;
  std::uint64_t bad = 0;   // neither a record nor a note of lost ones
  std::uint64_t gaps = 0;  // lines that say records were lost
  std::uint64_t lost = 0;  // how many, in all gaps
};

struct Visitor {
  std::function<void(const audit::Record&)> record;
  std::function<void(std::uint64_t lost)> gap = nullptr;  // may be empty
};

// Reads JSON lines to the end, one at a time: memory does not grow with the input. False if reading
// failed before the end (what was read until then has been visited).
bool read_records(std::istream& in, StreamStats& stats, const Visitor& visitor);

}  // namespace egressd::analysis
