#include "daemon/recorder.h"

#include <arpa/inet.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <iterator>

namespace egressd::daemon {
namespace {

constexpr std::size_t kRecent = 1024;
// Different questions within a second that are written; more are nobody's to read.
constexpr std::size_t kQuestions = 2048;

// Of `count` verdicts, the last at last_ns.
void set_count(audit::Record& record, std::uint64_t count, std::uint64_t first_ns,
               std::uint64_t last_ns, std::uint64_t bytes) {
  record.count = count;
  if (count > 1)
    record.last_time = record.time + std::chrono::duration_cast<std::chrono::microseconds>(
                                         std::chrono::nanoseconds(last_ns - first_ns));
  record.length = bytes;
}

}  // namespace

audit::RecordContext Recorder::context() {
  audit::RecordContext context;
  context.cgroup2_mount = cgroups_.mount();
  context.cgroup_paths = &cgroups_;
  context.users = &users_;
  return context;
}

audit::Record Recorder::record_of(const egressd_event& event, std::uint64_t count) {
  audit::RecordContext known = context();
  if (const auto* name = rules_.find(event.generation, event.rule_id)) {
    known.collection = name->collection;
    known.rule = name->rule;
    denials_.count(*name, event.verdict == EGRESSD_ACTION_DENY, count);
  }
  net::IpAddress::Bytes bytes{};
  std::ranges::copy(event.daddr.addr, bytes.begin());
  const net::IpAddress destination(bytes);
  known.fqdns = names_.fqdns(destination, event.cgroup_id);
  if (!known.fqdns.empty())
    known.cname_chain = names_.cname_chain(destination, known.fqdns.front());
  return audit::make_record(event, known);
}

void Recorder::refused(const egressd_event& event) { put(record_of(event, 1)); }

void Recorder::refused_again(const egressd_tally& tally) {
  egressd_event event = tally.event;
  event.time_ns = tally.first_ns;
  audit::Record record = record_of(event, tally.count);
  set_count(record, tally.count, tally.first_ns, tally.last_ns, tally.bytes);
  put(record);
}

void Recorder::question_refused(const egressd_dns_event& event, const std::string& name) {
  egressd_event refused{};
  refused.time_ns = event.time_ns;
  refused.cgroup_id = event.cgroup_id;
  refused.socket_cookie = event.socket_cookie;
  refused.daddr = event.server;
  refused.dport = htons(53);
  refused.proto = event.proto;
  refused.hook = EGRESSD_HOOK_PACKET;
  refused.verdict = static_cast<std::uint8_t>(event.verdict);
  refused.reason =
      event.outcome == EGRESSD_DNS_DENIED_NAME || event.outcome == EGRESSD_DNS_DENIED_TYPE
          ? EGRESSD_DENY_DNS_NAME
          : EGRESSD_DENY_DNS_MALFORMED;
  refused.generation = event.generation;
  refused.rule_id = EGRESSD_NO_RULE;
  refused.tgid = event.tgid;
  refused.pid = event.pid;
  refused.uid = event.uid;
  refused.length = event.length;
  std::ranges::copy(event.comm, refused.comm);
  Question question{name,
                    event.tgid,
                    event.cgroup_id,
                    std::string(std::begin(event.server.addr), std::end(event.server.addr)),
                    refused.reason,
                    refused.verdict,
                    event.proto};
  const auto it = questions_.find(question);
  if (it == questions_.end()) {
    if (questions_.size() >= kQuestions) {
      ++unwritten_[refused.reason];
      return;
    }
    questions_.emplace(std::move(question), Repeated{});
    put(record_of_question(refused, name));
    return;
  }
  Repeated& repeated = it->second;
  if (repeated.count++ == 0) repeated.first = refused;
  repeated.last_ns = event.time_ns;
  repeated.bytes += event.length;
}

void Recorder::write_repeated() {
  for (const auto& [question, repeated] : questions_) {
    if (repeated.count == 0) continue;
    audit::Record record = record_of_question(repeated.first, std::get<0>(question));
    set_count(record, repeated.count, repeated.first.time_ns, repeated.last_ns, repeated.bytes);
    put(record);
  }
  questions_.clear();
  for (const auto& [reason, count] : unwritten_)
    put(audit::Notice::gap(asked_, count, "flood", audit::reason_name(reason)));
  unwritten_.clear();
}

audit::Record Recorder::record_of_question(const egressd_event& event, const std::string& name) {
  audit::RecordContext known = context();
  if (!name.empty()) known.fqdns = {name};
  return audit::make_record(event, known);
}

std::vector<audit::Record> Recorder::recent(const std::function<bool(const audit::Record&)>& wanted,
                                            std::size_t max) const {
  std::vector<audit::Record> found;
  for (auto it = recent_.rbegin(); it != recent_.rend() && found.size() < max; ++it)
    if (wanted(*it)) found.push_back(*it);
  return found;
}

void Recorder::lost_in_kernel(std::uint32_t reason, std::uint64_t count) {
  put(audit::Notice::gap(asked_, count, "kernel", audit::reason_name(reason)));
}

void Recorder::put(const audit::Notice& notice) {
  if (auto r = sink_->write(notice); !r) spdlog::error("{}", r.error().message);
  if (!watchers_.empty()) watchers_.broadcast(notice.to_json());
}

void Recorder::put(const audit::Record& record) {
  recent_.push_back(record);
  if (recent_.size() > kRecent) recent_.pop_front();
  if (auto r = sink_->write(record); !r) spdlog::error("{}", r.error().message);
  if (!watchers_.empty()) watchers_.broadcast(record.to_json());
}

}  // namespace egressd::daemon
