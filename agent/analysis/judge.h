#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>

#include "audit/record.h"
#include "policy/policy.h"

namespace egressd::analysis {

enum class Outcome : std::uint8_t {
  Allowed,
  WouldDeny,  // passes, and is recorded, because of audit mode
  Denied,
  Uncertain  // the names of the address are judged differently
};
const char* to_string(Outcome outcome);

struct Judgement {
  Outcome outcome = Outcome::Denied;
  // False: policies do not decide this (headers that cannot be parsed); the outcome is as recorded.
  bool by_policy = true;
  bool by_deny_rule = false;
  std::string rule;  // COLLECTION/RULE, empty if none decided
  std::string why;   // one sentence
};

// True if the record is of a DNS question that was refused for the name it asked.
bool is_question(const audit::Record& record);
// `reason`: enum egressd_reason.
bool is_refused_for(const audit::Record& record, std::uint32_t reason);
// True if no rule can allow it: the verdict was not about where it went.
bool is_beyond_rules(const audit::Record& record);

// What a policy says of recorded connections, by policy::evaluate(). As the running agent does, it
// puts network rules first and then asks the rules for names, by every name the record has. What it
// cannot know: names the agent would learn under this policy only.
class Judge {
 public:
  // `policy` must outlive it.
  explicit Judge(const policy::Policy& policy) : policy_(policy) {}
  // Valid until the next call.
  const Judgement& judge(const audit::Record& record);

 private:
  [[nodiscard]] Judgement judge_question(const audit::Record& record) const;
  [[nodiscard]] Judgement judge_connection(const audit::Record& record) const;
  [[nodiscard]] Judgement judge_name(const std::string& name, const audit::Record& record) const;
  [[nodiscard]] Judgement from(const policy::Verdict& verdict) const;

  const policy::Policy& policy_;
  // Records repeat: the last answers, forgotten all at once when there are too many.
  std::unordered_map<std::string, Judgement> known_;
};

}  // namespace egressd::analysis
