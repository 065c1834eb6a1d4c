#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "audit/cgroup_path.h"
#include "audit/event_reader.h"
#include "audit/ring_reader.h"
#include "base/clock.h"
#include "base/unique_fd.h"
#include "control/server.h"
#include "daemon/compiler.h"
#include "daemon/daemon.h"
#include "daemon/dns_proxy.h"
#include "daemon/file_watch.h"
#include "daemon/grant_list.h"
#include "daemon/learned_names.h"
#include "daemon/local_addresses.h"
#include "daemon/metrics_endpoint.h"
#include "daemon/metrics_snapshot.h"
#include "daemon/name_ids.h"
#include "daemon/name_servers.h"
#include "daemon/opening_log.h"
#include "daemon/recorder.h"
#include "daemon/rule_history.h"
#include "daemon/service_notifier.h"
#include "daemon/status.h"
#include "daemon/trial.h"
#include "dns/reply.h"
#include "dns/resolver.h"
#include "enforce/backend.h"
#include "enforce/boot_table.h"
#include "policy/policy.h"

namespace egressd::daemon {

using std::chrono::seconds;

// A ring of 1 MiB holds no more at a time. Without a bound, whoever fills it as fast as it is read
// would keep the agent reading.
inline constexpr std::size_t kRingBytes = 1 << 20;
inline constexpr std::size_t kEverything = kRingBytes / sizeof(egressd_dns_event);
inline constexpr std::size_t kEveryDenial = kRingBytes / sizeof(egressd_event);
inline constexpr seconds kSweepEvery{30};
// Between a change of the policy file and reading it, and again while somebody writes it.
inline constexpr std::chrono::milliseconds kPolicyDelay{10};

// Private to the daemon: daemon.cpp holds its beginning and end, policy_change.cpp how a policy
// comes into force, learning.cpp what DNS said, forwarding.cpp what the DNS forwarder needs,
// answers.cpp the control socket.
class DaemonImpl final : public Daemon {
 public:
  DaemonImpl(EventLoop& loop, Options options) : loop_(loop), options_(std::move(options)) {}
  ~DaemonImpl() override {
    for (const auto timer : {sweep_timer_, live_timer_, attach_timer_, events_timer_, dns_timer_,
                             settle_timer_, policy_timer_, tally_timer_, trial_timer_, tell_timer_})
      loop_.cancel(timer);
    if (backend_ && !in_flood_ && denials_fd() >= 0) loop_.unwatch(denials_fd());
    if (dns_events_) loop_.unwatch(dns_events_->epoll_fd());
    // Enforcement found in place or begun goes on; a start that came to nothing leaves nothing.
    if (backend_ && !adopted_ && !attached_) backend_->discard_unused();
  }
  DaemonImpl(const DaemonImpl&) = delete;
  DaemonImpl& operator=(const DaemonImpl&) = delete;

  Result<void> start();
  Result<void> reload() override;
  void stopping() override {
    if (trial_) (void)roll_back();  // if it fails, the next start does it
  }
  void reopen_audit_log() override {
    if (auto r = recorder_->reopen(); !r) spdlog::error("{}", r.error().message);
  }
  [[nodiscard]] Result<void> outcome() const override {
    if (!attach_error_.empty()) return std::unexpected(Error::of(attach_error_));
    return {};
  }

 private:
  struct PolicyFile {
    policy::Policy policy;
    std::string hash;  // fingerprint() of `text`
    Trial::Text text;  // the bytes it was parsed from
  };
  // `hash` is the text's fingerprint(), if it is known.
  Result<PolicyFile> parse(std::string text, const std::string& path, std::string hash = "");
  // What is in force, to be put in force once more.
  [[nodiscard]] PolicyFile current() const { return {policy_, policy_hash_, policy_text_}; }
  Result<PolicyFile> read_policy();
  // Compiles the policy as the next generation and puts it in force.
  Result<void> put_in_force(PolicyFile file);
  // put_in_force(), then the resolver is told.
  Result<void> change_to(PolicyFile file);
  Result<void> start_resolver();
  [[nodiscard]] std::vector<enforce::LearnedAddress> grants_of_known(
      const NameMatcher& names, const std::vector<LearnedNames::Known>& known);
  void rejudge_learned();
  void settle_soon();
  void follow_resolv_conf();
  void follow_policy_file();
  Result<PolicyFile> policy_to_start_with();
  // boot_handover.cpp
  Result<PolicyFile> last_good_instead_of(Result<PolicyFile> file);
  void keep_last_good();
  void look_for_boot_table();
  void carry_boot_opening();
  void end_boot_table();
  Result<void> begin_trial(const std::string& path, seconds duration);
  Result<void> roll_back();
  Result<void> confirm_trial();
  // Of trial_, if there is one.
  void note_trial(audit::Notice::Event event, std::optional<seconds> duration = {});
  void end_trial_timer();
  void end_trial();
  [[nodiscard]] std::string trial_path() const { return options_.state_dir + "/before-trial"; }
  // Puts it in force, or says in the log and in `status` why not.
  Result<void> take_over(Result<PolicyFile> file);
  [[nodiscard]] std::string stub_alone_warning() const;
  [[nodiscard]] std::string servers_warning() const;

  [[nodiscard]] Result<std::unique_ptr<enforce::Backend>> open_backend() const;
  Result<void> open_sink();
  Result<void> open_events();
  Result<void> read_what_waits();
  void read_dns_events(std::size_t max);
  Result<void> watch_events();
  [[nodiscard]] int denials_fd() const;  // readable while there are events; -1: none yet
  void drain_events();
  void drain_dns_events();
  void drain_tally();
  void follow_break_glass();
  void restore();
  Result<void> open_control();
  void attach_when_ready();
  void attach();
  void tell_service();
  void tell_service_now();
  void sweep();
  void keep_live();

  void on_answer(const dns::Answer& answer);
  [[nodiscard]] std::vector<enforce::LearnedAddress> still_meant(
      std::span<const enforce::LearnedAddress> grants, BootTime now) const;
  std::vector<enforce::LearnedAddress> grants_for(const NameMatcher& names, const std::string& fqdn,
                                                  const net::IpAddress& address, BootTime expires);
  void on_dns_event(std::span<const std::uint8_t> entry);
  void on_dns_learned(const egressd_dns_event& event, const dns::Question& question,
                      std::span<const std::uint8_t> message);
  void on_dns_observed(const egressd_dns_event& event, const dns::Question& question,
                       std::span<const std::uint8_t> message);
  [[nodiscard]] BootTime expiry_of(const dns::Answer& answer) const;
  [[nodiscard]] bool rightly_learned(const egressd_dns_event& event, const std::string& fqdn) const;
  AskedBy asked_by(const Asker& who);
  void on_dns_too_large(const std::string& name);
  void keep_resolved();
  // No answer is read in the kernel: whatever dns.mode says, DNS goes through the agent.
  [[nodiscard]] bool forwards_all() const { return backend_->dns_events_fd() < 0; }
  // An error, if DNS has to go through the agent and does not.
  Result<void> follow_dns_mode();
  [[nodiscard]] const char* without_forwarder() const;
  void add_forwarder(StatusReport& report) const;
  dns::Forwarder::Judgement judge_question(const dns::Forwarder::Asked& asked);
  Result<void> learn_forwarded(const dns::Answer& answer);
  void on_forwarded(const dns::Forwarder::Asked& asked, const dns::Forwarder::Finished& finished);
  void record_refused(const dns::Forwarder::Asked& asked, std::uint32_t outcome, bool passes);
  void tell_unrecorded();
  void note_question(audit::Notice::Question question, std::optional<std::uint32_t> uid,
                     std::uint64_t cgroup_id);
  void on_request(const control::Request& request, control::Responder& responder);
  void on_try(const control::Request& request, control::Responder& responder);
  void answer_list(control::Responder& responder);
  GrantList::Sources grant_sources();
  void on_explain(const control::Request& request, control::Responder& responder);
  [[nodiscard]] StatusReport status_report();
  // Without the count of what was learned, which takes a walk over all of it.
  [[nodiscard]] StatusReport quick_report();
  [[nodiscard]] metrics::Snapshot metrics_snapshot();

  EventLoop& loop_;
  Options options_;
  SystemClock clock_;
  BootTime started_{0};

  UniqueFd pins_lock_;  // held as long as the agent lives
  std::unique_ptr<enforce::Backend> backend_;
  std::optional<enforce::BootTable> boot_table_;  // in force until this agent is
  std::string last_good_written_;                 // fingerprint of what this agent wrote last
  std::string last_good_error_;                   // why it could not be written; empty: it was
  std::unique_ptr<NameIds> ids_;
  policy::Policy policy_;
  std::chrono::system_clock::time_point started_at_ = std::chrono::system_clock::now();
  std::chrono::system_clock::time_point last_good_reload_ = started_at_;
  std::string policy_hash_;
  Trial::Text policy_text_;
  std::optional<Trial> trial_;
  std::string seen_before_trial_;  // policy_seen_ when it began
  // What this start makes of a trial that an earlier agent left behind.
  std::optional<audit::Notice::Event> trial_left_behind_;
  std::string trial_error_;  // why it cannot be rolled back; empty if it can, as far as is known
  EventLoop::TimerId trial_timer_ = 0;
  std::string reload_error_;  // what came of the last reload; empty if it worked
  Compiled compiled_;
  RuleHistory rule_history_;

  std::unique_ptr<dns::Resolver> resolver_;
  NameServers servers_;
  std::string servers_error_;  // why a change of resolv.conf is not followed; empty if it is
  std::unique_ptr<FileWatch> resolv_conf_watch_;
  std::unique_ptr<FileWatch> policy_watch_;
  std::string policy_seen_;  // hash of the file when it was last looked at; empty if not readable
  EventLoop::TimerId policy_timer_ = 0;
  std::optional<BootTime> policy_held_;  // since when it is only not read as somebody writes it
  LearnedNames learned_;
  std::set<std::string> guarded_;  // "name -> address" already warned of
  std::unique_ptr<LocalAddresses> local_addresses_;

  bool adopted_ = false;
  Meanwhile seen_;       // read from the kernel since start
  Meanwhile meanwhile_;  // of it, what was there already
  bool attached_ = false;
  std::string attach_error_;
  BootTime attach_deadline_{0};
  EventLoop::TimerId attach_timer_ = 0;
  EventLoop::TimerId sweep_timer_ = 0;
  EventLoop::TimerId live_timer_ = 0;
  std::string restore_error_;  // of the last look; empty if it worked
  std::string live_error_;     // of the last look for live sockets; empty if it worked
  // No pattern has been added since an earlier run: the names of its grants, which this run does
  // not know, cannot have moved to another pattern.
  bool earlier_names_hold_ = true;

  std::unique_ptr<ServiceNotifier> service_notifier_;
  std::unique_ptr<audit::CgroupPaths> cgroup_paths_;
  std::unique_ptr<audit::EventReader> events_;
  std::unique_ptr<audit::RingReader> dns_events_;
  EventLoop::TimerId events_timer_ = 0;
  bool in_flood_ = false;  // events_ is read by the timer alone
  EventLoop::TimerId dns_timer_ = 0;
  EventLoop::TimerId tally_timer_ = 0;
  EventLoop::TimerId tell_timer_ = 0;
  EventLoop::TimerId settle_timer_ = 0;
  BootTime settled_{0};
  // Names whose answers are too long for the kernel to learn from, newest last.
  std::deque<std::string> large_names_;
  std::unique_ptr<Recorder> recorder_;
  std::unique_ptr<OpeningLog> openings_;
  control::Watchers dns_watchers_;
  std::unique_ptr<control::Server> control_;
  std::unique_ptr<MetricsEndpoint> metrics_;
  // Of records of questions that the forwarder refused.
  double records_left_ = 0;
  BootTime records_at_{0};
  std::uint64_t unrecorded_questions_ = 0;
  enforce::Counters judged_;             // of those questions, as the kernel counts those it judges
  std::unique_ptr<DnsProxy> dns_proxy_;  // from the first policy that needs it on
};

}  // namespace egressd::daemon
