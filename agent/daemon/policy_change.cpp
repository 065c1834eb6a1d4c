#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <set>
#include <utility>

#include "daemon/daemon_impl.h"
#include "daemon/rejudge.h"
#include "policy/parser.h"

namespace egressd::daemon {
namespace {

constexpr seconds kRollBackAgain{1};
// A policy is put in force anew for late answers no more often than this.
constexpr seconds kSettleEvery{1};

std::unexpected<Error> refused(const std::vector<policy::Diagnostic>& diagnostics) {
  std::string all;
  for (const policy::Diagnostic& d : diagnostics) all += (all.empty() ? "" : "\n") + d.to_string();
  return std::unexpected(Error::of(std::move(all)));
}

}  // namespace

Result<DaemonImpl::PolicyFile> DaemonImpl::parse(std::string text, const std::string& path,
                                                 std::string hash) {
  auto parsed = policy::parse_policy(text, path, policy::TagCatalog::builtin());
  if (!parsed) return refused(parsed.error());
  for (const policy::Diagnostic& d : parsed->warnings) spdlog::warn("{}", d.to_string());
  if (!options_.mode.empty())
    parsed->policy.mode = options_.mode == "audit" ? policy::Mode::Audit : policy::Mode::Enforce;
  if (!options_.dns_log.empty())
    parsed->policy.dns.log =
        options_.dns_log == "all" ? policy::DnsLog::All : policy::DnsLog::Denied;
  if (hash.empty()) hash = fingerprint(text);
  return PolicyFile{std::move(parsed->policy), std::move(hash),
                    std::make_shared<const std::string>(std::move(text))};
}

Result<DaemonImpl::PolicyFile> DaemonImpl::read_policy() {
  auto text = policy::read_policy_file(options_.policy_path);
  policy_seen_ = text ? fingerprint(*text) : "";
  if (!text) return refused(text.error());
  return parse(std::move(*text), options_.policy_path, policy_seen_);
}

Result<void> DaemonImpl::put_in_force(PolicyFile file) {
  policy::Policy& policy = file.policy;
  const auto before = backend_->generation();
  if (!before) return std::unexpected(before.error());
  auto servers = find_name_servers(policy, options_.resolv_conf);
  const std::string no_servers = servers ? "" : servers.error().message;
  if (!servers) {
    // Only while there have been none: those trusted so far stay trusted, also those of an agent
    // before this one, whose rules are in force until this one has better ones.
    const bool adopts = *before != 0 && compiled_.rules.generation == 0;
    if (!options_.await_resolv_conf || adopts || !servers_.dns.addresses.empty())
      return std::unexpected(std::move(servers.error()));
    servers = NameServers{};
  }
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
  if (forwards_all()) compiled->rules.dns.forwarder = DnsProxy::own_questions();
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
  servers_ = std::move(*servers);
  servers_error_ = no_servers;
  if (!servers_error_.empty()) spdlog::warn("{}", servers_warning());
  if (servers_.stub_alone) spdlog::warn("{}", stub_alone_warning());
  policy_hash_ = std::move(file.hash);
  policy_text_ = std::move(file.text);
  recorder_->denials().follow(compiled_.rules);
  spdlog::info("generation {} in force: mode {}, {} rules, {} prefixes, {} name patterns",
               compiled_.rules.generation, compiled_.rules.enforce ? "enforce" : "audit",
               compiled_.rules.rule_names.size(), compiled_.rules.prefixes.size(),
               compiled_.rules.names.size());
  loop_.cancel(std::exchange(settle_timer_, 0));
  rejudge_learned();
  if (auto r = follow_dns_mode(); !r && !attached_) return r;  // else it is tried again
  tell_service();
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
  if (resolver_) resolver_->set_names({});
  servers_.dns.addresses.clear();
  servers_.stub_alone = false;
  return std::unexpected(
      std::move(started.error())
          .context("generation " + std::to_string(compiled_.rules.generation) +
                   " is in force, but its names are not resolved ahead of use until the next "
                   "reload"));
}

// Also finishes the rollback that an earlier agent did not live to make: the policy file is what
// was in force before the trial, or, if it is of no use, what was kept of it.
Result<DaemonImpl::PolicyFile> DaemonImpl::policy_to_start_with() {
  auto file = read_policy();
  auto before = Trial::left_behind(trial_path());
  if (!before) return file ? std::move(file) : last_good_instead_of(std::move(file));
  trial_left_behind_ = audit::Notice::Event::TrialRolledBack;
  if (file && *file->text != *before) {
    // Edited since, or confirmed by an agent that died before it had forgotten the trial.
    trial_left_behind_ = audit::Notice::Event::TrialReplaced;
    spdlog::warn(
        "the agent ended while a policy was on trial: {}, which was changed since, is in "
        "force instead",
        options_.policy_path);
    return file;
  }
  if (!file) {
    auto kept = parse(std::move(*before), options_.policy_path);
    if (!kept) return file;
    reload_error_ = file.error().message;
    file = std::move(kept);
  }
  spdlog::warn(
      "the agent ended while a policy was on trial: rolled back to what was in force before{}",
      reload_error_.empty() ? "" : ", as kept in " + trial_path());
  return file;
}

Result<void> DaemonImpl::reload() {
  service_notifier_->reloading();
  return take_over(read_policy());
}

// A file that has been changed, if it is one: a pipe gives its bytes to whoever asks, and only a
// request for it may wait for them.
void DaemonImpl::follow_policy_file() {
  loop_.cancel(std::exchange(policy_timer_, 0));
  std::error_code ec;
  const auto kind = std::filesystem::status(options_.policy_path, ec).type();
  if (kind != std::filesystem::file_type::regular && kind != std::filesystem::file_type::not_found)
    return;
  if (FileWatch::is_being_written(options_.policy_path)) {
    if (!policy_held_) policy_held_ = clock_.now();
    policy_timer_ = loop_.after(kPolicyDelay, [this] {
      policy_timer_ = 0;
      follow_policy_file();
    });
    return;
  }
  policy_held_.reset();
  auto text = policy::read_policy_file(options_.policy_path);
  const std::string seen = text ? fingerprint(*text) : "";
  if (seen == policy_seen_) return;
  policy_seen_ = seen;
  if (text && seen == policy_hash_ && reload_error_.empty() && !trial_) return;
  if (text) spdlog::info("{} has changed", options_.policy_path);
  service_notifier_->reloading();
  (void)take_over(text ? parse(std::move(*text), options_.policy_path, seen)
                       : refused(text.error()));
}

Result<void> DaemonImpl::take_over(Result<PolicyFile> file) {
  const auto old_generation = compiled_.rules.generation;
  auto r = file ? change_to(std::move(*file)) : Result<void>(std::unexpected(file.error()));
  reload_error_.clear();
  if (compiled_.rules.generation != old_generation && trial_) {
    spdlog::info("the trial of {} is over: the policy file is in force", trial_->path());
    note_trial(audit::Notice::Event::TrialReplaced);
    end_trial();
  }
  tell_service();
  if (r) {
    last_good_reload_ = std::chrono::system_clock::now();
    keep_last_good();
    return r;
  }
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

Result<void> DaemonImpl::begin_trial(const std::string& path, seconds duration) {
  follow_policy_file();  // only what changes from now on ends the trial
  // Nor may the agent wait for whoever writes into a pipe.
  if (std::error_code ec;
      std::filesystem::exists(path, ec) && !std::filesystem::is_regular_file(path, ec))
    return std::unexpected(
        Error::of(path + " is no regular file: write the policy to one, and try that"));
  auto text = policy::read_policy_file(path);
  if (!text) return refused(text.error());
  auto file = parse(std::move(*text), path);
  if (!file) return std::unexpected(std::move(file.error()));
  // The way back is there before the step is made.
  auto trial = Trial::begin(trial_path(), path, trial_ ? trial_->before() : policy_text_,
                            file->text, clock_.now() + duration);
  if (!trial) return std::unexpected(std::move(trial.error()));
  const auto old_generation = compiled_.rules.generation;
  auto changed = change_to(std::move(*file));
  if (!changed && compiled_.rules.generation == old_generation) {
    if (!trial_) Trial::forget(trial_path());
    return changed;
  }
  end_trial_timer();
  trial_ = std::move(*trial);
  seen_before_trial_ = policy_seen_;
  if (!changed) {
    (void)roll_back();
    return changed;
  }
  trial_timer_ = loop_.after(duration, [this] {
    trial_timer_ = 0;
    spdlog::warn("nobody confirmed {}", trial_->path());
    (void)roll_back();
  });
  spdlog::warn("{} is on trial for {} s; `egressctl confirm` keeps it", path, duration.count());
  note_trial(audit::Notice::Event::TrialStarted, duration);
  return {};
}

Result<void> DaemonImpl::roll_back() {
  if (!trial_) return std::unexpected(Error::of("no policy is on trial"));
  auto before = parse(*trial_->before(), options_.policy_path);
  auto r = before ? change_to(std::move(*before)) : std::unexpected(before.error());
  if (!r) {
    trial_error_ = "the trial is over, but what was in force before cannot be put in force: " +
                   r.error().message;
    spdlog::error("{}", trial_error_);
    if (trial_timer_ == 0)
      trial_timer_ = loop_.after(kRollBackAgain, [this] {
        trial_timer_ = 0;
        (void)roll_back();
      });
    return r;
  }
  spdlog::warn("rolled back: what was in force before the trial of {} is in force again",
               trial_->path());
  note_trial(audit::Notice::Event::TrialRolledBack);
  end_trial();
  return {};
}

Result<void> DaemonImpl::confirm_trial() {
  follow_policy_file();  // what was written there meanwhile is not to be lost
  if (!trial_) return std::unexpected(Error::of("no policy is on trial"));
  if (policy_seen_ != seen_before_trial_ || policy_held_)
    return std::unexpected(Error::of(
        "the trial goes on: " + options_.policy_path + " has been changed since it began" +
        (policy_held_ ? ", and is still open for writing" : ", but cannot be put in force") +
        "; to keep what is on trial nevertheless, copy " + trial_->path() + " there"));
  if (auto r = trial_->keep(options_.policy_path); !r)
    return std::unexpected(
        std::move(r.error()).context("the trial goes on, and will be rolled back: the policy file "
                                     "cannot be written; change it where it comes from"));
  spdlog::info("confirmed: {} is now what {} was", options_.policy_path, trial_->path());
  note_trial(audit::Notice::Event::TrialConfirmed);
  end_trial();
  reload_error_.clear();
  keep_last_good();
  return {};
}

void DaemonImpl::note_trial(audit::Notice::Event event, std::optional<seconds> duration) {
  audit::Notice notice;
  notice.event = event;
  notice.time = std::chrono::system_clock::now();
  if (trial_) notice.policy = trial_->path();
  if (duration) notice.until = notice.time + *duration;
  recorder_->put(notice);
}

void DaemonImpl::end_trial_timer() { loop_.cancel(std::exchange(trial_timer_, 0)); }

void DaemonImpl::end_trial() {
  end_trial_timer();
  trial_.reset();
  trial_error_.clear();
  Trial::forget(trial_path());
  tell_service();
}

// An answer to a question of an earlier generation taught a pattern that its name no longer belongs
// to: the policy is put in force once more, which takes that back.
void DaemonImpl::settle_soon() {
  if (settle_timer_ != 0) return;
  settle_timer_ = loop_.after(settled_ + kSettleEvery - clock_.now(), [this] {
    settle_timer_ = 0;
    spdlog::info("an answer came late, under the rules of an earlier generation: judged again");
    settled_ = clock_.now();
    if (auto r = change_to(current()); !r) {
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
    if (auto r = change_to(current()); !r) error = r.error().message;
    keep_last_good();
  }
  const bool news = error != servers_error_;
  servers_error_ = std::move(error);
  if (news && !servers_error_.empty()) spdlog::error("{}", servers_warning());
}

std::string DaemonImpl::servers_warning() const {
  return (servers_.dns.addresses.empty() ? "no DNS server may be asked yet: "
                                         : "the DNS servers trusted so far stay trusted: ") +
         servers_error_;
}

std::string DaemonImpl::stub_alone_warning() const {
  return options_.resolv_conf.conf + " names only " + servers_.dns.addresses.front().to_string() +
         ", and " + options_.resolv_conf.upstream +
         " does not say whom that asks: its own questions are refused if it runs in the judged "
         "cgroup; name its servers too in the policy, under dns.servers";
}

}  // namespace egressd::daemon
