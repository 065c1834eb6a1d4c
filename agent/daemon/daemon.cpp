#include "daemon/daemon.h"

#include <spdlog/spdlog.h>
#include <sys/epoll.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "daemon/daemon_impl.h"
#include "enforce/backstop.h"
#include "enforce/both_backend.h"
#include "enforce/bpf_backend.h"
#include "enforce/cgroup.h"
#include "enforce/nft_backend.h"
#include "enforce/pins.h"

namespace egressd::daemon {
namespace {

constexpr seconds kTallyEvery{1};
constexpr std::chrono::milliseconds kReadEventsAgain{15};  // longer than EGRESSD_WAKE_NS

}  // namespace

Result<void> DaemonImpl::start_resolver() {
  if (servers_.dns.addresses.empty()) return {};  // resolv.conf is awaited: follow_resolv_conf()
  dns::Resolver::Options options;
  options.servers = servers_.dns.addresses;
  if (forwards_all()) options.mark = kOwnQuestionMark;
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

Result<std::unique_ptr<enforce::Backend>> DaemonImpl::open_backend() const {
  // What `both` left asks maps that may not be taught any more.
  if (options_.backend != "both") (void)enforce::remove_backstop(options_.bpffs_dir);
  if (options_.backend == "nft")
    return enforce::open_nft_backend(
        {.cgroup_path = options_.cgroup_path, .max_learned = options_.max_learned});
  enforce::BpfOptions bpf;
  bpf.cgroup_path = options_.cgroup_path;
  bpf.bpffs_dir = options_.bpffs_dir;
  bpf.max_learned = options_.max_learned;
  if (options_.backend != "both") return enforce::open_bpf_backend(std::move(bpf));
  const auto mount = enforce::find_cgroup2_mount();
  std::error_code ec;
  if (options_.nft_scope == "host" ||
      (options_.nft_scope.empty() && mount &&
       std::filesystem::equivalent(*mount, options_.cgroup_path, ec)))
    return enforce::open_both_backend(std::move(bpf));
  (void)enforce::remove_backstop(options_.bpffs_dir);
  spdlog::warn(
      "--backend both: eBPF judges all there is to judge in {}; other processes, and what is "
      "forwarded, are judged with --nft-scope host only",
      options_.cgroup_path);
  return enforce::open_bpf_backend(std::move(bpf));
}

Result<void> DaemonImpl::start() {
  started_ = clock_.now();
  auto manager = ServiceNotifier::open(loop_);
  if (!manager) return std::unexpected(std::move(manager.error()));
  service_notifier_ = std::move(*manager);
  DnsProxy::raise_limits();
  auto file = policy_to_start_with();
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

  auto backend = open_backend();
  if (!backend) return std::unexpected(std::move(backend.error()));
  backend_ = std::move(*backend);
  look_for_boot_table();
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
  if (trial_left_behind_) note_trial(*trial_left_behind_);
  Trial::forget(trial_path());
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
      !resolver_ ||
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
  carry_boot_opening();
  auto r = backend_->attach();
  attached_ = r.has_value();
  attach_error_ = r ? "" : r.error().message;
  if (r) {
    spdlog::info("enforcing on {}", options_.cgroup_path);
    for (const enforce::LayerStatus& layer : backend_->layers())
      if (!layer.needed && !layer.attached) spdlog::warn("{}: {}", layer.program, layer.detail);
    end_boot_table();
    keep_last_good();
  } else {
    loop_.stop();  // an agent that enforces nothing must not look alive
  }
  tell_service_now();
}

// Once whoever calls has finished: a trial begins, and a reload succeeds, after the policy is in
// force.
void DaemonImpl::tell_service() {
  loop_.cancel(std::exchange(tell_timer_, 0));
  tell_timer_ = loop_.after(std::chrono::milliseconds(0), [this] {
    tell_timer_ = 0;
    tell_service_now();
  });
}

void DaemonImpl::tell_service_now() {
  if (!attached_) {
    service_notifier_->status(attach_error_.empty() ? "waits for the first DNS answers"
                                                    : attach_error_);
    return;
  }
  service_notifier_->ready(
      std::string(compiled_.rules.enforce ? "enforce" : "audit") + ", generation " +
      std::to_string(compiled_.rules.generation) + ": " +
      std::to_string(compiled_.rules.rule_names.size()) + " rules, " +
      std::to_string(compiled_.rules.names.size()) + " name patterns" +
      (trial_ ? "; on trial" : "") +
      (reload_error_.empty() ? "" : "; the last reload went wrong, see egressctl status"));
}

Result<void> DaemonImpl::open_sink() {
  auto sink = open_sinks(options_.audit);
  if (!sink) return std::unexpected(std::move(sink.error()));
  recorder_ = std::make_unique<Recorder>(std::move(*sink), *cgroup_paths_, rule_history_, learned_);
  openings_ = std::make_unique<OpeningLog>(OpeningLog::load(options_.state_dir + "/break-glass"));
  return {};
}

Result<void> DaemonImpl::open_events() {
  if (backend_->denials_fd() >= 0) {
    drain_tally();
    return watch_events();
  }
  auto reader = audit::EventReader::open(backend_->events_fd(), [this](const egressd_event& event) {
    ++seen_.denials;
    recorder_->refused(event);
  });
  if (!reader) return std::unexpected(std::move(reader.error()));
  events_ = std::move(*reader);
  if (auto r = watch_events(); !r) return r;

  auto dns_reader =
      audit::RingReader::open(backend_->dns_events_fd(),
                              [this](std::span<const std::uint8_t> entry) { on_dns_event(entry); });
  if (!dns_reader) return std::unexpected(std::move(dns_reader.error()));
  dns_events_ = std::move(*dns_reader);
  auto watched = loop_.watch(dns_events_->epoll_fd(), EPOLLIN, [this](std::uint32_t) {
    read_dns_events(audit::EventReader::kMaxPerPoll);
  });
  if (!watched) return watched;
  if (adopted_) {
    if (auto r = read_what_waits(); !r) return r;
  } else {
    drain_tally();
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
  drain_tally();
  meanwhile_ = seen_;
  spdlog::info(
      "while no agent was running: {} denials, {} refused DNS questions, {} DNS answers learned "
      "from",
      meanwhile_.denials, meanwhile_.questions, meanwhile_.learned);
  return {};
}

Result<void> DaemonImpl::watch_events() {
  return loop_.watch(denials_fd(), EPOLLIN, [this](std::uint32_t) { drain_events(); });
}

int DaemonImpl::denials_fd() const {
  return events_ ? events_->epoll_fd() : backend_->denials_fd();
}

// In a burst the kernel wakes us once per EGRESSD_WAKE_NS only: what came after is fetched by
// looking again, until there is nothing. In a flood only that: what does not fit into the ring
// meanwhile is counted, and neither the agent's CPU nor the disk is in the hands of whoever floods.
void DaemonImpl::drain_events() {
  read_dns_events(kEverything);  // the names of what was refused
  const auto taken = events_ ? events_->poll()
                             : backend_->read_denials(audit::EventReader::kMaxPerPoll,
                                                      [this](const egressd_event& event) {
                                                        ++seen_.denials;
                                                        recorder_->refused(event);
                                                      });
  if (!taken) spdlog::error("{}", taken.error().message);
  if (events_timer_ != 0) loop_.cancel(std::exchange(events_timer_, 0));
  const bool flood = taken && *taken == audit::EventReader::kMaxPerPoll;
  if (flood && !in_flood_) {
    loop_.unwatch(denials_fd());
    in_flood_ = true;
  } else if (!flood && in_flood_) {
    if (auto r = watch_events(); !r)
      spdlog::error("{}", r.error().message);
    else
      in_flood_ = false;
  }
  if ((taken && *taken != 0) || in_flood_) {
    events_timer_ = loop_.after(kReadEventsAgain, [this] {
      events_timer_ = 0;
      drain_events();
    });
  }
}

// What repeats is counted by the kernel. Its first is read before: that is how it comes on record.
void DaemonImpl::drain_tally() {
  const auto repeated = [this](const egressd_tally& tally) {
    seen_.denials += tally.count;
    recorder_->refused_again(tally);
  };
  if (auto r = backend_->drain_tally(repeated); !r) spdlog::error("{}", r.error().message);
  const auto lost = [this](std::uint32_t reason, std::uint64_t count) {
    recorder_->lost_in_kernel(reason, count);
  };
  if (auto r = backend_->drain_lost(lost); !r) spdlog::error("{}", r.error().message);
  recorder_->write_repeated();
  recorder_->asked_for_losses();
  follow_break_glass();
  if (unrecorded_questions_ != 0 && clock_.now() - records_at_ > kTallyEvery) tell_unrecorded();
  restore();
  tally_timer_ = loop_.after(kTallyEvery, [this] { drain_tally(); });
}

void DaemonImpl::restore() {
  const auto missing = backend_->restore(compiled_.rules);
  std::string error = missing ? "" : missing.error().message;
  if (!error.empty() && error != restore_error_)
    spdlog::error(
        "what another program removed cannot be put back, and refuses nothing (tried every {} s): "
        "{}",
        kTallyEvery.count(), error);
  restore_error_ = std::move(error);
  if (missing && *missing)
    spdlog::error(
        "another program removed the table of nftables, or rules of it (`nft flush ruleset`?), and "
        "for up to {} s "
        "what that judges was allowed: all of it is back; keep that program to its own tables",
        kTallyEvery.count());
}

void DaemonImpl::follow_break_glass() {
  const auto opening = backend_->opening();
  if (!opening) {
    spdlog::error("{}", opening.error().message);
    return;
  }
  for (const auto& notice :
       openings_->look(*opening, clock_.now(), std::chrono::system_clock::now())) {
    spdlog::warn("{}", notice.to_text());
    recorder_->put(notice);
  }
}

Result<std::unique_ptr<Daemon>> Daemon::start(EventLoop& loop, Options options) {
  auto daemon = std::make_unique<DaemonImpl>(loop, std::move(options));
  if (auto r = daemon->start(); !r) return std::unexpected(std::move(r.error()));
  return daemon;
}

}  // namespace egressd::daemon
