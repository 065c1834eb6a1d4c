#pragma once

#include <cstdint>
#include <expected>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "net/endpoint.h"
#include "policy/policy.h"

namespace egressd::policy {

// One documented destination of a tag, as in deploy/tags/.
struct TagEntry {
  std::string cloud;              // public | usgov | china | all
  std::string destination;        // FQDN pattern or address, may hold <placeholders>
  bool include_apex = false;      // FQDN `x` opens x and *.x (bare suffixes of the 2020 article)
  std::vector<std::string> also;  // further patterns this destination cannot be used without
  std::vector<net::PortRange> ports;
  std::vector<net::Protocol> protocols;  // Any with FQDNs: Tcp and Udp, as in the policy file
  std::string purpose;
  bool exfiltration_risk = false;  // any tenant's account is behind this name
  bool documented = true;          // false: not in the tag's source, added by us; see purpose

  // Everything the entry opens, placeholders unfilled: destination, *.destination, also.
  [[nodiscard]] std::vector<std::string> opens() const;
};

struct Tag {
  std::string name;
  std::string title;
  std::string source;  // document the entries come from
  std::string date;    // ISO date of that document
  std::vector<std::string> notes;
  std::vector<TagEntry> entries;
};

// Placeholder name ("region") to its values; each value makes one rule.
using TagParameters = std::map<std::string, std::vector<std::string>>;

// "location" and "region" name the same thing in Microsoft's documents: both give "region".
std::string canonical_parameter(std::string_view name);

// Placeholder names of a text, canonical, in order of appearance: "<acr>.<region>.data…".
std::vector<std::string> placeholders(std::string_view text);

struct TagExpansion {
  // Rules of the entries that belong to the cloud, named TAG:DESTINATION (unique), with Rule::tag
  // set. Entries whose parameter is missing are left out.
  std::vector<Rule> rules;
  // Parameters without a value, each with the first destination that needs it.
  std::vector<std::pair<std::string, std::string>> missing;
  // The expansion would exceed the limit; rules is incomplete.
  bool too_large = false;
};

// Most rules one tag may expand to (product of its parameters' values).
inline constexpr std::size_t kMaxTagRules = 100'000;

TagExpansion expand_tag(const Tag& tag, std::string_view cloud, const TagParameters& parameters);

class TagCatalog {
 public:
  // The tags this program was built with.
  static const TagCatalog& builtin();
  // Parses the text of a tag file; the error is FILE:LINE:COL: error: …, one line per error.
  static std::expected<TagCatalog, std::string> parse(std::string_view text,
                                                      const std::string& file);

  [[nodiscard]] const Tag* find(std::string_view name) const;
  [[nodiscard]] std::span<const Tag> tags() const { return tags_; }

 private:
  std::vector<Tag> tags_;
};

}  // namespace egressd::policy
