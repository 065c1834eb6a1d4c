#pragma once

#include <string_view>

namespace egressd::policy {

// One label of a pattern, with at most one `*`, which stands for zero or more characters.
struct Glob {
  std::string_view prefix, suffix;
  bool star = false;

  explicit Glob(std::string_view label) : prefix(label) {
    const auto at = label.find('*');
    if (at == std::string_view::npos) return;
    prefix = label.substr(0, at);
    suffix = label.substr(at + 1);
    star = true;
  }

  // `label` has no `*`.
  [[nodiscard]] bool matches(std::string_view label) const {
    if (!star) return prefix == label;
    return label.size() >= prefix.size() + suffix.size() && label.starts_with(prefix) &&
           label.ends_with(suffix);
  }
  // True if every label `other` matches is matched by this one (sound; complete but for two with
  // `*` whose fixed parts run into each other).
  [[nodiscard]] bool covers(const Glob& other) const {
    if (!other.star) return matches(other.prefix);
    return star && other.prefix.starts_with(prefix) && other.suffix.ends_with(suffix);
  }
  // False only if no label can match both.
  [[nodiscard]] bool overlaps(const Glob& other) const {
    if (!star) return other.matches(prefix);
    if (!other.star) return matches(other.prefix);
    return (prefix.starts_with(other.prefix) || other.prefix.starts_with(prefix)) &&
           (suffix.ends_with(other.suffix) || other.suffix.ends_with(suffix));
  }
};

}  // namespace egressd::policy
