// The tag file: any bytes give a catalog or errors, and every tag of an accepted catalog expands.
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <set>
#include <string_view>

#include "policy/tags.h"

namespace {

void require(bool holds, const char* what) {
  if (holds) return;
  std::cerr << "invariant broken: " << what << '\n';
  std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace egressd::policy;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto catalog = TagCatalog::parse(text, "fuzz.yaml");
  if (!catalog) {
    require(catalog.error().find("error: ") != std::string::npos, "a refused file has an error");
    return 0;
  }
  for (const Tag& tag : catalog->tags()) {
    require(catalog->find(tag.name) != nullptr, "every tag is found by its name");
    TagParameters parameters;
    for (const TagEntry& entry : tag.entries)
      for (const std::string& destination : entry.opens())
        for (const std::string& name : placeholders(destination)) parameters[name] = {"a", "b"};
    // Two values per placeholder: more than a few placeholders are the limit's business.
    for (const char* cloud : {"public", "usgov", "china"}) {
      require(expand_tag(tag, cloud, {}).rules.size() <= kMaxTagRules, "the limit holds");
      if (parameters.size() > 8) continue;
      const TagExpansion expansion = expand_tag(tag, cloud, parameters);
      require(expansion.missing.empty(), "nothing is missing when all is given");
      std::set<std::string_view> names;
      for (const Rule& rule : expansion.rules) {
        require(names.insert(rule.name).second, "rule names are unique");
        require(rule.fqdns.empty() != rule.prefixes.empty(), "a rule has names or prefixes");
        require(!rule.ports.empty() && !rule.protocols.empty(), "ports and protocols are set");
      }
    }
  }
  return 0;
}
