#include "policy/yaml_tree.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <new>
#include <optional>
#include <sstream>
#include <stdexcept>

#include "policy/parser.h"
#include "policy/suggest.h"

namespace egressd::policy {
namespace {

struct Stop {
  YamlError error;
};

// Position of a byte offset.
YamlError error_at(std::string_view text, std::size_t offset, std::string message) {
  const std::string_view before = text.substr(0, offset);
  const auto newline = before.rfind('\n');
  return {1 + static_cast<int>(std::ranges::count(before, '\n')),
          static_cast<int>(newline == std::string_view::npos ? offset + 1 : offset - newline),
          std::move(message)};
}

// Offset of the first byte that is not well-formed UTF-8 (RFC 3629), or npos.
std::size_t first_invalid_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = [&](std::size_t k) {
      return i + k < text.size() ? static_cast<unsigned char>(text[i + k]) : 0u;
    };
    const unsigned lead = byte(0);
    std::size_t length = 1;
    unsigned low = 0x80, high = 0xbf;  // bounds of the second byte: no overlong, no surrogate
    if (lead >= 0xc2 && lead <= 0xdf) {
      length = 2;
    } else if (lead >= 0xe0 && lead <= 0xef) {
      length = 3;
      if (lead == 0xe0) low = 0xa0;
      if (lead == 0xed) high = 0x9f;
    } else if (lead >= 0xf0 && lead <= 0xf4) {
      length = 4;
      if (lead == 0xf0) low = 0x90;
      if (lead == 0xf4) high = 0x8f;
    } else if (lead >= 0x80) {
      return i;
    }
    for (std::size_t k = 1; k < length; ++k) {
      const unsigned b = byte(k);
      if (b < (k == 1 ? low : 0x80u) || b > (k == 1 ? high : 0xbfu)) return i;
    }
    i += length;
  }
  return std::string_view::npos;
}

}  // namespace

// Receives yaml-cpp's events. Building from events instead of YAML::Load() is what makes the
// bounds hold: Load() builds everything first, and hides which nodes are aliases.
class YamlBuilder final : public YAML::EventHandler {
 public:
  explicit YamlBuilder(YamlTree& tree) : tree_(tree) {}

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    add(start(YamlNode::Kind::Null, mark, anchor));
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    YamlNode* node = start(YamlNode::Kind::Scalar, mark, anchor);
    // "?": plain, "!": quoted. A plain null is null however it is spelled.
    if (tag == "?" && (value.empty() || value == "~" || value == "null"))
      node->kind = YamlNode::Kind::Null;
    else
      node->text = value;
    add(node);
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const YamlNode* target = anchor < anchors_.size() ? anchors_[anchor] : nullptr;
    if (!target || std::ranges::any_of(open_, [&](const Open& o) { return o.node == target; }))
      fail(mark, "this alias refers to a node that contains it");
    count(mark, target->size);
    check_depth(mark, target->height);
    add(target);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open_.push_back({start(YamlNode::Kind::Sequence, mark, anchor), nullptr});
  }
  void OnSequenceEnd() override { close(); }

  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open_.push_back({start(YamlNode::Kind::Map, mark, anchor), nullptr});
  }
  void OnMapEnd() override { close(); }

  [[nodiscard]] const YamlNode* root() const { return root_; }

 private:
  struct Open {
    YamlNode* node;
    const YamlNode* key;  // of a map: key whose value comes next
  };

  [[noreturn]] static void fail(const YAML::Mark& mark, std::string message) {
    throw Stop{{mark.line + 1, mark.column + 1, std::move(message)}};
  }

  void count(const YAML::Mark& mark, std::size_t nodes) {
    total_ += nodes;
    if (total_ > kMaxYamlNodes)
      fail(mark, "the file has more than " + std::to_string(kMaxYamlNodes) +
                     " values after aliases are expanded; write fewer, or remove the anchors");
  }

  void check_depth(const YAML::Mark& mark, int height) const {
    if (static_cast<int>(open_.size()) + height > kMaxYamlDepth)
      fail(mark, "lists and maps are nested more than " + std::to_string(kMaxYamlDepth) + " deep");
  }

  YamlNode* start(YamlNode::Kind kind, const YAML::Mark& mark, YAML::anchor_t anchor) {
    count(mark, 1);
    check_depth(mark, 1);
    YamlNode& node = tree_.nodes_.emplace_back();
    node.kind = kind;
    node.line = mark.line + 1;
    node.column = mark.column + 1;
    if (anchor != YAML::NullAnchor) {
      if (anchors_.size() <= anchor) anchors_.resize(anchor + 1);
      anchors_[anchor] = &node;
    }
    return &node;
  }

  void add(const YamlNode* node) {
    if (open_.empty()) {
      root_ = node;
      return;
    }
    Open& parent = open_.back();
    parent.node->size += node->size;
    parent.node->height = std::max(parent.node->height, node->height + 1);
    if (parent.node->kind == YamlNode::Kind::Sequence) {
      parent.node->items.push_back(node);
    } else if (!parent.key) {
      parent.key = node;
    } else {
      parent.node->members.emplace_back(parent.key, node);
      parent.key = nullptr;
    }
  }

  void close() {
    const YamlNode* node = open_.back().node;
    open_.pop_back();
    add(node);
  }

  YamlTree& tree_;
  std::vector<Open> open_;
  std::vector<const YamlNode*> anchors_;  // by yaml-cpp's number
  const YamlNode* root_ = nullptr;
  std::size_t total_ = 0;
};

namespace {

// yaml-cpp's message, with what to write where we know the usual cause.
std::string explain(const YAML::Exception& e, std::string_view text) {
  std::string message = e.msg;
  std::size_t offset = 0;
  for (int line = 0; line < e.mark.line && offset != std::string_view::npos; ++line) {
    offset = text.find('\n', offset);
    if (offset != std::string_view::npos) ++offset;
  }
  std::string_view rest;
  if (offset != std::string_view::npos && e.mark.column >= 0) {
    rest = text.substr(offset);
    rest = rest.substr(0, rest.find('\n'));
    rest = rest.substr(std::min(rest.size(), static_cast<std::size_t>(e.mark.column)));
  }
  if (message.starts_with("the referenced anchor") || message.starts_with("alias not found")) {
    const auto star = rest.find('*');
    const std::string_view word =
        star == std::string_view::npos
            ? std::string_view("*")
            : rest.substr(star, rest.find_first_of(" ,]}\r", star) - star);
    return "YAML reads a value that begins with * as an alias; put it in quotes: \"" +
           std::string(word.substr(0, 260)) + "\"";
  }
  if (rest.starts_with('\t'))
    return "YAML does not allow a tab here; indent with spaces (" + message + ")";
  return "not valid YAML: " + message;
}

}  // namespace

const char* YamlNode::kind_name() const {
  switch (kind) {
    case Kind::Null:
      return "nothing";
    case Kind::Scalar:
      return "a single value";
    case Kind::Sequence:
      return "a list";
    case Kind::Map:
      return "a map";
  }
  return "?";
}

std::expected<YamlTree, YamlError> YamlTree::parse(std::string_view text) {
  if (text.size() > kMaxPolicyBytes)
    return std::unexpected(YamlError{0, 0,
                                     "the file has " + std::to_string(text.size()) +
                                         " bytes; at most " + std::to_string(kMaxPolicyBytes) +
                                         " are read"});
  if (const auto nul = text.find('\0'); nul != std::string_view::npos)
    return std::unexpected(error_at(text, nul, "NUL byte; the file must be UTF-8 text"));
  if (const auto bad = first_invalid_utf8(text); bad != std::string_view::npos)
    return std::unexpected(error_at(text, bad, "not valid UTF-8; save the file as UTF-8"));

  YamlTree tree;
  YamlBuilder builder(tree);
  try {
    std::istringstream in{std::string(text)};
    YAML::Parser parser(in);
    parser.HandleNextDocument(builder);
    const YamlNode* root = builder.root();
    YamlTree rest;
    YamlBuilder second(rest);
    if (root && parser && parser.HandleNextDocument(second) && second.root())
      return std::unexpected(YamlError{second.root()->line, second.root()->column,
                                       "a second YAML document; put everything into one"});
    tree.root_ = root ? root : &tree.nodes_.emplace_back();
  } catch (const Stop& stop) {
    return std::unexpected(stop.error);
  } catch (const YAML::Exception& e) {
    return std::unexpected(
        YamlError{std::max(e.mark.line + 1, 0), std::max(e.mark.column + 1, 0), explain(e, text)});
  } catch (const std::bad_alloc&) {
    return std::unexpected(YamlError{0, 0, "not enough memory to read the file"});
  } catch (const std::exception& e) {
    return std::unexpected(YamlError{0, 0, std::string("not valid YAML: ") + e.what()});
  }
  return tree;
}

}  // namespace egressd::policy
