#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "audit/notice.h"
#include "base/clock.h"
#include "enforce/break_glass.h"

namespace egressd::daemon {

// Puts break-glass on record. It is opened and closed in the kernel, with or without an agent; what
// the kernel says is compared with what was seen last, also by an earlier agent.
class OpeningLog {
 public:
  // `path`: a file of one number, when the opening last put on record was made, as the time since
  // boot. If it cannot be read, what is open is put on record once more.
  static OpeningLog load(std::string path);

  // What is new, oldest first. `wall` is the same moment as `now`.
  std::vector<audit::Notice> look(const enforce::Opening& opening, BootTime now,
                                  std::chrono::system_clock::time_point wall);
  // Openings seen since load().
  [[nodiscard]] std::uint64_t openings() const { return openings_; }

 private:
  void save() const;

  std::string path_;
  enforce::Opening last_;  // put on record
  bool open_ = false;      // of it the end is not on record yet
  std::uint64_t openings_ = 0;
};

}  // namespace egressd::daemon
