#pragma once

#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "net/endpoint.h"
#include "policy/parser.h"
#include "policy/yaml_tree.h"

namespace egressd::policy {

// Collects diagnostics while a YAML tree is read: what the policy file and the tag file share.
class Reader {
 public:
  explicit Reader(std::string file) : file_(std::move(file)) {}

  void error(const YamlNode& at, std::string message);
  void warning(const YamlNode& at, std::string message);
  void error(const YamlError& error);

  // In file order, without repetitions (an alias shows the same mistake at every use).
  std::vector<Diagnostic> take();
  [[nodiscard]] bool failed() const { return failed_; }

  // As in suggest.h, until so many words have been compared that no person reads the answers.
  std::string did_you_mean(std::string_view word, std::span<const std::string_view> known);

  // True if `node` is a map; reports unknown, duplicate and non-scalar keys. `what` names the map
  // in messages: "a rule".
  bool map(const YamlNode& node, std::string_view what,
           std::initializer_list<std::string_view> keys);
  // Member of a map that map() has accepted; the first one if the key is repeated.
  static const YamlNode* find(const YamlNode& map, std::string_view key);

  // Text of a scalar, or an error that names `what`.
  std::optional<std::string_view> scalar(const YamlNode& node, std::string_view what);
  std::optional<bool> boolean(const YamlNode& node, std::string_view what);
  // Items of a list, as long as the tree lives; a scalar counts as a list of one. Empty lists are
  // errors.
  std::span<const YamlNode* const> list(const YamlNode& node, std::string_view what);

  std::optional<net::PortRange> port_range(const YamlNode& node);
  std::vector<net::PortRange> ports(const YamlNode& node);
  std::optional<net::Protocol> protocol(const YamlNode& node);

 private:
  void add(Diagnostic::Severity severity, int line, int column, std::string message);

  std::string file_;
  bool failed_ = false;
  std::size_t comparisons_left_ = 20'000;
  std::vector<Diagnostic> diagnostics_;
};

}  // namespace egressd::policy
