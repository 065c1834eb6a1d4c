#pragma once

#include <memory>
#include <optional>

#include "cli/commands.h"

namespace CLI {  // NOLINT(readability-identifier-naming): CLI11's own
class App;
}

namespace egressd::cli {

// The commands that read audit records from files: learn, replay, report. They ask no daemon.
class AnalysisCommands {
 public:
  // Adds them to `app`, which must outlive this.
  explicit AnalysisCommands(CLI::App& app);
  ~AnalysisCommands();
  AnalysisCommands(const AnalysisCommands&) = delete;
  AnalysisCommands& operator=(const AnalysisCommands&) = delete;

  // After parsing: runs the one that was named. Nothing if it was another command.
  [[nodiscard]] std::optional<int> run(Streams io) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace egressd::cli
