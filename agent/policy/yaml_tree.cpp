#include "policy/yaml_tree.h"

#include <yaml.h>

#include <algorithm>
#include <memory>
#include <new>
#include <type_traits>
#include <unordered_map>
#include <vector>

#include "policy/parser.h"

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

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

// libyaml takes every ":" within [ ] and { } for the one between key and value, and refuses
// [::1, ::/0], which YAML 1.2 allows. It is shown a letter of no meaning for each ":" that begins a
// word; where that was within quotes or is no value, nothing is changed by it either, because
// restored() puts the ":" back into whatever comes out.
class ColonWords {
 public:
  explicit ColonWords(std::string_view text) {
    std::size_t done = 0;
    for (auto colon = text.find(':'); colon != std::string_view::npos;
         colon = text.find(':', colon + 1)) {
      if (!begins_word(text, colon)) continue;
      if (done == 0 && !choose_letter(text)) return;
      shown_.append(text, done, colon - done).append(letter_);
      done = colon + 1;
    }
    if (done != 0) shown_.append(text, done);
  }

  // Same number of characters and lines as the text itself.
  [[nodiscard]] std::string_view shown(std::string_view text) const {
    return shown_.empty() ? text : shown_;
  }
  [[nodiscard]] bool may_be_in(std::string_view value) const {
    return !shown_.empty() && value.contains(letter_);
  }
  [[nodiscard]] std::string restored(std::string_view value) const {
    std::string out(value);
    for (auto at = out.find(letter_); at != std::string::npos; at = out.find(letter_, at))
      out.replace(at, letter_.size(), ":");
    return out;
  }

 private:
  static bool begins_word(std::string_view text, std::size_t colon) {
    constexpr std::string_view kFlow = ",[]{}";
    if (colon + 1 == text.size() || is_blank(text[colon + 1]) || kFlow.contains(text[colon + 1]))
      return false;
    if (colon == 0 || !(is_blank(text[colon - 1]) || kFlow.contains(text[colon - 1]))) return false;
    // {"key" :value}
    std::size_t before = colon;
    while (before > 0 && is_blank(text[before - 1])) --before;
    return before == 0 || (text[before - 1] != '"' && text[before - 1] != '\'');
  }

  // One for private use that the text has nowhere.
  bool choose_letter(std::string_view text) {
    for (char last = '\x80'; last < '\x90'; ++last) {
      letter_ = {'\xee', '\x80', last};
      if (!text.contains(letter_)) return true;
    }
    return false;
  }

  std::string letter_;
  std::string shown_;  // empty: the text itself
};

// Lines and byte columns of libyaml's marks, which count characters, and more of them as the end of
// a line than an editor does. Fast as long as they are asked for in the order of the text.
class Positions {
 public:
  explicit Positions(std::string_view text) : text_(text) {}

  struct Place {
    std::size_t offset = 0;
    int line = 1;
    int column = 1;
  };
  Place of(std::size_t character) {
    if (character < character_) *this = Positions(text_);
    while (character_ < character && offset_ < text_.size()) {
      if (text_[offset_++] == '\n') {
        ++line_;
        line_start_ = offset_;
      }
      while (offset_ < text_.size() && (static_cast<unsigned char>(text_[offset_]) & 0xc0) == 0x80)
        ++offset_;
      ++character_;
    }
    return {offset_, line_, static_cast<int>(offset_ - line_start_) + 1};
  }

 private:
  std::string_view text_;
  std::size_t character_ = 0;
  std::size_t offset_ = 0;
  std::size_t line_start_ = 0;
  int line_ = 1;
};

// A copy of the elements that lives as long as `memory`.
template <typename T>
std::span<const T> keep(std::pmr::memory_resource& memory, std::span<const T> elements) {
  static_assert(std::is_trivially_destructible_v<T>);
  if (elements.empty()) return {};
  T* copy = static_cast<T*>(memory.allocate(elements.size_bytes(), alignof(T)));
  std::uninitialized_copy(elements.begin(), elements.end(), copy);
  return {copy, elements.size()};
}

struct Event {
  Event() = default;
  ~Event() { yaml_event_delete(&raw); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  yaml_event_t raw{};
};

struct Parser {
  explicit Parser(std::string_view text) {
    if (yaml_parser_initialize(&raw) == 0) throw std::bad_alloc();
    yaml_parser_set_encoding(&raw, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&raw, reinterpret_cast<const unsigned char*>(text.data()),
                                 text.size());
  }
  ~Parser() { yaml_parser_delete(&raw); }
  Parser(const Parser&) = delete;
  Parser& operator=(const Parser&) = delete;
  yaml_parser_t raw{};
};

std::string_view view(const yaml_char_t* text, std::size_t size) {
  return {reinterpret_cast<const char*>(text), size};
}
std::string name_of(const yaml_char_t* text) {
  return text == nullptr ? "" : reinterpret_cast<const char*>(text);
}

std::string_view rest_of_line(std::string_view text, std::size_t offset) {
  const std::string_view rest = text.substr(std::min(offset, text.size()));
  return rest.substr(0, rest.find('\n'));
}

// `rest` begins with the star.
std::string explain_star(std::string_view rest) {
  const std::string_view word = rest.substr(0, rest.find_first_of(" ,]}\r"));
  return "YAML reads a value that begins with * as an alias; put it in quotes: \"" +
         std::string(word.substr(0, 260)) + "\"";
}

}  // namespace

// Builds the tree from libyaml's events. Building from events instead of a document is what makes
// the bounds hold: loading a document builds everything first, and hides which nodes are aliases.
class YamlBuilder {
 public:
  // `text` without a byte order mark.
  YamlBuilder(YamlTree& tree, std::string_view text)
      : tree_(tree), text_(text), words_(text), positions_(text), parser_(words_.shown(text)) {}

  // Nullptr for a file without a document.
  const YamlNode* build() {
    int documents = 0;
    for (;;) {
      Event event;
      if (yaml_parser_parse(&parser_.raw, &event.raw) == 0) fail_as_parser_says();
      switch (event.raw.type) {
        case YAML_STREAM_END_EVENT:
          return root_;
        case YAML_DOCUMENT_START_EVENT:
          ++documents;
          continue;
        case YAML_NO_EVENT:
        case YAML_STREAM_START_EVENT:
        case YAML_DOCUMENT_END_EVENT:
          continue;
        default:
          if (documents > 1)
            fail(event.raw.start_mark, "a second YAML document; put everything into one");
          take(event.raw);
      }
    }
  }

 private:
  struct Open {
    YamlNode* node;
    std::size_t first;  // of its children in children_
  };

  void take(const yaml_event_t& event) {
    switch (event.type) {
      case YAML_SCALAR_EVENT:
        return scalar(event);
      case YAML_ALIAS_EVENT:
        return alias(event);
      case YAML_SEQUENCE_START_EVENT:
        open_.push_back(
            {start(YamlNode::Kind::Sequence, event.start_mark, event.data.sequence_start.anchor),
             children_.size()});
        return;
      case YAML_MAPPING_START_EVENT:
        open_.push_back(
            {start(YamlNode::Kind::Map, event.start_mark, event.data.mapping_start.anchor),
             children_.size()});
        return;
      default:  // the end of either
        return close();
    }
  }

  void scalar(const yaml_event_t& event) {
    const auto& scalar = event.data.scalar;
    const std::string_view value = view(scalar.value, scalar.length);
    const bool null =
        scalar.style == YAML_PLAIN_SCALAR_STYLE && scalar.tag == nullptr &&
        (value.empty() || value == "~" || value == "null" || value == "Null" || value == "NULL");
    YamlNode* node = start(null ? YamlNode::Kind::Null : YamlNode::Kind::Scalar, event.start_mark,
                           scalar.anchor);
    if (!null) {
      if (words_.may_be_in(value)) {
        const std::string restored = words_.restored(value);
        node->text = kept(restored);
      } else {
        node->text = kept(value);
      }
      const YamlNode* const self = node;
      node->items = keep(*tree_.memory_, std::span(&self, 1));
    }
    add(node);
  }

  void alias(const yaml_event_t& event) {
    const auto known = anchors_.find(name_of(event.data.alias.anchor));
    if (known == anchors_.end())
      fail(event.start_mark,
           explain_star(rest_of_line(text_, positions_.of(event.start_mark.index).offset)));
    const YamlNode* target = known->second;
    if (std::ranges::any_of(open_, [&](const Open& o) { return o.node == target; }))
      fail(event.start_mark, "this alias refers to a node that contains it");
    count(event.start_mark, target->size);
    check_depth(event.start_mark, target->height);
    add(target);
  }

  [[noreturn]] void fail(const yaml_mark_t& mark, std::string message) {
    const auto place = positions_.of(mark.index);
    throw Stop{{place.line, place.column, std::move(message)}};
  }

  // libyaml's message, with what to write where we know the usual cause.
  [[noreturn]] void fail_as_parser_says() {
    const yaml_parser_t& parser = parser_.raw;
    if (parser.error == YAML_MEMORY_ERROR) throw std::bad_alloc();
    if (parser.error == YAML_READER_ERROR) fail_at_unprintable();
    const std::string_view problem = parser.problem == nullptr ? "" : parser.problem;
    const std::string_view context = parser.context == nullptr ? "" : parser.context;
    if (context.contains("scanning an alias"))
      fail(parser.context_mark,
           explain_star(rest_of_line(text_, positions_.of(parser.context_mark.index).offset)));
    std::string message = "not valid YAML: " + std::string(problem);
    if (!context.empty()) {
      message += " " + std::string(context);
      const int began = positions_.of(parser.context_mark.index).line;
      if (began != positions_.of(parser.problem_mark.index).line)
        message += " that begins in line " + std::to_string(began);
    }
    const std::string_view rest =
        rest_of_line(text_, positions_.of(parser.problem_mark.index).offset);
    if (rest.starts_with('\t'))
      message = "YAML does not allow a tab here; indent with spaces (" + message + ")";
    else if (problem.contains("unexpected ':'"))
      message += "; put the value in quotes";
    else if (context.contains("scanning an anchor"))
      message += "; a name behind & has letters, digits, - and _";
    fail(parser.problem_mark, std::move(message));
  }

  // The only complaint left of what reads the characters: the text is UTF-8.
  [[noreturn]] void fail_at_unprintable() const {
    for (std::size_t i = 0; i < text_.size(); ++i) {
      const auto byte = [&](std::size_t k) {
        return i + k < text_.size() ? static_cast<unsigned char>(text_[i + k]) : 0u;
      };
      const bool control = (byte(0) < 0x20 && !is_blank(text_[i])) || byte(0) == 0x7f ||
                           (byte(0) == 0xc2 && byte(1) < 0xa0 && byte(1) != 0x85);
      const bool nothing = byte(0) == 0xef && byte(1) == 0xbf && byte(2) >= 0xbe;
      if (control || nothing)
        throw Stop{error_at(text_, i, "control character, which YAML does not allow; remove it")};
    }
    throw Stop{{0, 0, "control character, which YAML does not allow; remove it"}};
  }

  void count(const yaml_mark_t& mark, std::size_t nodes) {
    total_ += nodes;
    if (total_ > kMaxYamlNodes)
      fail(mark, "the file has more than " + std::to_string(kMaxYamlNodes) +
                     " values after aliases are expanded; write fewer, or remove the anchors");
  }

  void check_depth(const yaml_mark_t& mark, int height) {
    if (static_cast<int>(open_.size()) + height > kMaxYamlDepth)
      fail(mark, "lists and maps are nested more than " + std::to_string(kMaxYamlDepth) + " deep");
  }

  YamlNode* start(YamlNode::Kind kind, const yaml_mark_t& mark, const yaml_char_t* anchor) {
    count(mark, 1);
    check_depth(mark, 1);
    YamlNode& node = tree_.new_node();
    node.kind = kind;
    const auto place = positions_.of(mark.index);
    node.line = place.line;
    node.column = place.column;
    if (anchor != nullptr) anchors_.insert_or_assign(name_of(anchor), &node);
    return &node;
  }

  void add(const YamlNode* node) {
    if (open_.empty()) {
      root_ = node;
      return;
    }
    YamlNode& parent = *open_.back().node;
    parent.size += node->size;
    parent.height = std::max(parent.height, node->height + 1);
    children_.push_back(node);
  }

  void close() {
    const auto [node, first] = open_.back();
    open_.pop_back();
    const std::span<const YamlNode* const> children = std::span(children_).subspan(first);
    if (node->kind == YamlNode::Kind::Sequence) {
      node->items = keep(*tree_.memory_, children);
    } else {
      members_.clear();
      for (std::size_t i = 0; i + 1 < children.size(); i += 2)
        members_.emplace_back(children[i], children[i + 1]);
      node->members = keep(*tree_.memory_, std::span<const YamlNode::Member>(members_));
    }
    children_.resize(first);
    add(node);
  }

  std::string_view kept(std::string_view text) {
    const auto copy = keep(*tree_.memory_, std::span(text.data(), text.size()));
    return {copy.data(), copy.size()};
  }

  YamlTree& tree_;
  std::string_view text_;
  ColonWords words_;
  Positions positions_;
  Parser parser_;
  std::vector<Open> open_;
  std::vector<const YamlNode*> children_;  // of the open ones; keys and values in turn
  std::vector<YamlNode::Member> members_;
  std::unordered_map<std::string, const YamlNode*> anchors_;  // the latest of each name
  const YamlNode* root_ = nullptr;
  std::size_t total_ = 0;
};

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

YamlNode& YamlTree::new_node() {
  return *new (memory_->allocate(sizeof(YamlNode), alignof(YamlNode))) YamlNode;
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

  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());

  YamlTree tree;
  try {
    tree.memory_ = std::make_unique<std::pmr::monotonic_buffer_resource>(
        std::min<std::size_t>(4096 + 8 * text.size(), 16 << 20));
    const YamlNode* root = YamlBuilder(tree, text).build();
    tree.root_ = root ? root : &tree.new_node();
  } catch (const Stop& stop) {
    return std::unexpected(stop.error);
  } catch (const std::bad_alloc&) {
    return std::unexpected(YamlError{0, 0, "not enough memory to read the file"});
  }
  return tree;
}

}  // namespace egressd::policy
