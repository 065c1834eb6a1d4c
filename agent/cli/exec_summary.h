#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <unordered_map>
#include <vector>

#include "audit/record.h"

namespace egressd::cli {

// What was refused, or would have been, while a command ran: records of the same destination,
// name, port, protocol, reason and program taken together.
class ExecSummary {
 public:
  void add(const audit::Record& record);
  // Adds the records of a file of JSON lines; lines that are none are left out.
  void add_file(const std::string& path);

  // Verdicts the records stand for.
  [[nodiscard]] std::uint64_t total() const { return total_; }

  struct Outcome {
    bool audit = false;         // mode
    int exit_code = 0;          // of the command
    std::uint64_t counted = 0;  // by the kernel; beyond total() there is no record
    std::string incomplete;     // why records may be missing; empty if none should be
  };
  void print(std::ostream& out, const Outcome& outcome) const;
  // One JSON object on one line.
  void print_json(std::ostream& out, const Outcome& outcome) const;

 private:
  struct Group {
    std::uint64_t count = 0;
    audit::Record first;
  };
  [[nodiscard]] std::vector<Group> most_first() const;

  std::uint64_t total_ = 0;
  std::vector<Group> groups_;  // in order of first appearance
  std::unordered_map<std::string, std::size_t> group_of_;
};

}  // namespace egressd::cli
