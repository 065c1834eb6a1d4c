#include <spdlog/spdlog.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <utility>

#include "daemon/daemon_impl.h"
#include "daemon/explain.h"
#include "policy/pattern.h"

namespace egressd::daemon {
namespace {

constexpr seconds kLongestTrial{86400};
constexpr seconds kLongWrite{2};
constexpr std::size_t kShownDenials = 5;

KnownName known_name(const ListEntry& entry) {
  if (!entry.fqdn.empty()) return {entry.fqdn, entry.fqdn};
  std::string stand_in = entry.pattern;
  if (const auto star = stand_in.find('*'); star != std::string::npos)
    stand_in.replace(star, 1, "a-name-not-known");
  return {stand_in, entry.pattern};
}

}  // namespace

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
  } else if (request.command == "explain") {
    on_explain(request, responder);
  } else if (request.command == "try") {
    on_try(request, responder);
  } else if (request.command == "confirm") {
    const auto r = confirm_trial();
    responder.send(r ? control::ok_line(path_json(options_.policy_path))
                     : control::error_line(r.error().message));
  } else if (request.command == "rollback") {
    const auto r = roll_back();
    responder.send(r ? control::ok_line(generation_json(compiled_.rules.generation))
                     : control::error_line(r.error().message));
  } else if (request.command == "detach") {
    auto removed = backend_->detach();
    responder.send(removed ? control::ok_line(removed_json(*removed))
                           : control::error_line(removed.error().message));
    if (!removed) return;
    if (dns_proxy_) dns_proxy_->end();
    end_boot_table();
    spdlog::warn("detached on request: nothing is enforced any more");
    loop_.after(std::chrono::milliseconds(50), [this] { loop_.stop(); });
  } else {
    responder.send(control::error_line("unknown command '" + request.command + "'"));
  }
}

void DaemonImpl::on_try(const control::Request& request, control::Responder& responder) {
  const auto path = request.arguments.find("path");
  const auto text = request.arguments.find("seconds");
  long long count = 0;
  if (path != request.arguments.end() && text != request.arguments.end())
    std::from_chars(text->second.data(), text->second.data() + text->second.size(), count);
  if (count < 1 || seconds(count) > kLongestTrial) {
    responder.send(control::error_line("try needs a path, and seconds from 1 to " +
                                       std::to_string(kLongestTrial.count())));
    return;
  }
  const auto r = begin_trial(path->second, seconds(count));
  responder.send(r ? control::ok_line(generation_json(compiled_.rules.generation))
                   : control::error_line(r.error().message));
}

GrantList::Sources DaemonImpl::grant_sources() {
  return {compiled_, *ids_, learned_, clock_, [this](const Asker& who) { return asked_by(who); }};
}

void DaemonImpl::on_explain(const control::Request& request, control::Responder& responder) {
  const auto argument = [&](const char* name) {
    const auto it = request.arguments.find(name);
    return it == request.arguments.end() ? std::string() : it->second;
  };
  policy::Destination wanted;
  const std::string fqdn = argument("fqdn");
  const std::string port = argument("port");
  const std::string protocol = argument("protocol");
  unsigned number = 0;
  std::from_chars(protocol.data(), protocol.data() + protocol.size(), number);
  std::from_chars(port.data(), port.data() + port.size(), wanted.port);
  wanted.protocol = static_cast<net::Protocol>(number);
  wanted.address = net::IpAddress::parse(argument("address"));
  if (const auto name = policy::canonical_fqdn(fqdn); !wanted.address && name) wanted.fqdn = *name;
  drain_events();
  auto all = backend_->learned();
  if ((!wanted.address && wanted.fqdn.empty()) || number == 0 || number > 255 || !all) {
    responder.send(control::error_line(
        all ? "explain needs an fqdn or an address, a protocol number and a port"
            : all.error().message));
    return;
  }
  std::erase_if(*all, [&](const enforce::LearnedAddress& grant) {
    if (wanted.address) return grant.address != *wanted.address;
    return std::ranges::none_of(
        learned_.origins(grant.address, grant.name_id),
        [&](const LearnedNames::Origin& origin) { return origin.fqdn == wanted.fqdn; });
  });
  GrantList list(grant_sources(), std::move(*all), false);
  std::vector<ListEntry> grants;
  std::vector<KnownName> names;
  for (ListEntry entry; list.next(entry); entry = {}) {
    if (!wanted.address && entry.fqdn != wanted.fqdn) continue;
    if (wanted.address) names.push_back(known_name(entry));
    grants.push_back(std::move(entry));
  }
  policy::Policy policy = policy_;
  policy.dns.servers = servers_.dns.addresses;
  Explanation explanation = explain(policy, wanted, names);
  explanation.grants = std::move(grants);
  explanation.denied = recorder_->recent(
      [&](const audit::Record& record) {
        if (wanted.address && record.destination == *wanted.address)
          return record.port == wanted.port;
        return !wanted.fqdn.empty() &&
               std::ranges::find(record.fqdns, wanted.fqdn) != record.fqdns.end();
      },
      kShownDenials);
  responder.send(control::ok_line(to_json(explanation)));
}

void DaemonImpl::answer_list(control::Responder& responder) {
  auto grants = backend_->learned();
  if (!grants) {
    responder.send(control::error_line(grants.error().message));
    return;
  }
  responder.send(control::ok_line());
  auto entries = std::make_shared<GrantList>(grant_sources(), std::move(*grants));
  responder.stream([entries](std::string& line) {
    ListEntry entry;
    if (!entries->next(entry)) return false;
    line = to_json(entry);
    return true;
  });
}

StatusReport DaemonImpl::status_report() {
  StatusReport report = quick_report();
  if (auto count = backend_->count_learned()) report.learned_entries = *count;
  return report;
}

metrics::Snapshot DaemonImpl::metrics_snapshot() {
  return snapshot_of(quick_report(), compiled_.resolve, backend_->map_fills(), clock_.now());
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
  if (resolver_) report.resolver = resolver_->status();
  report.audit_lost = recorder_->sink().lost();
  for (const auto& sink : recorder_->sink().sinks())
    report.audit_sinks.push_back({sink->name(), sink->lost()});
  report.openings = openings_->openings();
  if (const auto opening = backend_->opening(); opening && opening->is_open(clock_.now())) {
    report.open_for = std::chrono::ceil<seconds>(opening->until - clock_.now());
    report.warnings.push_back("OPEN by break-glass: nothing is refused for another " +
                              std::to_string(report.open_for.count()) +
                              " s; `egressctl close` ends it (opened by uid " +
                              std::to_string(opening->uid) + ": " + opening->reason + ")");
  }
  if (!metrics_->error().empty()) report.warnings.push_back("no metrics: " + metrics_->error());
  if (!attached_) report.warnings.push_back("not attached yet: waiting for the first DNS answers");
  if (std::ranges::any_of(report.layers, &enforce::LayerStatus::cgroup_removed))
    report.warnings.push_back("the cgroup " + options_.cgroup_path +
                              " was removed: nothing is judged, also not in a new one of that "
                              "name; restart egressd when it is there");
  else if (attached_ && std::ranges::any_of(report.layers, [](const enforce::LayerStatus& layer) {
             return layer.needed && !layer.attached;
           }))
    report.warnings.push_back(
        "a program is not attached: enforcement is incomplete; restart egressd");
  if (!live_error_.empty())
    report.warnings.push_back(
        "addresses of open connections are not kept reachable beyond their time: " + live_error_);
  if (trial_) {
    report.trial = trial_->path();
    report.trial_for =
        std::max(std::chrono::ceil<seconds>(trial_->deadline() - clock_.now()), seconds(0));
    report.warnings.push_back("on trial for another " + std::to_string(report.trial_for.count()) +
                              " s: " + report.trial + "; `egressctl confirm` keeps it");
  }
  if (policy_held_ && clock_.now() - *policy_held_ > kLongWrite)
    report.warnings.push_back(
        "a process keeps " + options_.policy_path +
        " open for writing (`fuser -v` tells which): what it changed is read when that closes it, "
        "or at once by `egressctl reload`");
  if (!trial_error_.empty()) report.warnings.push_back(trial_error_);
  if (!reload_error_.empty()) report.warnings.push_back(reload_error_);
  if (!last_good_error_.empty()) report.warnings.push_back(last_good_error_);
  if (servers_.stub_alone) report.warnings.push_back(stub_alone_warning());
  if (!servers_error_.empty()) report.warnings.push_back(servers_warning());
  add_forwarder(report);
  // What the forwarder sends comes from a server's address by lo: that is counted there, too.
  if (const auto n = report.counters.dns[EGRESSD_DNS_NOT_TRUSTED_LINK]; n != 0 && !dns_proxy_)
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

}  // namespace egressd::daemon
