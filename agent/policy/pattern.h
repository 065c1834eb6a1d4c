#pragma once

#include <compare>
#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <vector>

namespace egressd::policy {

// Canonical host name: lower case, A-labels (RFC 5891), no trailing dot, each label 1..63 bytes,
// at most 253 bytes in all. Unicode input is converted with libidn2 (IDNA 2008, UTS #46
// non-transitional). Underscores are accepted inside labels: DNS carries them. A single label is
// accepted, a name whose last label is a number is not (it would be read as an address).
std::expected<std::string, std::string> canonical_fqdn(std::string_view text);

// A host name pattern of a rule, in canonical form:
//   ml.azure.com                  exactly this name
//   *.azureml.ms                  one or more labels in front, never azureml.ms itself
//   md-*.blob.storage.azure.net   `*` inside a label: zero or more characters of that one label
// A `*` label may stand only in front; `*` inside a label may stand once per label, in any label
// left of the domain somebody has registered. The two are not mixed in one pattern. Every starred
// label has room for at least one more byte.
class FqdnPattern {
 public:
  enum class Kind : std::uint8_t { Exact, Subdomains, InLabel };

  // The error says what is wrong and what to write instead: look-alikes (`*contoso.com` would
  // also match evilcontoso.com), `*`, a pattern over a whole top-level domain or public suffix
  // (`*.com`, `*.co.uk`: libpsl), over-long labels, an IP address (belongs in `addresses`),
  // a URL or host:port, an unfilled <placeholder>.
  static std::expected<FqdnPattern, std::string> parse(std::string_view text);

  [[nodiscard]] Kind kind() const { return kind_; }
  [[nodiscard]] const std::string& text() const { return text_; }
  // `name` must be canonical.
  [[nodiscard]] bool matches(std::string_view name) const;
  // True if every name that `other` matches is matched by this one too (sound, and complete for
  // Exact and Subdomains; for two InLabel patterns it may say false for a true inclusion).
  [[nodiscard]] bool covers(const FqdnPattern& other) const;
  // False only if no name can match both.
  [[nodiscard]] bool overlaps(const FqdnPattern& other) const;

  // The domain of a multi-tenant platform (blob.core.windows.net) whose customers this pattern
  // lets in whoever they are, or "". Such a pattern is a way out for data. A wildcard further up
  // gives the platform below it, with `*` for a label that varies (hcp.*.azmk8s.io).
  [[nodiscard]] std::string shared_platform() const;

  auto operator<=>(const FqdnPattern&) const = default;

 private:
  FqdnPattern(Kind kind, std::string text) : kind_(kind), text_(std::move(text)) {}

  Kind kind_;
  std::string text_;
};

}  // namespace egressd::policy
