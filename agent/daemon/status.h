#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/learned_names.h"
#include "daemon/rule_denials.h"
#include "dns/forwarder.h"
#include "dns/resolver.h"
#include "enforce/backend.h"

// Answers of the control socket as values, and their JSON (control/protocol.md).
namespace egressd::daemon {

// What the rings of the kernel held when the agent came: it happened while none was running.
struct Meanwhile {
  std::uint64_t denials = 0;    // records, would-be denials too
  std::uint64_t learned = 0;    // DNS answers that taught addresses
  std::uint64_t questions = 0;  // DNS questions that were refused, or would have been
};

// Who asked for a name, with the path of the cgroup (empty if it is gone).
struct AskedBy {
  Asker who;
  std::string cgroup;
};

struct StatusReport {
  bool enforce = false;
  std::uint32_t generation = 0;
  std::string policy_path;
  std::string policy_hash;  // fingerprint() of the file's bytes
  std::string cgroup;
  std::chrono::seconds uptime{0};
  bool adopted = false;  // found in force at start
  Meanwhile meanwhile;   // zero unless adopted
  std::vector<enforce::LayerStatus> layers;
  bool attached = false;  // once; `layers` says what is now
  bool counters_known = false;
  enforce::Counters counters;
  std::size_t learned_entries = 0;
  std::map<RuleDenials::Name, RuleDenials::Counts> rule_denials;
  std::chrono::system_clock::time_point started_at;
  bool reload_worked = true;  // the last one
  std::chrono::system_clock::time_point last_good_reload;
  std::vector<dns::Resolver::NameStatus> resolver;
  bool dns_proxy = false;  // the agent answers DNS questions
  dns::Forwarder::Counters forwarded;
  std::size_t forwarded_under_way = 0;
  std::uint64_t audit_lost = 0;  // by all sinks
  struct AuditSink {
    std::string name;
    std::uint64_t lost = 0;
  };
  std::vector<AuditSink> audit_sinks;
  std::string trial;                  // path of a policy in force on trial; empty: none is
  std::chrono::seconds trial_for{0};  // until it is rolled back
  std::chrono::seconds open_for{0};   // break-glass: for how long yet; 0: closed
  std::uint64_t openings = 0;         // by break-glass, seen by this agent
  std::vector<std::string> warnings;
};

// One line of `list`.
struct ListEntry {
  std::string address;
  std::string fqdn;     // empty: a network rule, or learned by an earlier run
  std::string pattern;  // empty: a network rule
  std::string collection;
  std::string rule;
  std::string source;  // policy | resolver | kernel | proxy | earlier run
  std::vector<std::string> cname_chain;
  std::optional<std::chrono::seconds> expires_in;
  std::optional<std::chrono::seconds> heard_ago;  // the latest answer; absent: not known
  std::optional<net::IpAddress> server;           // who gave it
  std::optional<AskedBy> asked_by;                // learned in the kernel only
};

// Of enum egressd_dns_outcome; nullptr if there is none.
const char* dns_outcome_name(std::size_t outcome);

std::string to_json(const StatusReport& report);
std::string to_json(const ListEntry& entry);
// A line of `watch` for what DNS taught.
std::string to_json(const dns::Answer& answer, const net::IpAddress& server,
                    const AskedBy& asked_by);
std::string generation_json(std::uint32_t generation);
std::string path_json(const std::string& policy_path);
std::string removed_json(const std::vector<std::string>& removed);

// 64-bit FNV-1a in hex: tells two files apart, no protection against a forger.
std::string fingerprint(std::string_view bytes);

}  // namespace egressd::daemon
