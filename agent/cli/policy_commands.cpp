#include <nlohmann/json.hpp>
#include <ostream>

#include "audit/record.h"
#include "cli/commands.h"
#include "cli/destination.h"
#include "cli/table.h"
#include "policy/parser.h"

namespace egressd::cli {
namespace {

using nlohmann::ordered_json;
using policy::Diagnostic;

std::string dump(const ordered_json& j) {
  return j.dump(-1, ' ', true, ordered_json::error_handler_t::replace);
}

const char* mode_name(policy::Mode mode) {
  return mode == policy::Mode::Enforce ? "enforce" : "audit";
}

ordered_json to_json(const std::vector<Diagnostic>& diagnostics, Diagnostic::Severity severity) {
  auto array = ordered_json::array();
  for (const auto& d : diagnostics)
    if (d.severity == severity)
      array.push_back({{"line", d.line}, {"column", d.column}, {"message", d.message}});
  return array;
}

void print(const std::vector<Diagnostic>& diagnostics, std::ostream& err) {
  // The file's bytes are quoted in messages and may be anything.
  for (const auto& d : diagnostics) err << audit::printable(d.to_string()) << '\n';
}

// Standard error has the errors for people; with --json standard output has them for programs.
void refuse(const std::string& file, const std::vector<Diagnostic>& errors, bool json, Streams io) {
  using enum Diagnostic::Severity;
  print(errors, io.err);
  if (json)
    io.out << dump({{"valid", false},
                    {"file", file},
                    {"errors", to_json(errors, Error)},
                    {"warnings", to_json(errors, Warning)}})
           << '\n';
}

}  // namespace

int check(const std::string& file, bool json, Streams io) {
  const auto parsed = policy::load_policy(file, policy::TagCatalog::builtin());
  if (!parsed) {
    refuse(file, parsed.error(), json, io);
    return kUsage;
  }
  const auto& p = parsed->policy;
  std::size_t rules = 0, fqdns = 0, prefixes = 0;
  for (const auto& collection : p.collections) {
    rules += collection.rules.size();
    for (const auto& rule : collection.rules) {
      fqdns += rule.fqdns.size();
      prefixes += rule.prefixes.size();
    }
  }
  print(parsed->warnings, io.err);
  if (json) {
    io.out << dump({{"valid", true},
                    {"file", file},
                    {"mode", mode_name(p.mode)},
                    {"collections", p.collections.size()},
                    {"rules", rules},
                    {"fqdn_patterns", fqdns},
                    {"prefixes", prefixes},
                    {"errors", ordered_json::array()},
                    {"warnings", to_json(parsed->warnings, Diagnostic::Severity::Warning)}})
           << '\n';
  } else {
    io.out << audit::printable(file) << ": valid: mode " << mode_name(p.mode) << ", "
           << p.collections.size() << " collections, " << rules << " rules, " << fqdns
           << " name patterns, " << prefixes << " prefixes\n";
  }
  return kOk;
}

int verdict(const std::string& file, const std::vector<std::string>& destinations, bool json,
            Streams io) {
  std::vector<AskedDestination> asked;
  for (const auto& text : destinations) {
    auto d = parse_destination(text);
    if (!d) {
      io.err << "egressctl: " << audit::printable(d.error()) << '\n';
      return kUsage;
    }
    asked.push_back(std::move(*d));
  }
  const auto parsed = policy::load_policy(file, policy::TagCatalog::builtin());
  if (!parsed) {
    refuse(file, parsed.error(), json, io);
    return kUsage;
  }
  const auto& p = parsed->policy;

  bool all_allowed = true;
  std::vector<std::vector<std::string>> rows;
  for (const auto& a : asked) {
    const auto v = policy::evaluate(p, a.destination);
    all_allowed = all_allowed && v.allowed;
    std::string collection, rule;
    if (v.rule) {
      collection = p.collections[v.rule->collection].name;
      rule = p.collections[v.rule->collection].rules[v.rule->rule].name;
    }
    if (json) {
      ordered_json j{{"destination", a.to_string()},
                     {"port_defaulted", a.port_defaulted},
                     {"allowed", v.allowed},
                     {"would_deny", v.would_deny}};
      if (v.rule) {
        j["collection"] = collection;
        j["rule"] = rule;
      }
      j["basis"] = policy::to_string(v.basis);
      j["reason"] = v.reason;
      io.out << dump(j) << '\n';
    } else {
      rows.push_back({v.would_deny ? "would-deny"
                      : v.allowed  ? "allow"
                                   : "deny",
                      a.to_string() + (a.port_defaulted ? " (default port)" : ""),
                      v.rule ? collection + "/" + rule : "-", v.reason});
    }
  }
  write_table(io.out, rows);
  return all_allowed ? kOk : kDenied;
}

}  // namespace egressd::cli
