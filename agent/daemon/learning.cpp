#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <map>
#include <unordered_set>
#include <utility>

#include "daemon/daemon_impl.h"
#include "daemon/rejudge.h"
#include "net/special.h"

namespace egressd::daemon {
namespace {

constexpr seconds kMinTtl{60};
constexpr seconds kMaxTtl{86400};
// How often it is looked which addresses have open connections.
constexpr seconds kLookForLiveEvery{20};
// Expired addresses are kept this long so that a denial can say "expired" instead of "unknown".
constexpr seconds kRememberExpired{600};
// Answers wait this long at most before `list` and records know their names.
constexpr std::chrono::milliseconds kReadDnsEvery{100};
constexpr std::size_t kMaxLargeNames = 256;
constexpr seconds kAskLargeAgain{5};

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

Asker asker_of(const egressd_dns_event& event) {
  Asker asker{event.tgid, event.uid, event.cgroup_id, {}};
  asker.comm.assign(std::begin(event.comm), std::ranges::find(event.comm, 0));
  return asker;
}

// Nothing if the message is no answer for addresses.
std::optional<dns::Answer> answer_of(const egressd_dns_event& event, const dns::Question& question,
                                     std::span<const std::uint8_t> message) {
  const auto type = static_cast<dns::RecordType>(question.type);
  if (type != dns::RecordType::A && type != dns::RecordType::Aaaa) return std::nullopt;
  const auto reply = dns::parse_reply(message, question.name, type);
  if (!reply) return std::nullopt;
  return dns::Answer{.source = dns::Answer::Source::Kernel,
                     .fqdn = question.name,
                     .cname_chain = reply->cname_chain,
                     .addresses = reply->addresses,
                     .ttl = seconds(event.ttl_s),
                     .heard = BootTime(static_cast<std::int64_t>(event.time_ns)),
                     .server = address_of(event.server)};
}

}  // namespace

BootTime DaemonImpl::expiry_of(const dns::Answer& answer) const {
  return answer.heard + std::clamp(answer.ttl, kMinTtl, kMaxTtl) + policy_.dns.grace;
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
  dns::Answer heard = answer;
  heard.heard = clock_.now();
  spdlog::log(learned_.record(heard, grants) ? spdlog::level::info : spdlog::level::debug,
              "{} -> {}, ttl {} s, resolved ahead of use", answer.fqdn, text_of(answer.addresses),
              answer.ttl.count());
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
    if (ids.contains(k.name_id) || k.name_id == LearnedNames::kNoPattern)
      grants.push_back({k.address, k.name_id, k.origin.expires});
    learned_.record({.source = k.origin.source,
                     .fqdn = k.origin.fqdn,
                     .cname_chain = k.origin.cname_chain,
                     .addresses = {k.address},
                     .ttl = seconds(0),
                     .heard = k.origin.heard,
                     .server = k.origin.server},
                    grants, k.origin.asker);
  }
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

void DaemonImpl::sweep() {
  follow_resolv_conf();  // should a change have gone unseen, or not have been possible
  follow_policy_file();
  if (!last_good_error_.empty()) keep_last_good();
  if (forwards_all() && !dns_proxy_->error().empty()) (void)follow_dns_mode();
  const BootTime now = clock_.now();
  if (auto r = backend_->expire(now - kRememberExpired); !r) spdlog::error("{}", r.error().message);
  learned_.forget(now - kRememberExpired);
  guarded_.clear();
  recorder_->flush();
  sweep_timer_ = loop_.after(kSweepEvery, [this] { sweep(); });
}

void DaemonImpl::read_dns_events(std::size_t max) {
  if (!dns_events_) return;
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
    case EGRESSD_DNS_EVENT_OBSERVED:
      if (question) on_dns_observed(event, *question, message);
      break;
    default:
      break;
  }
}

void DaemonImpl::on_dns_learned(const egressd_dns_event& event, const dns::Question& question,
                                std::span<const std::uint8_t> message) {
  const auto heard = answer_of(event, question, message);
  if (!heard) return;
  const dns::Answer& answer = *heard;
  std::vector<enforce::LearnedAddress> grants;
  for (const net::IpAddress& address : answer.addresses) {
    for (const std::uint32_t name_id : event.name_ids) {
      if (name_id != 0) grants.push_back({address, name_id, expiry_of(answer)});
    }
  }
  if (!rightly_learned(event, question.name)) settle_soon();
  const Asker asker = asker_of(event);
  ++seen_.learned;
  spdlog::log(learned_.record(answer, grants, asker) ? spdlog::level::info : spdlog::level::debug,
              "{} -> {}, ttl {} s, learned from the answer of {}, asked by {}[{}]", question.name,
              text_of(answer.addresses), answer.ttl.count(), address_of(event.server).to_string(),
              audit::printable(asker.comm), asker.pid);
  if (!dns_watchers_.empty())
    dns_watchers_.broadcast(to_json(answer, address_of(event.server), asked_by(asker)));
  if (policy_.dns.log == policy::DnsLog::All)
    note_question({.name = question.name,
                   .type = dns::type_name(question.type),
                   .server = address_of(event.server),
                   .protocol = static_cast<net::Protocol>(event.proto),
                   .source_port = {},
                   .source = {},
                   .rcode = "NOERROR",
                   .addresses = answer.addresses,
                   .size = 0,
                   .answer_size = message.size(),
                   .took = {},
                   .cgroup = ""},
                  asker.pid == 0 ? std::nullopt : std::optional(asker.uid), asker.cgroup_id);
}

// No grant comes of it, only a name for the records. Should a later policy have a rule for the
// name, it is granted like what was learned.
void DaemonImpl::on_dns_observed(const egressd_dns_event& event, const dns::Question& question,
                                 std::span<const std::uint8_t> message) {
  const auto answer = answer_of(event, question, message);
  if (!answer) return;
  std::vector<enforce::LearnedAddress> nothing;
  for (const net::IpAddress& address : answer->addresses)
    nothing.push_back({address, LearnedNames::kNoPattern, expiry_of(*answer)});
  (void)learned_.record(*answer, nothing, asker_of(event));
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

}  // namespace egressd::daemon
