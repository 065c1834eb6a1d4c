#include "metrics/exposition.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <utility>

namespace egressd::metrics {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

// Every family, filled one after the other.
class Families {
 public:
  // What follows is added to this one.
  Families& gauge(std::string name, std::string help) {
    return begin(std::move(name), std::move(help), MetricType::Gauge);
  }
  Families& counter(std::string name, std::string help) {
    return begin(std::move(name), std::move(help), MetricType::Counter);
  }
  Families& add(double value, Labels labels = {}) {
    ClientMetric metric;
    metric.label = std::move(labels);
    (all_.back().type == MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
    all_.back().metric.push_back(std::move(metric));
    return *this;
  }
  Families& add(std::uint64_t value, Labels labels = {}) {
    return add(static_cast<double>(value), std::move(labels));
  }

  [[nodiscard]] std::string text() {
    drop_empty();
    return prometheus::TextSerializer().Serialize(all_);
  }

 private:
  Families& begin(std::string name, std::string help, MetricType type) {
    drop_empty();
    all_.push_back({std::move(name), std::move(help), type, {}});
    return *this;
  }
  // One without a series is left out: it would be a head without a body.
  void drop_empty() {
    if (!all_.empty() && all_.back().metric.empty()) all_.pop_back();
  }

  std::vector<MetricFamily> all_;
};

double yes(bool value) { return value ? 1 : 0; }

void add_state(Families& families, const Snapshot& s, BootTime now) {
  families.gauge("egressd_build_info", "Version of the agent; always 1.")
      .add(1.0, {{"version", s.version}});
  families.gauge("egressd_start_time_seconds", "When the agent started, in seconds since 1970.")
      .add(s.started);
  families
      .gauge("egressd_snapshot_age_seconds",
             "How old the values shown are; several scrapes within a second share them.")
      .add(std::chrono::duration<double>(now - s.taken).count());
  families
      .gauge("egressd_ready", "1 if the policy is in force and every program attached, as /readyz.")
      .add(yes(s.unready.empty()));

  families
      .gauge("egressd_policy_generation",
             "Number of the policy in force; goes up with every change.")
      .add(std::uint64_t{s.generation});
  families.gauge("egressd_policy_info", "Fingerprint of the policy file in force; always 1.")
      .add(1.0, {{"hash", s.policy_hash}});
  families.gauge("egressd_mode", "1 for the mode in force: enforce, or audit (nothing is refused).")
      .add(yes(s.enforce), {{"mode", "enforce"}})
      .add(yes(!s.enforce), {{"mode", "audit"}});
  families
      .gauge("egressd_last_reload_successful",
             "0 if the last change of the policy file was refused.")
      .add(yes(s.last_reload_worked));
  families
      .gauge("egressd_last_reload_success_timestamp_seconds",
             "When a policy file was last put in force, in seconds since 1970.")
      .add(s.last_good_reload);

  families
      .gauge("egressd_break_glass_open_seconds",
             "Seconds until break-glass closes by itself; above 0 nothing is refused.")
      .add(s.break_glass_seconds);
  families
      .counter("egressd_break_glass_openings_total",
               "How often break-glass was opened, as far as this agent has seen.")
      .add(s.break_glass_openings);
  families
      .gauge("egressd_policy_on_trial",
             "1 if the policy in force is rolled back unless it is confirmed.")
      .add(yes(s.on_trial));

  families.gauge("egressd_program_attached",
                 "1 if the kernel says that this program of ours is attached.");
  for (const auto& program : s.programs)
    if (program.needed) families.add(yes(program.attached), {{"program", program.name}});
  families.gauge("egressd_backstop_attached",
                 "1 if nftables stands behind eBPF there, and has the same policy and addresses.");
  for (const auto& program : s.programs)
    if (!program.needed) families.add(yes(program.attached), {{"program", program.name}});
}

void add_kernel(Families& families, const KernelCounts& kernel) {
  families.counter("egressd_verdicts_total",
                   "Verdicts by reason, counted in the kernel since the programs were loaded.");
  for (const auto& verdicts : kernel.verdicts)
    families.add(verdicts.value, {{"verdict", verdicts.denied ? "denied" : "allowed"},
                                  {"reason", verdicts.reason}});
  families.counter("egressd_dns_outcomes_total",
                   "What became of DNS questions, answers and addresses, counted in the kernel.");
  for (const auto& outcome : kernel.dns_outcomes)
    families.add(outcome.value, {{"outcome", outcome.name}});
  families.counter("egressd_ring_records_total", "Denial records the kernel handed to the agent.")
      .add(kernel.ring_sent, {{"ring", "denials"}});
  families.counter("egressd_ring_records_lost_total",
                   "Records that found no room because the agent did not read fast enough.");
  for (const auto& lost : kernel.ring_lost) families.add(lost.value, {{"ring", lost.name}});
  families
      .counter("egressd_socket_storage_failures_total",
               "Sockets without memory for their verdict: judged packet by packet instead.")
      .add(kernel.storage_failed);
}

void add_dns_proxy(Families& families, const DnsProxyCounts& proxy) {
  families.counter("egressd_dns_proxy_questions_total",
                   "DNS questions that came to the agent, by what became of them.");
  for (const auto& result : proxy.questions) families.add(result.value, {{"result", result.name}});
  families.gauge("egressd_dns_proxy_under_way", "Questions that wait for their answer.")
      .add(proxy.under_way);
  families
      .counter("egressd_dns_proxy_held_answers_total",
               "Answers that waited until their addresses were reachable.")
      .add(proxy.held);
  families.counter("egressd_dns_proxy_held_seconds_total", "How long all of them waited, together.")
      .add(proxy.held_seconds);
}

void add_agent(Families& families, const Snapshot& s) {
  families.counter("egressd_rule_denials_total",
                   "Denials of single rules of the policy in force since the agent started, from "
                   "their records: what a ring lost is missing.");
  for (const auto& rule : s.rule_denials) {
    families.add(rule.denied,
                 {{"collection", rule.collection}, {"rule", rule.rule}, {"verdict", "denied"}});
    families.add(rule.would_deny,
                 {{"collection", rule.collection}, {"rule", rule.rule}, {"verdict", "would_deny"}});
  }
  families
      .counter("egressd_audit_records_lost_total",
               "Records the sink could not write since the agent started.")
      .add(s.audit_lost, {{"sink", "audit_log"}});
  families.gauge("egressd_map_entries",
                 "Entries of a bounded map; egressd_learned: addresses learned from DNS.");
  for (const auto& map : s.maps) families.add(map.entries, {{"map", map.map}});
  families.gauge("egressd_map_max_entries", "Entries a bounded map has room for.");
  for (const auto& map : s.maps) families.add(map.max_entries, {{"map", map.map}});

  families.gauge("egressd_resolver_names", "Names the agent keeps resolved ahead of use.")
      .add(s.names);
  families
      .gauge("egressd_resolver_names_unresolved", "Of these, without an answer since the start.")
      .add(s.names_unresolved);
  families.gauge("egressd_resolver_names_failing", "Of these, whose last question failed.")
      .add(s.names_failing);
  families.gauge("egressd_resolver_consecutive_failures",
                 "Failures in a row, by name of the policy; the worst if there are many names.");
  for (const auto& failure : s.failures) families.add(failure.value, {{"name", failure.name}});
}

}  // namespace

std::string exposition(const Snapshot& snapshot, BootTime now) {
  Families families;
  add_state(families, snapshot, now);
  if (snapshot.kernel) add_kernel(families, *snapshot.kernel);
  if (snapshot.dns_proxy) add_dns_proxy(families, *snapshot.dns_proxy);
  add_agent(families, snapshot);
  return families.text();
}

}  // namespace egressd::metrics
