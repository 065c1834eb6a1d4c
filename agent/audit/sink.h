#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "audit/notice.h"
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
  // A gap that cannot be written is lost here, too, with all it stands for.
  virtual Result<void> write(const Notice& notice) = 0;
  // Tries to note what this sink has lost without waiting for the next record.
  virtual void flush() = 0;
  // For log rotation: goes on in a new file of the same name. On failure the old file stays.
  virtual Result<void> reopen() = 0;
  // Records lost since the start.
  [[nodiscard]] virtual std::uint64_t lost() const = 0;
  // For a person: what it is and where it leads.
  [[nodiscard]] virtual std::string name() const = 0;
};

// Keeps the account of what a sink loses, for all of them: one error when it begins, one gap when
// it is over.
class Losses {
 public:
  void add(std::uint64_t records = 1);
  // What must be noted in front of the next record.
  [[nodiscard]] bool pending() const { return in_a_row_ > 0; }
  [[nodiscard]] Notice gap() const { return Notice::gap(since_, in_a_row_, "audit_log"); }
  void noted() { in_a_row_ = 0; }
  [[nodiscard]] std::uint64_t total() const { return total_; }
  // `error` if nothing had failed before, else nothing: to be called before add().
  [[nodiscard]] Result<void> once(Error error) const;

 private:
  std::uint64_t total_ = 0;
  std::uint64_t in_a_row_ = 0;
  std::chrono::system_clock::time_point since_;
};

// Several sinks as one. Each loses for itself.
class FanOutSink final : public Sink {
 public:
  explicit FanOutSink(std::vector<std::unique_ptr<Sink>> sinks) : sinks_(std::move(sinks)) {}

  Result<void> write(const Record& record) override;
  Result<void> write(const Notice& notice) override;
  void flush() override;
  Result<void> reopen() override;
  [[nodiscard]] std::uint64_t lost() const override;
  [[nodiscard]] std::string name() const override;
  [[nodiscard]] const std::vector<std::unique_ptr<Sink>>& sinks() const { return sinks_; }

 private:
  std::vector<std::unique_ptr<Sink>> sinks_;
};

}  // namespace egressd::audit
