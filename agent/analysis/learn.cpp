#include "analysis/learn.h"

#include <algorithm>

#include "analysis/learn_writer.h"
#include "bpf/egressd_abi.h"
#include "net/special.h"
#include "policy/limits.h"
#include "policy/pattern.h"

namespace egressd::analysis {
namespace {

using net::Protocol;

// A process that connects within this time after a question is taken to have asked for that.
constexpr std::chrono::seconds kAskedJustBefore{10};
constexpr std::size_t kMaxProcesses = 4096;
constexpr std::size_t kMaxAddressNames = 4;

bool has_ports(Protocol protocol) {
  return protocol == Protocol::Tcp || protocol == Protocol::Udp || protocol == Protocol::Sctp;
}

// What a rule for names can open.
bool opens_by_name(const Endpoint& endpoint) {
  return (endpoint.protocol == Protocol::Tcp || endpoint.protocol == Protocol::Udp) &&
         !is_dns_port(endpoint);
}

std::string describe(const audit::Record& record) {
  std::string out = record.fqdns.empty() ? record.destination.to_string() : record.fqdns.front();
  if (record.port != 0) out += " port " + std::to_string(record.port);
  return out + "/" + net::to_string(record.protocol);
}

void insert_at_most(std::set<std::string>& set, const std::string& text, std::size_t limit) {
  if (!text.empty() && (set.size() < limit || set.contains(text))) set.insert(text);
}

}  // namespace

bool is_dns_port(const Endpoint& endpoint) {
  return (endpoint.protocol == Protocol::Tcp || endpoint.protocol == Protocol::Udp) &&
         std::ranges::find(policy::kDnsPorts, endpoint.port) != policy::kDnsPorts.end();
}

const char* never_opened(const net::IpAddress& address) {
  // Metadata services outside the link-local block.
  static const auto kMetadata = {*net::IpAddress::parse("100.100.100.200"),
                                 *net::IpAddress::parse("fd00:ec2::254"),
                                 *net::IpAddress::parse("169.254.169.254")};
  if (std::ranges::find(kMetadata, address) != kMetadata.end()) return "cloud metadata";
  const auto* block = net::special_block(address);
  if (!block || block->learnable != net::SpecialBlock::Learnable::Never) return nullptr;
  return block->purpose;
}

Learner::Learner(LearnOptions options) : options_(std::move(options)) {
  if (options_.existing) judge_.emplace(*options_.existing);
}

void Learner::set_aside(const std::string& why, const audit::Record& record) {
  auto& group = aside_[why];
  group.seen.add(record);
  group.examples.add(describe(record), std::max<std::uint64_t>(record.count, 1));
}

bool Learner::is_allowed_already(const audit::Record& record) {
  if (!judge_) return false;
  const auto& judgement = judge_->judge(record);
  if (judgement.outcome == Outcome::Allowed) {
    allowed_already_ = saturating_sum(allowed_already_, std::max<std::uint64_t>(record.count, 1));
    return true;
  }
  if (!judgement.by_deny_rule) return false;
  set_aside("refused by a deny rule of the given policy, which stays as it is", record);
  return true;
}

void Learner::add(const audit::Record& record) {
  all_.add(record);
  if (is_refused_for(record, EGRESSD_DENY_RULE)) {
    set_aside("refused by a deny rule, which stays as it is", record);
  } else if (is_beyond_rules(record)) {
    set_aside("no rule can allow it: " + record.reason, record);
  } else if (is_allowed_already(record)) {
    return;
  } else if (is_question(record)) {
    add_question(record);
  } else {
    add_connection(record);
  }
}

LearnedName* Learner::name_of(const std::string& name, const audit::Record& record) {
  auto it = names_.find(name);
  if (it == names_.end()) {
    if (names_.size() >= kMaxNames) {
      left_out_ = saturating_sum(left_out_, std::max<std::uint64_t>(record.count, 1));
      return nullptr;
    }
    it = names_.emplace(name, LearnedName{}).first;
  }
  return &it->second;
}

void Learner::add_at(std::map<Endpoint, Seen>& endpoints, const Endpoint& endpoint,
                     const audit::Record& record) {
  auto it = endpoints.find(endpoint);
  if (it == endpoints.end()) {
    if (endpoints.size() >= kMaxEndpoints) {
      left_out_ = saturating_sum(left_out_, std::max<std::uint64_t>(record.count, 1));
      return;
    }
    it = endpoints.emplace(endpoint, Seen{}).first;
  }
  it->second.add(record);
}

void Learner::add_question(const audit::Record& record) {
  const auto name = record.fqdns.empty() ? std::unexpected(std::string())
                                         : policy::canonical_fqdn(record.fqdns.front());
  // Not every name that can be asked can stand in a rule.
  if (!name || !policy::FqdnPattern::parse(*name))
    return set_aside("a DNS question for what cannot be a name in a rule", record);
  if (resolvers_.size() < policy::kMaxDnsServers || resolvers_.contains(record.destination))
    resolvers_.insert(record.destination);
  auto* entry = name_of(*name, record);
  if (!entry) return;
  entry->asked.add(record);
  if (auto* process = process_of(record)) {
    process->asked = *name;
    process->asked_at = record.time;
    connect_to_question(*process);
  }
}

Learner::Process* Learner::process_of(const audit::Record& record) {
  if (record.pid == 0) return nullptr;
  if (processes_.size() >= kMaxProcesses && !processes_.contains(record.pid)) processes_.clear();
  return &processes_[record.pid];
}

void Learner::connect_to_question(const Process& process) {
  if (process.asked.empty() || !process.connected) return;
  const auto later = process.connected_at - process.asked_at;
  if (later > kAskedJustBefore || later < later.zero()) return;
  const auto address = addresses_.find(*process.connected);
  const auto name = names_.find(process.asked);
  if (address == addresses_.end() || name == names_.end()) return;
  insert_at_most(address->second.asked_before, process.asked, kMaxAddressNames);
  if (opens_by_name(process.endpoint) && name->second.guessed.size() < kMaxEndpoints)
    name->second.guessed.insert(process.endpoint);
}

void Learner::add_to_address(const audit::Record& record, const Endpoint& endpoint) {
  auto it = addresses_.find(record.destination);
  if (it == addresses_.end()) {
    if (addresses_.size() >= kMaxAddresses) {
      left_out_ = saturating_sum(left_out_, std::max<std::uint64_t>(record.count, 1));
      return;
    }
    it = addresses_.emplace(record.destination, LearnedAddress{}).first;
  }
  LearnedAddress& address = it->second;
  add_at(address.endpoints, endpoint, record);
  if (!record.fqdns.empty()) {
    insert_at_most(address.known_as, record.fqdns.front(), kMaxAddressNames);
    return;
  }
  if (auto* process = process_of(record)) {
    process->connected = record.destination;
    process->endpoint = endpoint;
    process->connected_at = record.time;
    connect_to_question(*process);
  }
}

void Learner::add_connection(const audit::Record& record) {
  const Endpoint endpoint{record.protocol,
                          has_ports(record.protocol) ? record.port : std::uint16_t{0}};
  if (has_ports(record.protocol) && record.port == 0)
    return set_aside("port 0 cannot stand in a rule", record);
  if (record.protocol == Protocol::Any || static_cast<int>(record.protocol) == 0)
    return set_aside("its protocol cannot stand in a rule", record);
  if (!record.fqdns.empty() && opens_by_name(endpoint) && !never_opened(record.destination)) {
    const auto name = policy::canonical_fqdn(record.fqdns.front());
    if (name && policy::FqdnPattern::parse(*name)) {
      auto* entry = name_of(*name, record);
      if (!entry) return;
      add_at(entry->endpoints, endpoint, record);
      if (net::special_block(record.destination)) entry->is_private = true;
      for (std::size_t i = 1; i < record.fqdns.size(); ++i)
        insert_at_most(entry->also_known_as, record.fqdns[i], kMaxAddressNames);
      return;
    }
  }
  if (record.fqdns.empty() && is_refused_for(record, EGRESSD_DENY_EXPIRED))
    return set_aside(
        "its address had expired: its name has a rule already, and a longer dns.grace "
        "keeps addresses longer",
        record);
  add_to_address(record, endpoint);
}

Learned Learner::finish() const {
  return write_policy({.options = options_,
                       .names = names_,
                       .addresses = addresses_,
                       .aside = aside_,
                       .resolvers = resolvers_,
                       .all = all_,
                       .left_out = left_out_,
                       .allowed_already = allowed_already_});
}

}  // namespace egressd::analysis
