#include "daemon/metrics_snapshot.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "audit/record.h"

namespace egressd::daemon {
namespace {

// Names shown one by one; the sums are of all.
constexpr std::size_t kMaxNames = 200;

double epoch_seconds(std::chrono::system_clock::time_point time) {
  return std::chrono::duration<double>(time.time_since_epoch()).count();
}

// Bytes that are no UTF-8 would make Prometheus refuse the whole answer.
std::string utf8(const std::string& text) {
  const auto replaced =
      nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return nlohmann::json::parse(replaced).get<std::string>();
}

metrics::KernelCounts kernel_of(const enforce::Counters& counters) {
  metrics::KernelCounts kernel;
  for (std::uint32_t i = 0; i < EGRESSD_REASON_MAX; ++i) {
    const std::string_view name = audit::reason_name(i);
    if (name == "unknown") continue;
    kernel.verdicts.push_back(
        {std::string(name), egressd_reason_is_deny(i) != 0, counters.reasons[i]});
  }
  for (std::size_t i = 0; i < EGRESSD_DNS_OUTCOME_MAX; ++i) {
    const char* name = dns_outcome_name(i);
    if (name == nullptr || i == EGRESSD_DNS_EVENTS_LOST) continue;
    kernel.dns_outcomes.push_back({name, counters.dns[i]});
  }
  kernel.ring_sent = counters.stats[EGRESSD_STAT_EVENTS_SENT];
  kernel.ring_lost = {{"denials", counters.stats[EGRESSD_STAT_EVENTS_LOST]},
                      {"dns", counters.dns[EGRESSD_DNS_EVENTS_LOST]}};
  kernel.storage_failed = counters.stats[EGRESSD_STAT_STORAGE_FAILED];
  return kernel;
}

metrics::DnsProxyCounts proxy_of(const dns::Forwarder::Counters& n, std::size_t under_way) {
  return {.questions = {{"answered", n.answered},
                        {"refused", n.refused},
                        {"malformed", n.malformed},
                        {"no_answer", n.no_answer},
                        {"bad_answer", n.bad_answer},
                        {"not_learned", n.not_learned},
                        {"repeated", n.repeated},
                        {"dropped", n.dropped + n.dropped_client}},
          .under_way = under_way,
          .held = n.held,
          .held_seconds = std::chrono::duration<double>(n.held_for).count()};
}

void add_names(metrics::Snapshot& s, const StatusReport& report,
               std::span<const std::string> policy_names) {
  s.names = report.resolver.size();
  for (const dns::Resolver::NameStatus& name : report.resolver) {
    s.names_unresolved += name.resolved ? 0 : 1;
    s.names_failing += name.consecutive_failures == 0 ? 0 : 1;
    if (std::ranges::find(policy_names, name.fqdn) != policy_names.end())
      s.failures.push_back({utf8(name.fqdn), name.consecutive_failures});
  }
  if (s.failures.size() <= kMaxNames) return;
  std::ranges::stable_sort(s.failures, std::ranges::greater{}, &metrics::Count::value);
  s.failures.resize(kMaxNames);
}

}  // namespace

metrics::Snapshot snapshot_of(const StatusReport& report, std::span<const std::string> policy_names,
                              const std::vector<enforce::MapFill>& maps, BootTime taken) {
  metrics::Snapshot s;
  s.taken = taken;
  s.started = epoch_seconds(report.started_at);
  s.version = EGRESSD_VERSION;
  s.generation = report.generation;
  s.policy_hash = report.policy_hash;
  s.enforce = report.enforce;
  s.last_reload_worked = report.reload_worked;
  s.break_glass_openings = report.openings;
  s.break_glass_seconds = static_cast<double>(report.open_for.count());
  s.on_trial = !report.trial.empty();
  s.last_good_reload = epoch_seconds(report.last_good_reload);

  if (report.generation == 0) s.unready.emplace_back("no policy is in force");
  if (!report.attached)
    s.unready.emplace_back("not attached yet: waiting for the first DNS answers");
  for (const enforce::LayerStatus& layer : report.layers) {
    s.programs.push_back({.name = layer.program,
                          .attached = layer.attached,
                          .detail = layer.detail,
                          .needed = layer.needed});
    if (report.attached && !layer.attached && layer.needed)
      s.unready.push_back(layer.program + ": " + layer.detail + "; restart egressd");
  }

  if (report.counters_known) s.kernel = kernel_of(report.counters);
  if (report.dns_proxy) s.dns_proxy = proxy_of(report.forwarded, report.forwarded_under_way);
  for (const enforce::MapFill& map : maps)
    s.maps.push_back({map.map, map.entries, map.max_entries});
  for (const auto& [name, counts] : report.rule_denials)
    s.rule_denials.push_back(
        {utf8(name.first), utf8(name.second), counts.denied, counts.would_deny});
  s.audit_lost = report.audit_lost;
  add_names(s, report, policy_names);
  return s;
}

}  // namespace egressd::daemon
