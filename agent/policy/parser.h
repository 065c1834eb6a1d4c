#pragma once

#include <expected>
#include <string>
#include <string_view>
#include <vector>

#include "policy/policy.h"
#include "policy/tags.h"

namespace egressd::policy {

// Limits that keep a hostile or broken file from costing more than an error message.
inline constexpr std::size_t kMaxPolicyBytes = 8u << 20;
inline constexpr std::size_t kMaxYamlNodes = 1'000'000;  // after alias expansion
inline constexpr int kMaxYamlDepth = 32;

struct Diagnostic {
  enum class Severity { Error, Warning };
  Severity severity = Severity::Error;
  std::string file;
  int line = 0;    // 1-based; 0: the file as a whole
  int column = 0;  // 1-based
  std::string message;
  // FILE:LINE:COL: error: MESSAGE
  [[nodiscard]] std::string to_string() const;
};

struct Parsed {
  Policy policy;
  std::vector<Diagnostic> warnings;
};

// Parses and validates the whole text; on failure returns every error of the file (and the
// warnings), in file order. Never throws, whatever the bytes. `file` is used in messages only.
std::expected<Parsed, std::vector<Diagnostic>> parse_policy(std::string_view text,
                                                            const std::string& file,
                                                            const TagCatalog& tags);

// The bytes of a policy file, one more than kMaxPolicyBytes at most: parse_policy() refuses those.
std::expected<std::string, std::vector<Diagnostic>> read_policy_file(const std::string& path);

// read_policy_file(), then parse_policy().
std::expected<Parsed, std::vector<Diagnostic>> load_policy(const std::string& path,
                                                           const TagCatalog& tags);

}  // namespace egressd::policy
