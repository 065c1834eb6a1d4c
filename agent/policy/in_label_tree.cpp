#include "policy/in_label_tree.h"

#include <algorithm>

#include "policy/glob.h"

namespace egressd::policy {
namespace {

// Takes the last label off `text`.
std::string_view pop_label(std::string_view& text) {
  const auto dot = text.rfind('.');
  const std::string_view label = dot == std::string_view::npos ? text : text.substr(dot + 1);
  text = dot == std::string_view::npos ? std::string_view{} : text.substr(0, dot);
  return label;
}

}  // namespace

std::string InLabelTree::add(std::string_view text, std::uint32_t number, std::size_t limit) {
  std::string over;
  std::uint32_t at = 0;
  for (std::string_view rest = text; !rest.empty();) {
    const std::string_view label = pop_label(rest);
    const auto fresh = static_cast<std::uint32_t>(nodes_.size());
    std::uint32_t next = fresh;
    if (label.find('*') == std::string_view::npos) {
      next = nodes_[at].labels.try_emplace(std::string(label), fresh).first->second;
    } else {
      auto& starred = nodes_[at].starred;
      const auto it =
          std::ranges::find(starred, label, &std::pair<std::string, std::uint32_t>::first);
      if (it != starred.end()) {
        next = it->second;
      } else if (starred.size() > limit) {
        return over;  // said before; a parent with thousands of them costs nothing more
      } else {
        starred.emplace_back(label, fresh);
        if (starred.size() == limit + 1)
          over = text.substr(rest.empty() ? label.size() + 1 : rest.size() + label.size() + 2);
      }
    }
    if (next == fresh) nodes_.emplace_back();
    at = next;
  }
  if (nodes_[at].number == kNone) nodes_[at].number = number;
  return over;
}

std::vector<std::uint32_t> InLabelTree::covering(std::string_view text) const {
  std::vector<std::uint32_t> found;
  if (empty()) return found;
  struct Step {
    std::uint32_t node;
    std::string_view rest;
  };
  std::vector<Step> steps = {{0, text}};
  while (!steps.empty()) {
    const Step step = steps.back();
    steps.pop_back();
    const Node& node = nodes_[step.node];
    if (step.rest.empty()) {
      if (node.number != kNone) found.push_back(node.number);
      continue;
    }
    std::string_view rest = step.rest;
    const std::string_view label = pop_label(rest);
    if (const auto it = node.labels.find(label); it != node.labels.end())
      steps.push_back({it->second, rest});
    for (const auto& [pattern, child] : node.starred)
      if (Glob(pattern).covers(Glob(label))) steps.push_back({child, rest});
  }
  return found;
}

}  // namespace egressd::policy
