#include "daemon/rule_history.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "daemon/name_ids.h"

namespace egressd::daemon {
namespace {

constexpr std::size_t kRemembered = 8;
constexpr std::size_t kOnDisk = 2;

// Most names are plain words: what needs no care is not worth a JSON value each.
void append_string(std::string& line, const std::string& text) {
  const bool plain = std::ranges::all_of(
      text, [](char c) { return c >= ' ' && c < '\x7f' && c != '"' && c != '\\'; });
  if (plain)
    line.append("\"").append(text).append("\"");
  else
    line += nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// [NUMBER, [COLLECTION, RULE], …].
std::string line_of(std::uint32_t generation, const std::vector<RuleHistory::RuleName>& names) {
  std::string line = "[" + std::to_string(generation);
  for (const RuleHistory::RuleName& name : names) {
    line += ",[";
    append_string(line, name.collection);
    line += ',';
    append_string(line, name.rule);
    line += ']';
  }
  return line + "]\n";
}

}  // namespace

RuleHistory RuleHistory::load(const std::string& path, const std::string& instance) {
  RuleHistory history;
  history.path_ = path;
  history.header_ = state_header("egressd-rules 1", instance);
  std::ifstream in(path);
  std::string line;
  if (!std::getline(in, line) || line != history.header_) return history;
  // One generation a line.
  std::deque<Generation> generations;
  while (std::getline(in, line)) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (!json.is_array() || json.empty() || !json[0].is_number_unsigned()) return history;
    Generation generation{json[0].get<std::uint32_t>(), {}, line + "\n"};
    for (std::size_t i = 1; i < json.size(); ++i) {
      const auto& pair = json[i];
      if (!pair.is_array() || pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string())
        return history;
      generation.names.push_back({pair[0].get<std::string>(), pair[1].get<std::string>()});
    }
    generations.push_back(std::move(generation));
  }
  history.generations_ = std::move(generations);
  return history;
}

const RuleHistory::RuleName* RuleHistory::find(std::uint32_t generation,
                                               std::uint32_t rule_id) const {
  // The newest first: a number is used again where a generation was prepared and never in force.
  for (auto it = generations_.rbegin(); it != generations_.rend(); ++it) {
    if (it->number == generation) return rule_id < it->names.size() ? &it->names[rule_id] : nullptr;
  }
  return nullptr;
}

Result<void> RuleHistory::add(std::uint32_t generation, std::vector<RuleName> names) {
  if (!generations_.empty() && generations_.back().number == generation) generations_.pop_back();
  std::string line = line_of(generation, names);
  generations_.push_back({generation, std::move(names), std::move(line)});
  if (generations_.size() > kOnDisk) generations_[generations_.size() - kOnDisk - 1].line.clear();
  if (generations_.size() > kRemembered) generations_.pop_front();
  std::string content = header_ + "\n";
  const std::size_t first = generations_.size() - std::min(generations_.size(), kOnDisk);
  for (std::size_t i = first; i < generations_.size(); ++i) content += generations_[i].line;
  return write_file_atomically(path_, content, Outlives::Agent);
}

}  // namespace egressd::daemon
