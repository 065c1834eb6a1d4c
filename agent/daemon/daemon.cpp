#include "daemon/daemon.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <filesystem>
#include <iterator>
#include <limits>
#include <map>
#include <set>
#include <unordered_set>
#include <utility>

#include "audit/cgroup_path.h"
#include "audit/event_reader.h"
#include "audit/json_lines_sink.h"
#include "audit/record.h"
#include "audit/ring_reader.h"
#include "control/server.h"
#include "daemon/compiler.h"
#include "daemon/file_watch.h"
#include "daemon/grant_list.h"
#include "daemon/learned_names.h"
#include "daemon/local_addresses.h"
#include "daemon/metrics_endpoint.h"
#include "daemon/metrics_snapshot.h"
#include "daemon/name_ids.h"
#include "daemon/name_servers.h"
#include "daemon/recorder.h"
#include "daemon/rejudge.h"
#include "daemon/rule_history.h"
#include "daemon/status.h"
#include "dns/reply.h"
#include "dns/resolver.h"
#include "enforce/bpf_backend.h"
#include "enforce/cgroup.h"
#include "net/special.h"
#include "policy/parser.h"

namespace egressd::daemon {
namespace {

using std::chrono::seconds;

constexpr seconds kMinTtl{60};
constexpr seconds kMaxTtl{86400};
constexpr seconds kSweepEvery{30};
// How often it is looked which addresses have open connections.
constexpr seconds kLookForLiveEvery{20};
// Expired addresses are kept this long so that a denial can say "expired" instead of "unknown".
constexpr seconds kRememberExpired{600};

// Answers wait this long at most before `list` and records know their names.
constexpr std::chrono::milliseconds kReadDnsEvery{100};
constexpr std::chrono::milliseconds kReadEventsAgain{15};  // longer than EGRESSD_WAKE_NS
constexpr std::size_t kMaxLargeNames = 256;
constexpr seconds kAskLargeAgain{5};
// What a ring of 1 MiB can hold at a time. Without a bound, whoever fills it as fast as it is read
// would keep the agent reading.
constexpr std::size_t kRingBytes = 1 << 20;
constexpr std::size_t kEverything = kRingBytes / sizeof(egressd_dns_event);
constexpr std::size_t kEveryDenial = kRingBytes / sizeof(egressd_event);
// A policy is put in force anew for late answers no more often than this.
constexpr seconds kSettleEvery{1};
// Between a change of the policy file and reading it, and again while somebody writes it.
constexpr std::chrono::milliseconds kPolicyDelay{10};

net::IpAddress address_of(const egressd_addr& address) {
  net::IpAddress::Bytes bytes{};
  std::copy(std::begin(address.addr), std::end(address.addr), bytes.begin());
  return net::IpAddress(bytes);
}

// The first few.
std::string text_of(const std::vector<net::IpAddress>& addresses) {
  constexpr std::size_t kShown = 4;
  std::string text;
  for (std::size_t i = 0; i < std::min(addresses.size(), kShown); ++i)
    text += (i == 0 ? "" : ", ") + addresses[i].to_string();
  if (addresses.size() > kShown)
    text += " and " + std::to_string(addresses.size() - kShown) + " more";
  return text;
}

class DaemonImpl final : public Daemon {
 public:
  DaemonImpl(EventLoop& loop, Options options) : loop_(loop), options_(std::move(options)) {}
  ~DaemonImpl() override {
    for (const auto timer : {sweep_timer_, live_timer_, attach_timer_, events_timer_, dns_timer_,
                             settle_timer_, policy_timer_})
      loop_.cancel(timer);
    if (events_) loop_.unwatch(events_->epoll_fd());
    if (dns_events_) loop_.unwatch(dns_events_->epoll_fd());
    // Enforcement found in place or begun goes on; a start that came to nothing leaves nothing.
    if (backend_ && !adopted_ && !attached_) backend_->discard_unused();
  }
  DaemonImpl(const DaemonImpl&) = delete;
  DaemonImpl& operator=(const DaemonImpl&) = delete;

  Result<void> start();
  Result<void> reload() override;
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
    std::string hash;  // fingerprint() of the bytes it was parsed from
  };
  Result<PolicyFile> parse(const std::string& text);
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
  // Puts it in force, or says in the log and in `status` why not.
  Result<void> take_over(Result<PolicyFile> file);
  [[nodiscard]] std::string stub_alone_warning() const;

  Result<void> open_sink();
  Result<void> open_events();
  Result<void> read_what_waits();
  void read_dns_events(std::size_t max);
  void drain_events();
  void drain_dns_events();
  Result<void> open_control();
  void attach_when_ready();
  void attach();
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
  [[nodiscard]] bool rightly_learned(const egressd_dns_event& event, const std::string& fqdn) const;
  AskedBy asked_by(const Asker& who);
  void on_dns_too_large(const std::string& name);
  void keep_resolved();
  void on_request(const control::Request& request, control::Responder& responder);
  void answer_list(control::Responder& responder);
  // Without the count of what was learned, which takes a walk over all of it.
  [[nodiscard]] StatusReport quick_report();
  [[nodiscard]] StatusReport status_report();
  [[nodiscard]] metrics::Snapshot metrics_snapshot();

  EventLoop& loop_;
  Options options_;
  SystemClock clock_;
  BootTime started_{0};
  std::chrono::system_clock::time_point started_at_ = std::chrono::system_clock::now();

  UniqueFd pins_lock_;  // held as long as the agent lives
  std::unique_ptr<enforce::Backend> backend_;
  std::unique_ptr<NameIds> ids_;
  policy::Policy policy_;
  std::string policy_hash_;
  std::string reload_error_;  // what came of the last reload; empty if it worked
  std::chrono::system_clock::time_point last_good_reload_ = started_at_;
  Compiled compiled_;
  RuleHistory rule_history_;

  std::unique_ptr<dns::Resolver> resolver_;
  NameServers servers_;
  std::string servers_error_;  // why a change of resolv.conf is not followed; empty if it is
  std::unique_ptr<FileWatch> resolv_conf_watch_;
  std::unique_ptr<FileWatch> policy_watch_;
  std::string policy_seen_;  // hash of the file when it was last looked at; empty if not readable
  EventLoop::TimerId policy_timer_ = 0;
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
  std::string live_error_;  // of the last look for live sockets; empty if it worked
  // No pattern has been added since an earlier run: the names of its grants, which this run does
  // not know, cannot have moved to another pattern.
  bool earlier_names_hold_ = true;

  std::unique_ptr<audit::CgroupPaths> cgroup_paths_;
  std::unique_ptr<audit::EventReader> events_;
  std::unique_ptr<audit::RingReader> dns_events_;
  EventLoop::TimerId events_timer_ = 0;
  EventLoop::TimerId dns_timer_ = 0;
  EventLoop::TimerId settle_timer_ = 0;
  BootTime settled_{0};
  // Names whose answers are too long for the kernel to learn from, newest last.
  std::deque<std::string> large_names_;
  std::unique_ptr<Recorder> recorder_;
  control::Watchers dns_watchers_;
  std::unique_ptr<control::Server> control_;
  std::unique_ptr<MetricsEndpoint> metrics_;
};

std::unexpected<Error> refused(const std::vector<policy::Diagnostic>& diagnostics) {
  std::string all;
  for (const policy::Diagnostic& d : diagnostics) all += (all.empty() ? "" : "\n") + d.to_string();
  return std::unexpected(Error::of(std::move(all)));
}

Result<DaemonImpl::PolicyFile> DaemonImpl::parse(const std::string& text) {
  auto parsed = policy::parse_policy(text, options_.policy_path, policy::TagCatalog::builtin());
  if (!parsed) return refused(parsed.error());
  for (const policy::Diagnostic& d : parsed->warnings) spdlog::warn("{}", d.to_string());
  return PolicyFile{std::move(parsed->policy), fingerprint(text)};
}

Result<DaemonImpl::PolicyFile> DaemonImpl::read_policy() {
  const auto text = policy::read_policy_file(options_.policy_path);
  policy_seen_ = text ? fingerprint(*text) : "";
  if (!text) return refused(text.error());
  return parse(*text);
}

Result<void> DaemonImpl::put_in_force(PolicyFile file) {
  policy::Policy& policy = file.policy;
  auto servers = find_name_servers(policy, options_.resolv_conf);
  if (!servers) return std::unexpected(std::move(servers.error()));
  const auto before = backend_->generation();
  if (!before) return std::unexpected(before.error());
  const std::uint32_t first_new = ids_->next();
  auto compiled = compile(policy, *before + 1, servers->dns, *ids_);
  if (!compiled) return std::unexpected(std::move(compiled.error()));

  // What the policy takes back ends with this generation (daemon/rejudge.h); what it keeps is
  // granted before that, so that nothing legal is refused for a moment.
  read_dns_events(kEverything);
  const auto grants = backend_->learned();
  if (!grants) return std::unexpected(grants.error());
  const auto renewed = patterns_to_renew(*compiled, *ids_, learned_, *grants);
  for (const std::string& pattern : renewed) {
    if (*before != 0)
      spdlog::warn(
          "a new deny rule may concern addresses learned for {} whose names are not known any "
          "more: "
          "they end, open connections to them too, and are learned again when asked for",
          pattern);
    ids_->renew(pattern);
  }
  if (!renewed.empty()) {
    compiled = compile(policy, *before + 1, servers->dns, *ids_);
    if (!compiled) return std::unexpected(std::move(compiled.error()));
  }
  // On disk before it is in the kernel: a number must not outlive its meaning. Of the refusing
  // patterns at no time one that is not in force.
  const auto refusing = refusing_patterns(compiled->names);
  std::set<std::string> still_refusing;
  std::ranges::set_intersection(ids_->refusing(), refusing,
                                std::inserter(still_refusing, still_refusing.end()));
  ids_->set_refusing(std::move(still_refusing));
  if (auto r = ids_->save(); !r) return r;
  // Too little room for all is no reason to leave the old policy in force.
  if (auto r = backend_->learn(grants_of_known(compiled->names, learned_.all())); !r)
    spdlog::error("{}", r.error().message);
  // Before there is an event of this generation. Records are no reason to leave it out of force.
  if (auto r = rule_history_.add(compiled->rules.generation, compiled->rules.rule_names); !r)
    spdlog::warn("{}", r.error().message);
  if (auto r = backend_->apply(compiled->rules); !r) return r;
  ids_->set_refusing(refusing);
  if (auto r = ids_->save(); !r) spdlog::warn("{}", r.error().message);

  std::set<std::uint32_t> old_ids;
  for (const auto& name : compiled_.rules.names) old_ids.insert(name.name_id);
  const bool first = compiled_.rules.generation == 0;
  if (first_new > 1 && std::ranges::any_of(compiled->rules.names, [&](const auto& name) {
        return first ? name.name_id >= first_new : !old_ids.contains(name.name_id);
      }))
    earlier_names_hold_ = false;
  policy_ = std::move(policy);
  compiled_ = std::move(*compiled);
  recorder_->denials().follow(compiled_.rules);
  servers_ = std::move(*servers);
  servers_error_.clear();
  if (servers_.stub_alone) spdlog::warn("{}", stub_alone_warning());
  policy_hash_ = std::move(file.hash);
  spdlog::info("generation {} in force: mode {}, {} rules, {} prefixes, {} name patterns",
               compiled_.rules.generation, compiled_.rules.enforce ? "enforce" : "audit",
               compiled_.rules.rule_names.size(), compiled_.rules.prefixes.size(),
               compiled_.rules.names.size());
  loop_.cancel(std::exchange(settle_timer_, 0));
  rejudge_learned();
  return {};
}

Result<void> DaemonImpl::change_to(PolicyFile file) {
  const auto old_servers = servers_.dns.addresses;
  if (auto r = put_in_force(std::move(file)); !r) return r;
  if (servers_.dns.addresses == old_servers) {
    keep_resolved();
    return {};
  }
  auto started = start_resolver();
  if (started) return started;
  // The servers of before have no say any more. What they said last stays through grace, and
  // the next reload tries again.
  resolver_->set_names({});
  servers_.dns.addresses.clear();
  servers_.stub_alone = false;
  return std::unexpected(
      std::move(started.error())
          .context("generation " + std::to_string(compiled_.rules.generation) +
                   " is in force, but its names are not resolved ahead of use until the next "
                   "reload"));
}

std::vector<enforce::LearnedAddress> DaemonImpl::grants_of_known(
    const NameMatcher& names, const std::vector<LearnedNames::Known>& known) {
  std::vector<enforce::LearnedAddress> grants;
  const BootTime now = clock_.now();
  for (const LearnedNames::Known& k : known) {
    if (k.origin.expires <= now) continue;
    std::ranges::copy(grants_for(names, k.origin.fqdn, k.address, k.origin.expires),
                      std::back_inserter(grants));
  }
  return grants;
}

Result<void> DaemonImpl::start_resolver() {
  dns::Resolver::Options options;
  options.servers = servers_.dns.addresses;
  auto resolver = dns::Resolver::create(
      loop_, std::move(options), [this](const dns::Answer& answer) { on_answer(answer); },
      [](const std::string& fqdn, const std::string& error) {
        spdlog::warn(
            "cannot resolve {}: {}; what it resolved to before stays reachable through grace", fqdn,
            error);
      });
  if (!resolver) return std::unexpected(std::move(resolver.error()).context("resolver"));
  resolver_ = std::move(*resolver);
  keep_resolved();
  return {};
}

void DaemonImpl::keep_resolved() {
  if (!resolver_) return;  // an event found at start: asked for when there is one
  std::vector<std::string> names = compiled_.resolve;
  names.insert(names.end(), large_names_.begin(), large_names_.end());
  std::ranges::sort(names);
  const auto repeated = std::ranges::unique(names);
  names.erase(repeated.begin(), repeated.end());
  resolver_->set_names(std::move(names));
}

Result<void> DaemonImpl::start() {
  started_ = clock_.now();
  auto file = read_policy();
  if (!file) return std::unexpected(std::move(file.error()));

  const auto mount = enforce::find_cgroup2_mount();
  if (!mount) return std::unexpected(mount.error());
  if (options_.cgroup_path.empty()) options_.cgroup_path = *mount;
  cgroup_paths_ = std::make_unique<audit::CgroupPaths>(*mount);
  std::error_code ec;
  std::filesystem::create_directories(options_.state_dir, ec);
  if (ec)
    return std::unexpected(Error{ec.value(), "create " + options_.state_dir + ": " + ec.message()});
  if (auto r = open_sink(); !r) return r;
  // Before anything changes in the kernel: a second daemon on the same socket ends here.
  if (auto r = open_control(); !r) return r;
  auto endpoint =
      MetricsEndpoint::open(loop_, options_.metrics_listen, [this] { return metrics_snapshot(); });
  if (!endpoint) return std::unexpected(std::move(endpoint.error()));
  metrics_ = std::move(*endpoint);

  // So does one with another socket that pins in the same place.
  auto lock = enforce::lock_pins(options_.bpffs_dir);
  if (!lock) return std::unexpected(std::move(lock.error()));
  pins_lock_ = std::move(*lock);

  enforce::BpfOptions bpf;
  bpf.cgroup_path = options_.cgroup_path;
  bpf.bpffs_dir = options_.bpffs_dir;
  bpf.max_learned = options_.max_learned;
  auto backend = enforce::open_bpf_backend(std::move(bpf));
  if (!backend) return std::unexpected(std::move(backend.error()));
  backend_ = std::move(*backend);
  const auto found = backend_->generation();
  if (!found) return std::unexpected(found.error());
  adopted_ = *found != 0;

  const auto highest = backend_->highest_name_id();
  if (!highest) return std::unexpected(highest.error());
  auto ids = NameIds::load(options_.state_dir + "/names", backend_->instance(), *highest);
  if (!ids) return std::unexpected(std::move(ids.error()));
  ids_ = std::make_unique<NameIds>(std::move(*ids));
  if (*highest != 0 && !ids_->was_kept()) {
    spdlog::warn(
        "{}/names does not belong to the maps found in the kernel: learned addresses are "
        "forgotten and will be learned again",
        options_.state_dir);
    if (auto r = backend_->forget_learned(); !r) return r;
  }

  rule_history_ = RuleHistory::load(options_.state_dir + "/rules", backend_->instance());

  auto local = LocalAddresses::open(loop_, [this](const std::vector<net::IpAddress>& addresses) {
    if (auto r = backend_->set_local_addresses(addresses); !r)
      spdlog::error("{}", r.error().message);
  });
  if (!local) return std::unexpected(std::move(local.error()));
  local_addresses_ = std::move(*local);

  // What the kernel learned before now is known when the policy is compiled.
  policy_.dns.grace = file->policy.dns.grace;
  if (auto r = open_events(); !r) return r;
  auto watch = FileWatch::open(loop_, {options_.resolv_conf.conf, options_.resolv_conf.upstream},
                               [this] { follow_resolv_conf(); });
  if (watch)
    resolv_conf_watch_ = std::move(*watch);
  else
    spdlog::warn("changes of {} are seen late: {}", options_.resolv_conf.conf,
                 watch.error().message);
  // Before it is put in force: what changes from now on is seen.
  auto policy_watch = FileWatch::open(
      loop_, {options_.policy_path}, [this] { follow_policy_file(); }, kPolicyDelay);
  if (policy_watch)
    policy_watch_ = std::move(*policy_watch);
  else
    spdlog::warn("changes of {} are seen late: {}", options_.policy_path,
                 policy_watch.error().message);
  if (auto r = put_in_force(std::move(*file)); !r) return r;
  if (auto r = start_resolver(); !r) return r;
  if (adopted_) {
    spdlog::info("adopted what an earlier agent left in force (generation {})", *found);
    attach();
  } else {
    attach_deadline_ = clock_.now() + options_.first_answers;
    attach_when_ready();
  }
  if (auto r = outcome(); !r) return r;
  sweep_timer_ = loop_.after(kSweepEvery, [this] { sweep(); });
  // At once: grants may have ended while no agent ran, and the first sweep would take them away.
  keep_live();
  return {};
}

void DaemonImpl::attach_when_ready() {
  const bool all =
      std::ranges::all_of(resolver_->status(), [](const dns::Resolver::NameStatus& name) {
        return name.resolved || name.consecutive_failures > 0;
      });
  if (all || clock_.now() >= attach_deadline_) {
    attach();
    return;
  }
  attach_timer_ = loop_.after(std::chrono::milliseconds(20), [this] { attach_when_ready(); });
}

void DaemonImpl::attach() {
  auto r = backend_->attach();
  attached_ = r.has_value();
  attach_error_ = r ? "" : r.error().message;
  if (r)
    spdlog::info("enforcing on {}", options_.cgroup_path);
  else
    loop_.stop();  // an agent that enforces nothing must not look alive
}

Result<void> DaemonImpl::reload() { return take_over(read_policy()); }

// A file that has been changed, if it is one: a pipe gives its bytes to whoever asks, and only a
// request for it may wait for them.
void DaemonImpl::follow_policy_file() {
  loop_.cancel(std::exchange(policy_timer_, 0));
  std::error_code ec;
  const auto kind = std::filesystem::status(options_.policy_path, ec).type();
  if (kind != std::filesystem::file_type::regular && kind != std::filesystem::file_type::not_found)
    return;
  if (FileWatch::is_being_written(options_.policy_path)) {
    policy_timer_ = loop_.after(kPolicyDelay, [this] {
      policy_timer_ = 0;
      follow_policy_file();
    });
    return;
  }
  const auto text = policy::read_policy_file(options_.policy_path);
  const std::string seen = text ? fingerprint(*text) : "";
  if (seen == policy_seen_) return;
  policy_seen_ = seen;
  if (text && seen == policy_hash_ && reload_error_.empty()) return;
  if (text) spdlog::info("{} has changed", options_.policy_path);
  (void)take_over(text ? parse(*text) : refused(text.error()));
}

Result<void> DaemonImpl::take_over(Result<PolicyFile> file) {
  const auto old_generation = compiled_.rules.generation;
  auto r = file ? change_to(std::move(*file)) : Result<void>(std::unexpected(file.error()));
  reload_error_.clear();
  if (r) last_good_reload_ = std::chrono::system_clock::now();
  if (r) return r;
  if (compiled_.rules.generation != old_generation) {
    reload_error_ = r.error().message;
    spdlog::error("{}", reload_error_);
  } else {
    reload_error_ = "last reload refused: " + r.error().message;
    spdlog::error("reload refused, generation {} stays in force:\n{}", old_generation,
                  r.error().message);
  }
  return r;
}

// After a switch: what the kernel learned just before it went to patterns of the old generation.
void DaemonImpl::rejudge_learned() {
  read_dns_events(kEverything);
  const auto known = learned_.all();
  if (auto r = backend_->learn(grants_of_known(compiled_.names, known)); !r)
    spdlog::error("{}", r.error().message);
  learned_ = LearnedNames();
  std::unordered_set<std::uint32_t> ids;
  for (const auto& name : compiled_.rules.names) ids.insert(name.name_id);
  for (const LearnedNames::Known& k : known) {
    auto grants = grants_for(compiled_.names, k.origin.fqdn, k.address, k.origin.expires);
    // What it was granted under before stands beside, if the policy still has that pattern.
    if (ids.contains(k.name_id)) grants.push_back({k.address, k.name_id, k.origin.expires});
    learned_.record({k.origin.source, k.origin.fqdn, k.origin.cname_chain, {k.address}, seconds(0)},
                    grants, k.origin.asker);
  }
}

// An answer to a question of an earlier generation taught a pattern that its name no longer belongs
// to: the policy is put in force once more, which takes that back.
void DaemonImpl::settle_soon() {
  if (settle_timer_ != 0) return;
  settle_timer_ = loop_.after(settled_ + kSettleEvery - clock_.now(), [this] {
    settle_timer_ = 0;
    spdlog::info("an answer came late, under the rules of an earlier generation: judged again");
    settled_ = clock_.now();
    if (auto r = change_to({policy_, policy_hash_}); !r) {
      spdlog::error("{}", r.error().message);
      settle_soon();
    }
  });
}

void DaemonImpl::follow_resolv_conf() {
  const auto found = find_name_servers(policy_, options_.resolv_conf);
  std::string error;
  if (!found) {
    error = found.error().message;
  } else if (*found != servers_) {
    spdlog::info("{} has changed: the policy is put in force with its servers and search list",
                 options_.resolv_conf.conf);
    if (auto r = change_to({policy_, policy_hash_}); !r) error = r.error().message;
  }
  if (!error.empty() && error != servers_error_)
    spdlog::error("the servers trusted so far stay trusted: {}", error);
  servers_error_ = std::move(error);
}

std::string DaemonImpl::stub_alone_warning() const {
  return options_.resolv_conf.conf + " names only " + servers_.dns.addresses.front().to_string() +
         ", and " + options_.resolv_conf.upstream +
         " does not say whom that asks: its own questions are refused if it runs in the judged "
         "cgroup; name its servers too in the policy, under dns.servers";
}

void DaemonImpl::sweep() {
  follow_resolv_conf();  // should a change have gone unseen, or not have been possible
  follow_policy_file();
  const BootTime now = clock_.now();
  if (auto r = backend_->expire(now - kRememberExpired); !r) spdlog::error("{}", r.error().message);
  learned_.forget(now - kRememberExpired);
  guarded_.clear();
  sweep_timer_ = loop_.after(kSweepEvery, [this] { sweep(); });
}

// An address with open sockets does not end, so that they can be opened again by who does not ask
// DNS again; after the last it stays for the grace. Part by part: a machine can have many.
void DaemonImpl::keep_live() {
  const BootTime now = clock_.now();
  const BootTime soon = now + std::max<seconds>(policy_.dns.grace, 2 * kLookForLiveEvery);
  // Not at every look.
  const BootTime until = soon + 2 * kLookForLiveEvery;
  const auto ending = backend_->next_live(soon);
  if (ending) {
    auto grants = still_meant(*ending, now);
    for (enforce::LearnedAddress& grant : grants) grant.expires = until;
    if (auto r = backend_->learn(grants); !r) spdlog::error("{}", r.error().message);
    for (const enforce::LearnedAddress& grant : grants)
      learned_.extend(grant.address, grant.name_id, now, until);
    if (!grants.empty()) spdlog::debug("{} address(es) of open connections kept", grants.size());
  } else if (live_error_.empty()) {
    spdlog::warn("addresses of open connections are not kept reachable beyond their time: {}",
                 ending.error().message);
  }
  live_error_ = ending ? "" : ending.error().message;
  const bool more = ending && !ending->empty();
  live_timer_ =
      loop_.after(more ? std::chrono::milliseconds(1) : kLookForLiveEvery, [this] { keep_live(); });
}

// Those that the policy in force would give to the same pattern again.
std::vector<enforce::LearnedAddress> DaemonImpl::still_meant(
    std::span<const enforce::LearnedAddress> grants, BootTime now) const {
  std::vector<enforce::LearnedAddress> meant;
  std::multimap<std::uint32_t, enforce::LearnedAddress> unnamed;
  for (const enforce::LearnedAddress& grant : grants) {
    const auto origins = learned_.standing(grant.address, grant.name_id, now);
    if (origins.empty()) {
      unnamed.emplace(grant.name_id, grant);
      continue;
    }
    const auto gives = [&](const LearnedNames::Origin& origin) {
      return std::ranges::any_of(
          compiled_.names.match(origin.fqdn), [&](const NameMatcher::Entry* entry) {
            return entry->name_id == grant.name_id && may_grant(*entry, grant.address);
          });
    };
    if (std::ranges::any_of(origins, gives)) meant.push_back(grant);
  }
  if (unnamed.empty()) return meant;
  for (const NameMatcher::Entry& entry : compiled_.names.entries()) {
    // The name of an exact pattern is the pattern.
    if (entry.pattern.kind() != policy::FqdnPattern::Kind::Exact && !earlier_names_hold_) continue;
    const auto [begin, end] = unnamed.equal_range(entry.name_id);
    for (auto it = begin; it != end; ++it) {
      if (may_grant(entry, it->second.address)) meant.push_back(it->second);
    }
  }
  return meant;
}

std::vector<enforce::LearnedAddress> DaemonImpl::grants_for(const NameMatcher& names,
                                                            const std::string& fqdn,
                                                            const net::IpAddress& address,
                                                            BootTime expires) {
  std::vector<enforce::LearnedAddress> grants;
  for (const NameMatcher::Entry* entry : names.match(fqdn)) {
    if (may_grant(*entry, address)) {
      grants.push_back({address, entry->name_id, expires});
    } else if (entry->allows && guarded_.insert(fqdn + " " + address.to_string()).second) {
      const net::SpecialBlock* block = net::special_block(address);
      spdlog::warn("{} resolves to {} ({}): not reachable by name; if that is meant, {}", fqdn,
                   address.to_string(), block->purpose,
                   block->learnable == net::SpecialBlock::Learnable::Never
                       ? "write a network rule for the address"
                       : "say allowPrivate: true in its rule (private endpoint)");
    }
  }
  return grants;
}

void DaemonImpl::on_answer(const dns::Answer& answer) {
  const BootTime expires =
      clock_.now() + std::clamp(answer.ttl, kMinTtl, kMaxTtl) + policy_.dns.grace;
  std::vector<enforce::LearnedAddress> grants;
  for (const net::IpAddress& address : answer.addresses)
    std::ranges::copy(grants_for(compiled_.names, answer.fqdn, address, expires),
                      std::back_inserter(grants));
  if (auto r = backend_->learn(grants); !r) {
    spdlog::error("{}: {}", answer.fqdn, r.error().message);
    return;
  }
  spdlog::log(learned_.record(answer, grants) ? spdlog::level::info : spdlog::level::debug,
              "{} -> {}, ttl {} s, resolved ahead of use", answer.fqdn, text_of(answer.addresses),
              answer.ttl.count());
}

Result<void> DaemonImpl::open_sink() {
  auto sink = options_.audit_log == "-" ? audit::JsonLinesSink::open_descriptor(STDOUT_FILENO)
                                        : audit::JsonLinesSink::open_file(options_.audit_log);
  if (!sink) return std::unexpected(std::move(sink.error()).context("audit log"));
  recorder_ = std::make_unique<Recorder>(std::move(*sink), *cgroup_paths_, rule_history_, learned_);
  return {};
}

Result<void> DaemonImpl::open_events() {
  auto reader = audit::EventReader::open(backend_->events_fd(), [this](const egressd_event& event) {
    ++seen_.denials;
    recorder_->refused(event);
  });
  if (!reader) return std::unexpected(std::move(reader.error()));
  events_ = std::move(*reader);
  auto watched =
      loop_.watch(events_->epoll_fd(), EPOLLIN, [this](std::uint32_t) { drain_events(); });
  if (!watched) return watched;

  auto dns_reader =
      audit::RingReader::open(backend_->dns_events_fd(),
                              [this](std::span<const std::uint8_t> entry) { on_dns_event(entry); });
  if (!dns_reader) return std::unexpected(std::move(dns_reader.error()));
  dns_events_ = std::move(*dns_reader);
  watched = loop_.watch(dns_events_->epoll_fd(), EPOLLIN, [this](std::uint32_t) {
    read_dns_events(audit::EventReader::kMaxPerPoll);
  });
  if (!watched) return watched;
  if (adopted_) {
    if (auto r = read_what_waits(); !r) return r;
  }
  drain_dns_events();
  return {};
}

// Answers first: the names of what was denied are known then.
Result<void> DaemonImpl::read_what_waits() {
  if (auto r = dns_events_->poll(kEverything); !r) return std::unexpected(std::move(r.error()));
  for (std::size_t taken = 1, all = 0; taken != 0 && all < kEveryDenial; all += taken) {
    auto polled = events_->poll();
    if (!polled) return std::unexpected(std::move(polled.error()));
    taken = *polled;
  }
  meanwhile_ = seen_;
  spdlog::info(
      "while no agent was running: {} denials, {} refused DNS questions, {} DNS answers learned "
      "from",
      meanwhile_.denials, meanwhile_.questions, meanwhile_.learned);
  return {};
}

// In a burst the kernel wakes us once per EGRESSD_WAKE_NS only: what came after is fetched by
// looking again, until there is nothing.
void DaemonImpl::drain_events() {
  const auto taken = events_->poll();
  if (!taken) spdlog::error("{}", taken.error().message);
  if (events_timer_ != 0) loop_.cancel(std::exchange(events_timer_, 0));
  if (taken && *taken != 0) {
    events_timer_ = loop_.after(kReadEventsAgain, [this] {
      events_timer_ = 0;
      drain_events();
    });
  }
}

void DaemonImpl::read_dns_events(std::size_t max) {
  if (auto r = dns_events_->poll(max); !r) spdlog::error("{}", r.error().message);
}

// Answers do not wake the agent one by one: they are read in batches.
void DaemonImpl::drain_dns_events() {
  read_dns_events(audit::EventReader::kMaxPerPoll);
  dns_timer_ = loop_.after(kReadDnsEvery, [this] { drain_dns_events(); });
}

void DaemonImpl::on_dns_event(std::span<const std::uint8_t> entry) {
  egressd_dns_event event{};
  if (entry.size() < sizeof(event)) return;
  std::memcpy(&event, entry.data(), sizeof(event));
  const auto message = entry.subspan(sizeof(event));
  const auto question = dns::parse_question(message);
  switch (event.kind) {
    case EGRESSD_DNS_EVENT_LEARNED:
      if (question) on_dns_learned(event, *question, message);
      break;
    case EGRESSD_DNS_EVENT_DENIED:
      ++seen_.questions;
      recorder_->question_refused(event, question ? question->name : std::string());
      break;
    case EGRESSD_DNS_EVENT_TOO_LARGE:
      if (question) on_dns_too_large(question->name);
      break;
    default:
      break;
  }
}

void DaemonImpl::on_dns_learned(const egressd_dns_event& event, const dns::Question& question,
                                std::span<const std::uint8_t> message) {
  const auto type = static_cast<dns::RecordType>(question.type);
  if (type != dns::RecordType::A && type != dns::RecordType::Aaaa) return;
  const auto reply = dns::parse_reply(message, question.name, type);
  if (!reply) return;
  dns::Answer answer{dns::Answer::Source::Kernel, question.name, reply->cname_chain,
                     reply->addresses, seconds(event.ttl_s)};
  const BootTime expires = BootTime(static_cast<std::int64_t>(event.time_ns)) +
                           std::clamp(answer.ttl, kMinTtl, kMaxTtl) + policy_.dns.grace;
  std::vector<enforce::LearnedAddress> grants;
  for (const net::IpAddress& address : reply->addresses) {
    for (const std::uint32_t name_id : event.name_ids) {
      if (name_id != 0) grants.push_back({address, name_id, expires});
    }
  }
  if (!rightly_learned(event, question.name)) settle_soon();
  Asker asker{event.tgid, event.uid, event.cgroup_id, {}};
  asker.comm.assign(std::begin(event.comm), std::ranges::find(event.comm, 0));
  ++seen_.learned;
  spdlog::log(learned_.record(answer, grants, asker) ? spdlog::level::info : spdlog::level::debug,
              "{} -> {}, ttl {} s, learned from the answer of {}, asked by {}[{}]", question.name,
              text_of(answer.addresses), answer.ttl.count(), address_of(event.server).to_string(),
              audit::printable(asker.comm), asker.pid);
  if (!dns_watchers_.empty())
    dns_watchers_.broadcast(to_json(answer, address_of(event.server), asked_by(asker)));
}

// False if one of the patterns is in the policy and should not have been granted for this name.
bool DaemonImpl::rightly_learned(const egressd_dns_event& event, const std::string& fqdn) const {
  const auto matches = compiled_.names.match(fqdn);
  const auto is_match = [&](std::uint32_t id) {
    return id == 0 || std::ranges::any_of(matches, [&](const auto* m) { return m->name_id == id; });
  };
  if (std::ranges::all_of(event.name_ids, is_match)) return true;
  return std::ranges::none_of(compiled_.names.entries(), [&](const NameMatcher::Entry& entry) {
    return std::ranges::find(event.name_ids, entry.name_id) != std::end(event.name_ids) &&
           !still_right(compiled_.names, fqdn, entry);
  });
}

AskedBy DaemonImpl::asked_by(const Asker& who) {
  return {who, who.cgroup_id == 0 ? "" : cgroup_paths_->find(who.cgroup_id).value_or("")};
}

// The client has the answer already, truncated or over TCP: the addresses have to be in force by
// the time it tries again. This agent's own question has the same answer, and may be judged too: it
// must not lead to the next.
void DaemonImpl::on_dns_too_large(const std::string& name) {
  if (std::ranges::find(large_names_, name) == large_names_.end()) {
    if (large_names_.size() == kMaxLargeNames) large_names_.pop_front();
    large_names_.push_back(name);
    keep_resolved();
  }
  if (resolver_) resolver_->refresh(name, kAskLargeAgain);
}

Result<void> DaemonImpl::open_control() {
  control::Server::Options options;
  options.path = options_.socket_path;
  auto server =
      control::Server::open(loop_, std::move(options),
                            [this](const control::Request& request, control::Responder& responder) {
                              on_request(request, responder);
                            });
  if (!server) return std::unexpected(std::move(server.error()));
  control_ = std::move(*server);
  return {};
}

void DaemonImpl::on_request(const control::Request& request, control::Responder& responder) {
  if (request.command == "status") {
    responder.send(control::ok_line(to_json(status_report())));
  } else if (request.command == "list") {
    answer_list(responder);
  } else if (request.command == "watch") {
    responder.send(control::ok_line());
    responder.keep_open();
    const auto dns = request.arguments.find("dns");
    if (dns != request.arguments.end() && dns->second == "true")
      dns_watchers_.add(responder);
    else
      recorder_->watch(responder);
  } else if (request.command == "reload") {
    const auto r = reload();
    responder.send(r ? control::ok_line(generation_json(compiled_.rules.generation))
                     : control::error_line(r.error().message));
  } else if (request.command == "detach") {
    auto removed = backend_->detach();
    responder.send(removed ? control::ok_line(removed_json(*removed))
                           : control::error_line(removed.error().message));
    if (!removed) return;
    spdlog::warn("detached on request: nothing is enforced any more");
    loop_.after(std::chrono::milliseconds(50), [this] { loop_.stop(); });
  } else {
    responder.send(control::error_line("unknown command '" + request.command + "'"));
  }
}

void DaemonImpl::answer_list(control::Responder& responder) {
  auto grants = backend_->learned();
  if (!grants) {
    responder.send(control::error_line(grants.error().message));
    return;
  }
  responder.send(control::ok_line());
  auto lines = std::make_shared<GrantList>(
      GrantList::Sources{compiled_, *ids_, learned_, clock_,
                         [this](const Asker& who) { return asked_by(who); }},
      std::move(*grants));
  responder.stream([lines](std::string& line) { return lines->next(line); });
}

StatusReport DaemonImpl::status_report() {
  StatusReport report = quick_report();
  if (auto count = backend_->count_learned()) report.learned_entries = *count;
  return report;
}

StatusReport DaemonImpl::quick_report() {
  StatusReport report;
  report.enforce = compiled_.rules.enforce;
  report.generation = compiled_.rules.generation;
  report.policy_path = options_.policy_path;
  report.policy_hash = policy_hash_;
  report.cgroup = options_.cgroup_path;
  report.uptime = std::chrono::duration_cast<seconds>(clock_.now() - started_);
  report.adopted = adopted_;
  report.meanwhile = meanwhile_;
  report.layers = backend_->layers();
  report.attached = attached_;
  if (auto counters = backend_->counters()) {
    report.counters = *counters;
    report.counters_known = true;
  }
  report.rule_denials = recorder_->denials().all();
  report.started_at = started_at_;
  report.reload_worked = reload_error_.empty();
  report.last_good_reload = last_good_reload_;
  report.resolver = resolver_->status();
  report.audit_lost = recorder_->lost();
  if (!attached_) report.warnings.push_back("not attached yet: waiting for the first DNS answers");
  if (attached_ && !std::ranges::all_of(report.layers, &enforce::LayerStatus::attached))
    report.warnings.push_back(
        "a program is not attached: enforcement is incomplete; restart egressd");
  if (!live_error_.empty())
    report.warnings.push_back(
        "addresses of open connections are not kept reachable beyond their time: " + live_error_);
  if (!metrics_->error().empty()) report.warnings.push_back("no metrics: " + metrics_->error());
  if (!reload_error_.empty()) report.warnings.push_back(reload_error_);
  if (servers_.stub_alone) report.warnings.push_back(stub_alone_warning());
  if (!servers_error_.empty())
    report.warnings.push_back("the DNS servers trusted so far stay trusted: " + servers_error_);
  if (const auto n = report.counters.dns[EGRESSD_DNS_NOT_TRUSTED_LINK]; n != 0)
    report.warnings.push_back(
        std::to_string(n) +
        " DNS answers taught nothing: they came in by another interface than their question left "
        "by (not_trusted_link; forged, or a host with several ways out, or a VRF)");
  if (const auto lost = report.counters.stats[EGRESSD_STAT_EVENTS_LOST]; lost != 0)
    report.warnings.push_back(std::to_string(lost) +
                              " denials have no record: they came faster than they could be read "
                              "(the counters are exact)");
  if (const auto lost = report.counters.dns[EGRESSD_DNS_EVENTS_LOST]; lost != 0)
    report.warnings.push_back(
        std::to_string(lost) +
        " refused DNS questions or learned answers have no record: they came faster than they "
        "could be read (the counters are exact, and what was learned is in force)");
  if (report.audit_lost != 0)
    report.warnings.push_back(std::to_string(report.audit_lost) + " records could not be written");
  for (const auto& name : report.resolver) {
    if (name.consecutive_failures > 2)
      report.warnings.push_back("cannot resolve " + name.fqdn + ": " + name.last_error);
  }
  return report;
}

metrics::Snapshot DaemonImpl::metrics_snapshot() {
  return snapshot_of(quick_report(), compiled_.resolve, backend_->map_fills(), clock_.now());
}

}  // namespace

Result<std::unique_ptr<Daemon>> Daemon::start(EventLoop& loop, Options options) {
  auto daemon = std::make_unique<DaemonImpl>(loop, std::move(options));
  if (auto r = daemon->start(); !r) return std::unexpected(std::move(r.error()));
  return daemon;
}

}  // namespace egressd::daemon
