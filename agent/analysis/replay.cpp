#include "analysis/replay.h"

#include <algorithm>

#include "analysis/tally.h"

namespace egressd::analysis {

void Replay::add(const audit::Record& record) {
  const auto count = std::max<std::uint64_t>(record.count, 1);
  const auto& judgement = judge_.judge(record);
  totals_.verdicts = saturating_sum(totals_.verdicts, count);
  if (!judgement.by_policy) {
    totals_.unjudged = saturating_sum(totals_.unjudged, count);
    return;
  }
  const auto before = record.denied ? Outcome::Denied : Outcome::WouldDeny;
  const auto after = judgement.outcome;
  if (record.fqdns.empty() && judgement.rule.empty() && after != Outcome::Allowed)
    totals_.nameless = saturating_sum(totals_.nameless, count);
  if (before == after) return;
  auto& total = after == Outcome::Uncertain ? totals_.uncertain : totals_.changed;
  total = saturating_sum(total, count);

  const std::string name =
      record.fqdns.empty() ? record.destination.to_string() : record.fqdns.front();
  const Key key{name,  is_question(record), record.port, record.protocol, before,
                after, judgement.rule};
  auto it = groups_.find(key);
  if (it == groups_.end()) {
    if (groups_.size() >= kMaxGroups) {
      totals_.others = saturating_sum(totals_.others, count);
      return;
    }
    std::string reason = record.reason;
    if (!record.rule.empty()) reason += " by " + record.collection + "/" + record.rule;
    it = groups_
             .emplace(key, ReplayGroup{.destination = name,
                                       .port = record.port,
                                       .protocol = record.protocol,
                                       .question = is_question(record),
                                       .before = before,
                                       .after = after,
                                       .before_reason = std::move(reason),
                                       .after_rule = judgement.rule,
                                       .why = judgement.why})
             .first;
  }
  it->second.count = saturating_sum(it->second.count, count);
}

std::vector<ReplayGroup> Replay::changes() const {
  using Entry = const decltype(groups_)::value_type*;
  std::vector<Entry> all;
  all.reserve(groups_.size());
  for (const auto& entry : groups_) all.push_back(&entry);
  std::ranges::sort(all, [](Entry a, Entry b) {
    return a->second.count != b->second.count ? a->second.count > b->second.count
                                              : a->first < b->first;
  });
  std::vector<ReplayGroup> out;
  out.reserve(all.size());
  for (const Entry entry : all) out.push_back(entry->second);
  return out;
}

}  // namespace egressd::analysis
