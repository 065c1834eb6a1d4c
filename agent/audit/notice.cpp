#include "audit/notice.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "audit/record.h"

namespace egressd::audit {

Notice Notice::gap(std::chrono::system_clock::time_point time, std::uint64_t count,
                   std::string cause, std::string reason) {
  Notice notice;
  notice.time = time;
  notice.count = count;
  notice.cause = std::move(cause);
  notice.reason = std::move(reason);
  return notice;
}

const char* Notice::event_name() const {
  switch (event) {
    case Event::Gap:
      return "gap";
    case Event::BreakGlassOpened:
      return "break_glass_opened";
    case Event::BreakGlassClosed:
      return "break_glass_closed";
    case Event::TrialStarted:
      return "trial_started";
    case Event::TrialConfirmed:
      return "trial_confirmed";
    case Event::TrialReplaced:
      return "trial_replaced";
    case Event::TrialRolledBack:
      return "trial_rolled_back";
    case Event::DnsQuestion:
      return "dns_question";
  }
  return "unknown";
}

std::string Notice::to_json() const {
  nlohmann::ordered_json j;
  j["schema"] = Record::kSchema;
  j["event"] = event_name();
  j["time"] = format_time(time);
  if (event == Event::Gap) {
    j["count"] = count;
    j["cause"] = cause;
  }
  if (!reason.empty()) j["reason"] = reason;
  if (uid) j["uid"] = *uid;
  if (!comment.empty()) j["comment"] = comment;
  if (!policy.empty()) j["policy"] = policy;
  if (until) j["until"] = format_time(*until);
  if (question) {
    j["name"] = question->name;
    j["type"] = question->type;
    j["server"] = question->server.to_string();
    j["protocol"] = net::to_string(question->protocol);
    if (question->source) j["source"] = question->source->to_string();
    if (question->source_port) j["source_port"] = *question->source_port;
    j["rcode"] = question->rcode;
    j["addresses"] = nlohmann::ordered_json::array();
    for (const net::IpAddress& address : question->addresses)
      j["addresses"].push_back(address.to_string());
    if (question->size != 0) j["size"] = question->size;
    if (question->answer_size != 0) j["answer_size"] = question->answer_size;
    if (question->took) j["took_us"] = question->took->count();
    if (!question->cgroup.empty()) j["cgroup"] = question->cgroup;
  }
  return j.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

std::string Notice::to_text() const {
  const std::string by = uid ? "uid " + std::to_string(*uid) : "unknown";
  const std::string end = until ? format_time(*until) : "";
  switch (event) {
    case Event::Gap:
      return std::to_string(count) + " records of refused connections are missing (" +
             printable(cause) + (reason.empty() ? "" : ", " + printable(reason)) + ")";
    case Event::BreakGlassOpened:
      return "break-glass opened by " + by + ": nothing is refused until " + end + " (" +
             printable(comment) + ")";
    case Event::BreakGlassClosed:
      return "break-glass closed, opened by " + by + " (" + printable(comment) + ")";
    case Event::TrialStarted:
      return printable(policy) + " is on trial until " + end;
    case Event::TrialConfirmed:
      return printable(policy) + " is confirmed";
    case Event::TrialReplaced:
      return (policy.empty() ? "a policy" : printable(policy)) +
             " is no longer on trial: the policy file was changed";
    case Event::TrialRolledBack:
      return "rolled back to what was in force before " +
             (policy.empty() ? "the trial" : printable(policy));
    case Event::DnsQuestion: {
      std::string text =
          "DNS " + question->type + " " + printable(question->name) + " -> " + question->rcode;
      for (const net::IpAddress& address : question->addresses) text += " " + address.to_string();
      return text;
    }
  }
  return "";
}

}  // namespace egressd::audit
