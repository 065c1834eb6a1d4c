// The policy file: any bytes give a policy or errors, and a policy that was accepted holds what
// policy.h promises.
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <set>
#include <string_view>

#include "policy/parser.h"

namespace {

using namespace egressd;
using namespace egressd::policy;

void require(bool holds, const char* what) {
  if (holds) return;
  std::cerr << "invariant broken: " << what << '\n';
  std::abort();
}

std::string example_name(const FqdnPattern& pattern) {
  std::string name = pattern.text();
  for (char& c : name)
    if (c == '*') c = 'x';
  return name;
}

void check_pattern(const FqdnPattern& pattern) {
  const auto again = FqdnPattern::parse(pattern.text());
  require(again && *again == pattern, "a canonical pattern parses to itself");
  require(pattern.covers(pattern) && pattern.overlaps(pattern), "a pattern covers itself");
  const std::string name = example_name(pattern);
  const auto canonical = canonical_fqdn(name);
  require(canonical && *canonical == name, "a name made from a pattern is canonical");
  require(pattern.matches(name), "a pattern matches the name made from it");
}

void check_policy(const Policy& policy) {
  std::uint32_t last_priority = 0;
  for (const Collection& collection : policy.collections) {
    require(collection.priority > last_priority, "collections are sorted, priorities unique");
    last_priority = collection.priority;
    std::set<std::string_view> names;
    for (const Rule& rule : collection.rules) {
      require(!rule.name.empty() && names.insert(rule.name).second, "rule names are unique");
      require(rule.fqdns.empty() != rule.prefixes.empty(), "a rule has names or prefixes");
      require(!rule.ports.empty() && !rule.protocols.empty(), "a rule has ports and protocols");
      Destination destination;
      destination.port = rule.ports.front().first;
      destination.protocol = rule.protocols.front();
      for (const FqdnPattern& pattern : rule.fqdns) {
        check_pattern(pattern);
        destination.fqdn = example_name(pattern);
        const Verdict verdict = evaluate(policy, destination);
        require(verdict.rule.has_value() || verdict.basis == Basis::DnsServer,
                "a rule's own name is matched by some rule");
      }
      for (const net::Prefix& prefix : rule.prefixes) {
        const auto again = net::Prefix::parse(prefix.to_string());
        require(again && *again == prefix, "a canonical prefix parses to itself");
        destination.fqdn.clear();
        destination.address = prefix.address();
        const Verdict verdict = evaluate(policy, destination);
        require(verdict.rule.has_value() || verdict.basis == Basis::DnsServer ||
                    verdict.basis == Basis::Loopback || verdict.basis == Basis::Kernel ||
                    verdict.basis == Basis::Resolver,
                "a rule's own address is matched by some rule");
      }
    }
  }
  for (const std::string& name : policy.dns.resolve) {
    const auto canonical = canonical_fqdn(name);
    require(canonical && *canonical == name, "names to resolve are canonical");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto parsed = parse_policy(text, "fuzz.yaml", TagCatalog::builtin());
  if (parsed) {
    check_policy(parsed->policy);
  } else {
    bool error = false;
    for (const Diagnostic& d : parsed.error()) {
      require(!d.message.empty(), "a diagnostic has a message");
      error = error || d.severity == Diagnostic::Severity::Error;
    }
    require(error, "a refused file has an error");
  }
  // The same bytes as one pattern, which the YAML around it would rarely let through.
  if (size < 600)
    if (const auto pattern = FqdnPattern::parse(text)) check_pattern(*pattern);
  return 0;
}
