#include <netinet/in.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <iterator>

#include "daemon/daemon_impl.h"

// What the DNS forwarder asks of the daemon: `dns.mode: proxy`.

namespace egressd::daemon {
namespace {

// Records of refused questions a second; in one go, ten times as many. The kernel's ring bounds
// those of the inline mode.
constexpr double kRecordsPerSecond = 100;
constexpr double kMostRecords = 1000;

bool is_below(std::string_view name, std::string_view domain) {
  return name == domain || (name.size() > domain.size() && name.ends_with(domain) &&
                            name[name.size() - domain.size() - 1] == '.');
}

}  // namespace

Result<void> DaemonImpl::follow_dns_mode() {
  if (policy_.dns.mode == policy::DnsMode::Inline && !forwards_all()) {
    if (dns_proxy_ && dns_proxy_->is_active())
      spdlog::info("DNS is learned from in the kernel again");
    if (dns_proxy_) dns_proxy_->end();
    return {};
  }
  if (!dns_proxy_) {
    dns::Forwarder::Callbacks callbacks;
    callbacks.judge = [this](const dns::Forwarder::Asked& asked) { return judge_question(asked); };
    // This agent may be in the cgroup it judges.
    callbacks.answering = [this](std::uint64_t cookie, const dns::Forwarder::Client& client) {
      (void)backend_->let_answer(cookie, client.address, client.port);
    };
    callbacks.learn = [this](const dns::Answer& answer, const dns::Forwarder::Done& done) {
      done(learn_forwarded(answer));
    };
    callbacks.finished = [this](const dns::Forwarder::Asked& asked,
                                const dns::Forwarder::Finished& finished) {
      on_forwarded(asked, finished);
    };
    dns_proxy_ = std::make_unique<DnsProxy>(loop_, std::move(callbacks), options_.cgroup_path,
                                            cgroup_paths_->mount());
  }
  if (servers_.dns.addresses.empty()) {  // resolv.conf is awaited
    dns_proxy_->end();
    return {};
  }
  const bool was_active = dns_proxy_->is_active();
  const std::string error = dns_proxy_->error();
  if (auto r = dns_proxy_->follow(servers_.dns.addresses); !r) {
    if (r.error().message != error) spdlog::warn("{}: {}", without_forwarder(), r.error().message);
    if (forwards_all()) return r;
  } else if (!was_active) {
    spdlog::info("DNS questions of {} to {} server(s) go through this agent", options_.cgroup_path,
                 servers_.dns.addresses.size());
  }
  return {};
}

const char* DaemonImpl::without_forwarder() const {
  if (dns_proxy_ && dns_proxy_->is_active())
    return "only DNS questions to the servers of before go through this agent";
  return forwards_all() ? "DNS questions do not reach the agent, so nobody gets an answer by name"
                        : "dns.mode proxy is not in force, DNS is learned from in the kernel";
}

void DaemonImpl::add_forwarder(StatusReport& report) const {
  report.dns_proxy = dns_proxy_ && dns_proxy_->is_active();
  if (report.dns_proxy) {
    report.forwarded = dns_proxy_->forwarder()->counters();
    report.forwarded_under_way = dns_proxy_->forwarder()->under_way();
  }
  if (dns_proxy_ && !dns_proxy_->error().empty())
    report.warnings.push_back(without_forwarder() + (": " + dns_proxy_->error()));
  for (std::size_t i = 0; i < judged_.reasons.size(); ++i)
    report.counters.reasons[i] += judged_.reasons[i];
  for (std::size_t i = 0; i < judged_.dns.size(); ++i) report.counters.dns[i] += judged_.dns[i];
}

// As the kernel judges it: bpf/dns_query.h.
dns::Forwarder::Judgement DaemonImpl::judge_question(const dns::Forwarder::Asked& asked) {
  using Judgement = dns::Forwarder::Judgement;
  const auto& rules = compiled_.rules.dns;
  const auto matches = compiled_.names.match(asked.name);
  const bool known =
      std::ranges::any_of(matches, [](const NameMatcher::Entry* entry) { return entry->allows; }) ||
      std::ranges::any_of(rules.ask_only,
                          [&](const std::string& domain) { return is_below(asked.name, domain); });
  if (known && dns::is_usual_type(asked.type)) return Judgement::Ask;
  if (rules.filter == enforce::RuleSet::Dns::Filter::Off) return Judgement::Ask;
  bool passes = rules.filter == enforce::RuleSet::Dns::Filter::Audit;
  if (!passes)
    if (const auto opening = backend_->opening(); opening && opening->is_open(clock_.now()))
      passes = true;
  record_refused(asked, known ? EGRESSD_DNS_DENIED_TYPE : EGRESSD_DNS_DENIED_NAME, passes);
  return passes ? Judgement::Ask : Judgement::Refuse;
}

void DaemonImpl::record_refused(const dns::Forwarder::Asked& asked, std::uint32_t outcome,
                                bool passes) {
  const bool malformed = outcome == EGRESSD_DNS_DENIED_MALFORMED;
  const auto reason = malformed ? EGRESSD_DENY_DNS_MALFORMED : EGRESSD_DENY_DNS_NAME;
  ++judged_.dns[passes ? std::uint32_t{EGRESSD_DNS_WOULD_DENY} : outcome];
  ++judged_.reasons[passes ? EGRESSD_ALLOW_AUDIT : reason];
  const BootTime now = clock_.now();
  const std::chrono::duration<double> since = now - records_at_;
  records_left_ = std::min(kMostRecords, records_left_ + since.count() * kRecordsPerSecond);
  records_at_ = now;
  if (records_left_ < 1) {
    ++unrecorded_questions_;
    return;
  }
  records_left_ -= 1;
  tell_unrecorded();
  egressd_dns_event event{};
  event.time_ns = static_cast<std::uint64_t>(now.count());
  event.cgroup_id = asked.client.cgroup_id;
  std::ranges::copy(asked.client.server.bytes(), std::begin(event.server.addr));
  event.kind = EGRESSD_DNS_EVENT_DENIED;
  event.outcome = outcome;
  event.verdict = passes ? EGRESSD_ACTION_ALLOW : EGRESSD_ACTION_DENY;
  event.qtype = asked.type;
  event.proto = static_cast<std::uint8_t>(asked.client.protocol);
  event.length = static_cast<std::uint32_t>(asked.size);
  event.uid = asked.client.uid.value_or(0);
  event.generation = compiled_.rules.generation;
  recorder_->question_refused(event, asked.name);
}

// Their number goes on record, when there is room again.
void DaemonImpl::tell_unrecorded() {
  if (unrecorded_questions_ == 0) return;
  recorder_->put(audit::Notice::gap(std::chrono::system_clock::now(),
                                    std::exchange(unrecorded_questions_, 0), "dns_proxy",
                                    audit::reason_name(EGRESSD_DENY_DNS_NAME)));
}

Result<void> DaemonImpl::learn_forwarded(const dns::Answer& answer) {
  const auto& rules = compiled_.rules.dns;
  const BootTime expires =
      answer.heard + std::clamp(answer.ttl, rules.min_ttl, rules.max_ttl) + rules.grace;
  std::vector<enforce::LearnedAddress> grants;
  for (const net::IpAddress& address : answer.addresses)
    std::ranges::copy(grants_for(compiled_.names, answer.fqdn, address, expires),
                      std::back_inserter(grants));
  if (grants.empty()) {
    // Asked without a rule, or guarded: nothing becomes reachable. Records know the name, and a
    // later policy may have a rule for it.
    for (const net::IpAddress& address : answer.addresses)
      grants.push_back({address, LearnedNames::kNoPattern, expires});
    (void)learned_.record(answer, grants);
    return {};
  }
  if (auto r = backend_->learn(grants); !r) {
    spdlog::error("{}: {}; its answer is held back", answer.fqdn, r.error().message);
    return r;
  }
  if (learned_.record(answer, grants))
    spdlog::info("{} -> {} address(es), ttl {} s, asked for by a client", answer.fqdn,
                 answer.addresses.size(), answer.ttl.count());
  if (!dns_watchers_.empty() && answer.server)
    dns_watchers_.broadcast(to_json(answer, *answer.server, AskedBy{}));
  return {};
}

void DaemonImpl::on_forwarded(const dns::Forwarder::Asked& asked,
                              const dns::Forwarder::Finished& finished) {
  if (finished.how == dns::Forwarder::Finished::How::Malformed)
    record_refused(asked, EGRESSD_DNS_DENIED_MALFORMED, false);
  if (policy_.dns.log == policy::DnsLog::Denied ||
      finished.how == dns::Forwarder::Finished::How::Malformed ||
      finished.how == dns::Forwarder::Finished::How::Refused)
    return;
  const dns::Forwarder::Client& client = asked.client;
  note_question({.name = asked.name,
                 .type = dns::type_name(asked.type),
                 .server = client.server,
                 .protocol = client.protocol,
                 .source_port = client.port,
                 .source = client.address,
                 .rcode = dns::to_string(finished.rcode),
                 .addresses = finished.addresses,
                 .size = asked.size,
                 .answer_size = finished.size,
                 .took = std::chrono::duration_cast<std::chrono::microseconds>(finished.took),
                 .cgroup = ""},
                client.uid, client.cgroup_id);
}

void DaemonImpl::note_question(audit::Notice::Question question, std::optional<std::uint32_t> uid,
                               std::uint64_t cgroup_id) {
  if (cgroup_id != 0) question.cgroup = cgroup_paths_->find(cgroup_id).value_or("");
  audit::Notice notice;
  notice.event = audit::Notice::Event::DnsQuestion;
  notice.time = std::chrono::system_clock::now();
  notice.uid = uid;
  notice.question = std::move(question);
  recorder_->put(notice);
}

}  // namespace egressd::daemon
