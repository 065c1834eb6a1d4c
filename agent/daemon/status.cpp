#include "daemon/status.h"

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "audit/record.h"

namespace egressd::daemon {
namespace {

// Names and texts can hold bytes that are no UTF-8: replaced, never thrown over.
std::string dump(const nlohmann::json& json) {
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

const char* stat_name(std::size_t stat) {
  switch (stat) {
    case EGRESSD_STAT_EVENTS_SENT:
      return "events_sent";
    case EGRESSD_STAT_EVENTS_LOST:
      return "events_lost";
    case EGRESSD_STAT_STORAGE_FAILED:
      return "storage_failed";
    default:
      return nullptr;
  }
}

nlohmann::json json_of(const AskedBy& asked_by) {
  nlohmann::json json{{"pid", asked_by.who.pid},
                      {"uid", asked_by.who.uid},
                      {"comm", asked_by.who.comm},
                      {"cgroup_id", asked_by.who.cgroup_id}};
  if (!asked_by.cgroup.empty()) json["cgroup"] = asked_by.cgroup;
  return json;
}

}  // namespace

const char* dns_outcome_name(std::size_t outcome) {
  switch (outcome) {
    case EGRESSD_DNS_ASKED:
      return "asked";
    case EGRESSD_DNS_ASKED_NO_GRANT:
      return "asked_no_grant";
    case EGRESSD_DNS_UNFILTERED:
      return "unfiltered";
    case EGRESSD_DNS_WOULD_DENY:
      return "would_deny";
    case EGRESSD_DNS_DENIED_NAME:
      return "denied_name";
    case EGRESSD_DNS_DENIED_TYPE:
      return "denied_type";
    case EGRESSD_DNS_DENIED_MALFORMED:
      return "denied_malformed";
    case EGRESSD_DNS_DENIED_STREAM:
      return "denied_stream";
    case EGRESSD_DNS_DENIED_RACE:
      return "denied_race";
    case EGRESSD_DNS_PENDING_FAILED:
      return "pending_failed";
    case EGRESSD_DNS_LEARNED:
      return "learned";
    case EGRESSD_DNS_NOT_TRUSTED_SERVER:
      return "not_trusted_server";
    case EGRESSD_DNS_NOT_TRUSTED_LINK:
      return "not_trusted_link";
    case EGRESSD_DNS_NOT_ASKED:
      return "not_asked";
    case EGRESSD_DNS_LATE:
      return "late";
    case EGRESSD_DNS_BAD_HEADER:
      return "bad_header";
    case EGRESSD_DNS_TRUNCATED:
      return "truncated";
    case EGRESSD_DNS_RCODE:
      return "rcode";
    case EGRESSD_DNS_BAD_QUESTION:
      return "bad_question";
    case EGRESSD_DNS_BAD_RECORD:
      return "bad_record";
    case EGRESSD_DNS_BAD_OWNER:
      return "bad_owner";
    case EGRESSD_DNS_TOO_MANY:
      return "too_many";
    case EGRESSD_DNS_TOO_LARGE:
      return "too_large";
    case EGRESSD_DNS_NO_ADDRESS:
      return "no_address";
    case EGRESSD_DNS_SHORT:
      return "short";
    case EGRESSD_DNS_STREAM_LOST:
      return "stream_lost";
    case EGRESSD_DNS_STREAM_HELD:
      return "stream_held";
    case EGRESSD_DNS_ADDR_NEW:
      return "address_new";
    case EGRESSD_DNS_OBSERVED:
      return "observed";
    case EGRESSD_DNS_ADDR_EXTENDED:
      return "address_extended";
    case EGRESSD_DNS_ADDR_EVICTED:
      return "address_evicted";
    case EGRESSD_DNS_ADDR_GUARDED:
      return "address_guarded";
    case EGRESSD_DNS_ADDR_QUOTA:
      return "address_quota";
    case EGRESSD_DNS_ADDR_FULL:
      return "address_full";
    case EGRESSD_DNS_EVENTS_LOST:
      return "events_lost";
    case EGRESSD_DNS_BRANCH_LOST:
      return "branch_lost";
    default:
      return nullptr;
  }
}

std::string to_json(const StatusReport& report) {
  nlohmann::json json;
  json["mode"] = report.enforce ? "enforce" : "audit";
  json["generation"] = report.generation;
  json["policy_path"] = report.policy_path;
  json["policy_hash"] = report.policy_hash;
  json["last_reload_worked"] = report.reload_worked;
  json["last_good_reload"] = audit::format_time(report.last_good_reload);
  json["cgroup"] = report.cgroup;
  json["pid"] = ::getpid();
  json["uptime_seconds"] = report.uptime.count();
  json["adopted"] = report.adopted;
  if (report.adopted)
    json["meanwhile"] = {{"denials", report.meanwhile.denials},
                         {"learned", report.meanwhile.learned},
                         {"questions", report.meanwhile.questions}};
  if (!report.trial.empty())
    json["trial"] = {{"path", report.trial}, {"ends_in_seconds", report.trial_for.count()}};
  json["open_for_seconds"] = report.open_for.count();
  json["learned_entries"] = report.learned_entries;
  json["layers"] = nlohmann::json::array();
  for (const auto& layer : report.layers)
    json["layers"].push_back({{"program", layer.program},
                              {"attached", layer.attached},
                              {"needed", layer.needed},
                              {"detail", layer.detail}});
  json["counters"] = nlohmann::json::object();
  for (std::uint32_t i = 0; i < EGRESSD_REASON_MAX; ++i) {
    const std::string name = audit::reason_name(i);
    if (name != "unknown") json["counters"][name] = report.counters.reasons[i];
  }
  json["stats"] = nlohmann::json::object();
  for (std::size_t i = 0; i < EGRESSD_STAT_MAX; ++i) {
    if (const char* name = stat_name(i)) json["stats"][name] = report.counters.stats[i];
  }
  json["stats"]["records_lost"] = report.audit_lost;
  json["audit_sinks"] = nlohmann::json::array();
  for (const auto& sink : report.audit_sinks)
    json["audit_sinks"].push_back({{"name", sink.name}, {"lost", sink.lost}});
  json["dns"] = nlohmann::json::object();
  for (std::size_t i = 0; i < EGRESSD_DNS_OUTCOME_MAX; ++i) {
    if (const char* name = dns_outcome_name(i)) json["dns"][name] = report.counters.dns[i];
  }
  json["dns_mode"] = report.dns_proxy ? "proxy" : "inline";
  if (report.dns_proxy) {
    const auto& n = report.forwarded;
    json["dns_proxy"] = {{"under_way", report.forwarded_under_way},
                         {"questions", n.questions},
                         {"answered", n.answered},
                         {"refused", n.refused},
                         {"malformed", n.malformed},
                         {"truncated", n.truncated},
                         {"no_answer", n.no_answer},
                         {"bad_answer", n.bad_answer},
                         {"not_learned", n.not_learned},
                         {"held", n.held},
                         {"held_us", n.held_for.count() / 1000},
                         {"repeated", n.repeated},
                         {"dropped", n.dropped},
                         {"dropped_client", n.dropped_client},
                         {"unsent", n.unsent},
                         {"retries", n.retries},
                         {"connections", n.connections},
                         {"connections_refused", n.connections_refused}};
  }
  json["resolver"] = nlohmann::json::array();
  for (const auto& name : report.resolver) {
    nlohmann::json entry{{"name", name.fqdn},
                         {"resolved", name.resolved},
                         {"consecutive_failures", name.consecutive_failures}};
    if (!name.last_error.empty()) entry["error"] = name.last_error;
    json["resolver"].push_back(std::move(entry));
  }
  json["warnings"] = report.warnings;
  return dump(json);
}

std::string to_json(const ListEntry& entry) {
  nlohmann::json json{{"address", entry.address},
                      {"collection", entry.collection},
                      {"rule", entry.rule},
                      {"source", entry.source},
                      {"fqdn", entry.fqdn},
                      {"pattern", entry.pattern},
                      {"cname_chain", entry.cname_chain}};
  if (entry.expires_in) json["expires_in_seconds"] = entry.expires_in->count();
  if (entry.heard_ago) json["heard_seconds_ago"] = entry.heard_ago->count();
  if (entry.server) json["server"] = entry.server->to_string();
  if (entry.asked_by) json["asked_by"] = json_of(*entry.asked_by);
  return dump(json);
}

std::string to_json(const dns::Answer& answer, const net::IpAddress& server,
                    const AskedBy& asked_by) {
  nlohmann::json json{{"event", "dns_learned"},
                      {"fqdn", answer.fqdn},
                      {"cname_chain", answer.cname_chain},
                      {"ttl_seconds", answer.ttl.count()},
                      {"server", server.to_string()},
                      {"asked_by", json_of(asked_by)},
                      {"addresses", nlohmann::json::array()}};
  for (const net::IpAddress& address : answer.addresses)
    json["addresses"].push_back(address.to_string());
  return dump(json);
}

std::string generation_json(std::uint32_t generation) {
  return dump(nlohmann::json{{"generation", generation}});
}

std::string path_json(const std::string& policy_path) {
  return dump(nlohmann::json{{"policy_path", policy_path}});
}

std::string removed_json(const std::vector<std::string>& removed) {
  return dump(nlohmann::json{{"removed", removed}});
}

std::string fingerprint(std::string_view bytes) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  char text[17];
  std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

}  // namespace egressd::daemon
