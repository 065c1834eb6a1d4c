#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>

#include "cli/commands.h"
#include "cli/live_text.h"
#include "cli/record_filter.h"
#include "cli/top_table.h"

namespace egressd::cli {

struct WatchOptions {
  DaemonOptions daemon = {};
  RecordFilter filter = {};
  ColorWhen color = ColorWhen::Auto;
  bool dns = false;         // instead of records, what DNS answers teach
  std::uint64_t count = 0;  // stop after so many records; 0: never
};

struct TopOptions {
  DaemonOptions daemon = {};
  RecordFilter filter = {};
  TopBy by = TopBy::Destination;
  std::chrono::milliseconds interval{2000};
  std::optional<std::chrono::milliseconds> once = {};  // count for so long, print, end
  std::size_t limit = 0;  // 0: as many as fit, all if not on a terminal
};

int watch(const WatchOptions& options, Streams io);
int top(const TopOptions& options, Streams io);

// The commands that follow what the daemon records: watch, top.
class LiveCommands {
 public:
  // Adds them to `app`, which must outlive this.
  explicit LiveCommands(CLI::App& app);
  ~LiveCommands();
  LiveCommands(const LiveCommands&) = delete;
  LiveCommands& operator=(const LiveCommands&) = delete;

  // After parsing: runs the one that was named. Nothing if it was another command.
  [[nodiscard]] std::optional<int> run(Streams io) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace egressd::cli
