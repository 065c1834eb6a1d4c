#include "audit/azfw_format.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string_view>

namespace egressd::audit {
namespace {

using Line = nlohmann::ordered_json;

std::string upper(std::string text) {
  std::ranges::transform(text, text.begin(), [](char c) {
    return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  });
  return text;
}

// "cgroup_id" is EgressdCgroupId.
std::string own_column(std::string_view key) {
  std::string name = "Egressd";
  bool start = true;
  for (const char c : key) {
    if (c == '_')
      start = true;
    else
      name += std::exchange(start, false) ? upper(std::string(1, c)) : std::string(1, c);
  }
  return name;
}

// The firewall's word for "no rule matched".
constexpr const char* kDefaultAction = "Default Action";

std::string action_reason(const Record& record) {
  constexpr std::array<std::string_view, 3> kNoMatch{"default_deny", "port_not_allowed", "expired"};
  if (std::ranges::find(kNoMatch, record.reason) != kNoMatch.end()) return kDefaultAction;
  for (std::uint32_t reason = 0; reason < EGRESSD_REASON_MAX; ++reason)
    if (record.reason == reason_name(reason)) return reason_text(reason);
  return record.reason;
}

void put_source(Line& line, const Record& record) {
  if (!record.source) return;
  line["SourceIp"] = record.source->to_string();
  line["SourcePort"] = record.source_port;
}

void put_dns_query(Line& line, const Record& record) {
  if (!record.fqdns.empty()) line["QueryName"] = record.fqdns.front() + ".";
  line["Protocol"] = net::to_string(record.protocol);
  line["RequestSize"] = record.length;
  line["ErrorMessage"] = action_reason(record);
  put_source(line, record);
}

void put_rule(Line& line, const Record& record, bool application) {
  // "Alert": reported and passed, as the firewall says of its threat intelligence.
  line["Action"] = record.denied ? "Deny" : "Alert";
  if (record.rule.empty()) line["ActionReason"] = action_reason(record);
  line["Protocol"] = upper(net::to_string(record.protocol));
  if (application) {
    line["Fqdn"] = record.fqdns.front();
    line["IsTlsInspected"] = false;
    line["IsExplicitProxyRequest"] = false;
  } else {
    line["DestinationIp"] = record.destination.to_string();
  }
  if (record.port != 0) line["DestinationPort"] = record.port;
  if (!record.collection.empty()) line["RuleCollection"] = record.collection;
  if (!record.rule.empty()) line["Rule"] = record.rule;
  put_source(line, record);
}

void put_dns_query(Line& line, const Notice::Question& question) {
  line["QueryName"] = question.name + ".";
  line["QueryType"] = question.type;
  line["QueryClass"] = "IN";
  line["Protocol"] = net::to_string(question.protocol);
  line["ResponseCode"] = question.rcode;
  if (question.size != 0) line["RequestSize"] = question.size;
  if (question.answer_size != 0) line["ResponseSize"] = question.answer_size;
  if (question.took)
    line["RequestDurationSecs"] = static_cast<double>(question.took->count()) / 1e6;
  if (question.source) line["SourceIp"] = question.source->to_string();
  if (question.source_port) line["SourcePort"] = *question.source_port;
}

std::string dump(const Line& line) {
  return line.dump(-1, ' ', true, Line::error_handler_t::replace);
}

}  // namespace

std::string AzfwFormat::line(const Record& record) const {
  const bool question = record.reason == "dns_name_not_allowed" || record.reason == "dns_malformed";
  const bool application = !question && !record.fqdns.empty();
  Line line;
  line["TimeGenerated"] = format_time(record.time);
  line["Type"] = question      ? "AZFWDnsQuery"
                 : application ? "AZFWApplicationRule"
                               : "AZFWNetworkRule";
  line["Computer"] = host_.computer;
  if (!host_.resource_id.empty()) line["_ResourceId"] = host_.resource_id;
  if (question)
    put_dns_query(line, record);
  else
    put_rule(line, record, application);
  // Everything else, too: what a column of the table says already only under that name.
  constexpr std::array<std::string_view, 6> kSaid{"time",   "collection",  "rule",
                                                  "source", "source_port", "protocol"};
  const Line all = Line::parse(record.to_json());
  for (const auto& [key, value] : all.items())
    if (std::ranges::find(kSaid, key) == kSaid.end()) line[own_column(key)] = value;
  return dump(line);
}

std::string AzfwFormat::line(const Notice& notice) const {
  Line line;
  line["TimeGenerated"] = format_time(notice.time);
  line["Type"] = notice.event == Notice::Event::Gap ? "EgressdGap"
                 : notice.question                  ? "AZFWDnsQuery"
                                                    : "EgressdEvent";
  line["Computer"] = host_.computer;
  if (!host_.resource_id.empty()) line["_ResourceId"] = host_.resource_id;
  if (notice.question) put_dns_query(line, *notice.question);
  constexpr std::array<std::string_view, 9> kSaid{"name",  "type",        "protocol",
                                                  "rcode", "source",      "source_port",
                                                  "size",  "answer_size", "took_us"};
  const Line all = Line::parse(notice.to_json());
  for (const auto& [key, value] : all.items())
    if (key != "time" && key != "schema" && std::ranges::find(kSaid, key) == kSaid.end() &&
        (key != "event" || notice.event != Notice::Event::Gap))
      line[own_column(key)] = value;
  return dump(line);
}

}  // namespace egressd::audit
