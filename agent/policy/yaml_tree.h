#pragma once

#include <cstddef>
#include <expected>
#include <memory>
#include <memory_resource>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace egressd::policy {

// A YAML document as a tree of plain values with positions. Aliases point to the node they name,
// and are counted at its full size while parsing: a walk visits at most kMaxYamlNodes nodes and
// goes at most kMaxYamlDepth deep (parser.h), whatever the file plays with anchors.
struct YamlNode {
  enum class Kind { Null, Scalar, Sequence, Map };
  using Member = std::pair<const YamlNode*, const YamlNode*>;
  Kind kind = Kind::Null;
  int line = 0;                            // 1-based
  int column = 0;                          // 1-based, in bytes
  std::string_view text;                   // Scalar
  std::span<const YamlNode* const> items;  // Sequence; of a Scalar itself, as a list of one
  std::span<const Member> members;         // Map, in file order

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
  YamlNode& new_node();

  // Owns the nodes and all they refer to. None has a destructor: a file has hundreds of thousands.
  std::unique_ptr<std::pmr::monotonic_buffer_resource> memory_;
  const YamlNode* root_ = nullptr;
};

}  // namespace egressd::policy
