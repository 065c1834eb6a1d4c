#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace egressd::policy {

// Patterns of the kind InLabel as a tree of labels, top-level label first, as the kernel keeps
// them: what covers a name is found without looking at every pattern.
class InLabelTree {
 public:
  // Adds FqdnPattern::text() under a number of the caller's; a text that is there keeps its first.
  // Returns the parent below which there is now one label with `*` more than `limit` allows, or ""
  // (each parent is returned once).
  std::string add(std::string_view text, std::uint32_t number, std::size_t limit);

  // Numbers of the patterns that cover `text`: a canonical name, or the text of another pattern of
  // the kind InLabel (or the same).
  [[nodiscard]] std::vector<std::uint32_t> covering(std::string_view text) const;

  [[nodiscard]] bool empty() const { return nodes_.size() == 1; }

 private:
  static constexpr std::uint32_t kNone = ~std::uint32_t{0};
  struct Node {
    std::map<std::string, std::uint32_t, std::less<>> labels;    // without `*`
    std::vector<std::pair<std::string, std::uint32_t>> starred;  // with `*`
    std::uint32_t number = kNone;
  };

  std::vector<Node> nodes_{1};
};

}  // namespace egressd::policy
