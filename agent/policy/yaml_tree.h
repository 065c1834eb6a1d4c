#pragma once

#include <cstddef>
#include <deque>
#include <expected>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace egressd::policy {

// A YAML document as a tree of plain values with positions. Aliases point to the node they name,
// and are counted at its full size while parsing: a walk visits at most kMaxYamlNodes nodes and
// goes at most kMaxYamlDepth deep (parser.h), whatever the file plays with anchors.
struct YamlNode {
  enum class Kind { Null, Scalar, Sequence, Map };
  Kind kind = Kind::Null;
  int line = 0;                                                      // 1-based
  int column = 0;                                                    // 1-based, in bytes
  std::string text;                                                  // Scalar
  std::vector<const YamlNode*> items;                                // Sequence
  std::vector<std::pair<const YamlNode*, const YamlNode*>> members;  // Map, in file order

  std::size_t size = 1;  // nodes below and including this one, aliases expanded
  int height = 1;

  // "a list", "a map", "a value", "nothing": for messages.
  [[nodiscard]] const char* kind_name() const;
};

struct YamlError {
  int line = 0;
  int column = 0;
  std::string message;
};

class YamlTree {
 public:
  // Checks size and encoding, then parses. Never throws. The only user of libyaml.
  static std::expected<YamlTree, YamlError> parse(std::string_view text);

  // Null-kind node for an empty document.
  [[nodiscard]] const YamlNode& root() const { return *root_; }

 private:
  friend class YamlBuilder;
  std::deque<YamlNode> nodes_;  // stable addresses
  const YamlNode* root_ = nullptr;
};

}  // namespace egressd::policy
