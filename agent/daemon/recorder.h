#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "audit/cgroup_path.h"
#include "audit/record.h"
#include "audit/sink.h"
#include "audit/user_names.h"
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
  Recorder(std::unique_ptr<audit::FanOutSink> sink, audit::CgroupPaths& cgroups,
           const RuleHistory& rules, const LearnedNames& names)
      : sink_(std::move(sink)), cgroups_(cgroups), rules_(rules), names_(names) {}

  void refused(const egressd_event& event);
  // The same again, `tally.count` times.
  void refused_again(const egressd_tally& tally);
  // A DNS question; `name` is empty if it could not be read. The kernel reports each: what repeats
  // is counted here and comes on record with write_repeated().
  void question_refused(const egressd_dns_event& event, const std::string& name);
  // To be called every second. The next question of each kind is written at once again.
  void write_repeated();

  // Denials of which the kernel has neither event nor count, since it was last asked.
  void lost_in_kernel(std::uint32_t reason, std::uint64_t count);
  void asked_for_losses() { asked_ = std::chrono::system_clock::now(); }
  // To the records, their place is here.
  void put(const audit::Notice& notice);

  void watch(const control::Responder& responder) { watchers_.add(responder); }
  // The latest of those that `wanted` says yes to, newest first; few are kept.
  [[nodiscard]] std::vector<audit::Record> recent(
      const std::function<bool(const audit::Record&)>& wanted, std::size_t max) const;

  RuleDenials& denials() { return denials_; }
  // For log rotation.
  Result<void> reopen() { return sink_->reopen(); }
  // What could not be written is noted where it is missing, should that be possible by now.
  void flush() { sink_->flush(); }
  [[nodiscard]] const audit::FanOutSink& sink() const { return *sink_; }

 private:
  [[nodiscard]] audit::RecordContext context();
  // Of `count` alike.
  [[nodiscard]] audit::Record record_of(const egressd_event& event, std::uint64_t count);
  void put(const audit::Record& record);

  // Name, process, cgroup, server, reason, verdict, protocol.
  using Question = std::tuple<std::string, std::uint32_t, std::uint64_t, std::string, std::uint16_t,
                              std::uint8_t, std::uint8_t>;
  struct Repeated {
    egressd_event first{};
    std::uint64_t count = 0;  // beyond the one that was written
    std::uint64_t last_ns = 0;
    std::uint64_t bytes = 0;
  };
  [[nodiscard]] audit::Record record_of_question(const egressd_event& event,
                                                 const std::string& name);

  std::unique_ptr<audit::FanOutSink> sink_;
  audit::CgroupPaths& cgroups_;
  audit::UserNames users_;
  const RuleHistory& rules_;
  const LearnedNames& names_;
  RuleDenials denials_;
  control::Watchers watchers_;
  std::chrono::system_clock::time_point asked_ = std::chrono::system_clock::now();
  std::map<Question, Repeated> questions_;
  std::map<std::uint32_t, std::uint64_t> unwritten_;  // by reason: no room in questions_
  std::deque<audit::Record> recent_;                  // newest last
};

}  // namespace egressd::daemon
