#include "daemon/recorder.h"

#include <arpa/inet.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <iterator>

namespace egressd::daemon {

audit::RecordContext Recorder::context() const {
  audit::RecordContext context;
  context.cgroup2_mount = cgroups_.mount();
  context.cgroup_paths = &cgroups_;
  return context;
}

void Recorder::refused(const egressd_event& event) {
  audit::RecordContext known = context();
  if (const auto* name = rules_.find(event.generation, event.rule_id)) {
    known.collection = name->collection;
    known.rule = name->rule;
    denials_.count(*name, event.verdict == EGRESSD_ACTION_DENY);
  }
  net::IpAddress::Bytes destination{};
  std::ranges::copy(event.daddr.addr, destination.begin());
  known.fqdns = names_.fqdns(net::IpAddress(destination));
  put(audit::make_record(event, known));
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
  audit::RecordContext known = context();
  if (!name.empty()) known.fqdns = {name};
  put(audit::make_record(refused, known));
}

void Recorder::put(const audit::Record& record) {
  if (auto r = sink_->write(record); !r) spdlog::error("{}", r.error().message);
  if (!watchers_.empty()) watchers_.broadcast(record.to_json());
}

}  // namespace egressd::daemon
