#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "audit/cgroup_path.h"
#include "audit/record.h"
#include "audit/sink.h"
#include "bpf/egressd_abi.h"
#include "control/server.h"
#include "daemon/learned_names.h"
#include "daemon/rule_denials.h"
#include "daemon/rule_history.h"

namespace egressd::daemon {

// What the kernel refused becomes records: for the sink, and for whoever watches.
class Recorder {
 public:
  // What it reads from must outlive it.
  Recorder(std::unique_ptr<audit::Sink> sink, audit::CgroupPaths& cgroups, const RuleHistory& rules,
           const LearnedNames& names)
      : sink_(std::move(sink)), cgroups_(cgroups), rules_(rules), names_(names) {}

  void refused(const egressd_event& event);
  // A DNS question; `name` is empty if it could not be read.
  void question_refused(const egressd_dns_event& event, const std::string& name);

  void watch(const control::Responder& responder) { watchers_.add(responder); }
  RuleDenials& denials() { return denials_; }
  // For log rotation.
  Result<void> reopen() { return sink_->reopen(); }
  // Records the sink could not write.
  [[nodiscard]] std::uint64_t lost() const { return sink_->lost(); }

 private:
  [[nodiscard]] audit::RecordContext context() const;
  void put(const audit::Record& record);

  std::unique_ptr<audit::Sink> sink_;
  audit::CgroupPaths& cgroups_;
  const RuleHistory& rules_;
  const LearnedNames& names_;
  RuleDenials denials_;
  control::Watchers watchers_;
};

}  // namespace egressd::daemon
