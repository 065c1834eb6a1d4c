#include "cli/record_filter.h"

#include <fnmatch.h>
#include <strings.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>
#include <ranges>

#include "bpf/egressd_abi.h"
#include "policy/idna.h"
#include "policy/suggest.h"

namespace egressd::cli {
namespace {

using policy::quoted;
using Texts = std::vector<std::string>;

bool matches_glob(const std::string& glob, const std::string& text, int flags = 0) {
  return ::fnmatch(glob.c_str(), text.c_str(), flags) == 0;
}

// Whether any of `wanted`, or there is none.
template <typename T>
bool any_or_none(const std::vector<T>& wanted, auto matches) {
  return wanted.empty() || std::ranges::any_of(wanted, matches);
}

template <typename T>
std::optional<T> parse_number(std::string_view text) {
  T value{};
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (ec != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::expected<std::string, std::string> parse_text(std::string_view text) {
  if (text.empty()) return std::unexpected("nothing can match an empty text");
  return std::string(text);
}

std::expected<std::string, std::string> parse_reason(std::string_view text) {
  const auto known = refusal_reasons();
  if (std::ranges::find(known, text) != known.end()) return std::string(text);
  std::string list;
  for (const auto name : known) list += (list.empty() ? "" : ", ") + std::string(name);
  return std::unexpected(quoted(text) + " is none of " + list + policy::did_you_mean(text, known));
}

// A repeatable option that takes one value each time.
template <typename T>
CLI::Option* add(CLI::App& command, const std::string& name, const std::string& text,
                 std::vector<T>& into, std::expected<T, std::string> (*parse)(std::string_view)) {
  return command
      .add_option_function<Texts>(
          name,
          [&into, name, parse](const Texts& values) {
            for (const auto& value : values) {
              auto parsed = parse(value);
              if (!parsed) throw CLI::ValidationError(name, parsed.error());
              into.push_back(std::move(*parsed));
            }
          },
          text)
      ->allow_extra_args(false);
}

}  // namespace

std::vector<std::string_view> refusal_reasons() {
  std::vector<std::string_view> out;
  const std::string_view nameless = audit::reason_name(EGRESSD_REASON_MAX);
  for (std::uint32_t i = 0; i < EGRESSD_REASON_MAX; ++i)
    if (egressd_reason_is_deny(i) != 0 && audit::reason_name(i) != nameless)
      out.emplace_back(audit::reason_name(i));
  return out;
}

std::expected<std::string, std::string> parse_name_glob(std::string_view text) {
  // Records have names as DNS writes them, without the last dot.
  if (text.ends_with('.')) text.remove_suffix(1);
  if (text.empty()) return std::unexpected("nothing can match an empty name");
  // By the label, as * is none.
  std::string out;
  for (const auto part : std::views::split(text, '.')) {
    const std::string_view label(part.begin(), part.end());
    if (!out.empty()) out += '.';
    if (std::ranges::all_of(label, [](char c) { return static_cast<unsigned char>(c) < 0x80; })) {
      out += label;
      continue;
    }
    const auto converted = policy::to_a_labels(label);
    if (!converted)
      return std::unexpected(quoted(text) + ": " + converted.error() +
                             "; write it as DNS does, with labels that begin with xn--");
    out += *converted;
  }
  return out;
}

std::expected<net::PortRange, std::string> parse_ports(std::string_view text) {
  const auto dash = text.find('-');
  const auto first = parse_number<std::uint16_t>(text.substr(0, dash));
  const auto last =
      dash == std::string_view::npos ? first : parse_number<std::uint16_t>(text.substr(dash + 1));
  if (!first || !last || *first > *last)
    return std::unexpected(quoted(text) + " is no port and no range; write 443 or 8000-8010");
  return net::PortRange{.first = *first, .last = *last};
}

std::expected<std::uint32_t, std::string> parse_pid(std::string_view text) {
  const auto pid = parse_number<std::uint32_t>(text);
  if (!pid || *pid == 0)
    return std::unexpected(quoted(text) + " is no process number; for names there is --comm");
  return *pid;
}

bool RecordFilter::matches(const audit::Record& record) const {
  const auto glob_of = [](const std::string& text, int flags = 0) {
    return [&text, flags](const std::string& glob) { return matches_glob(glob, text, flags); };
  };
  if (denied != would_deny && denied != record.denied) return false;
  if (!any_or_none(reasons, [&](const auto& r) { return r == record.reason; })) return false;
  if (!any_or_none(fqdns, [&](const auto& glob) {
        const auto matches = [&](const auto& name) {
          return matches_glob(glob, name, FNM_CASEFOLD);
        };
        return std::ranges::any_of(record.fqdns, matches) ||
               std::ranges::any_of(record.cname_chain, matches);
      }))
    return false;
  if (!any_or_none(destinations, [&](const auto& p) { return p.contains(record.destination); }))
    return false;
  if (!any_or_none(ports, [&](const auto& range) { return range.contains(record.port); }))
    return false;
  if (!any_or_none(pids, [&](auto pid) { return pid == record.pid; })) return false;
  // What is not known matches nothing, not even *.
  if (!comms.empty() && record.comm.empty()) return false;
  if (!any_or_none(comms, glob_of(record.comm))) return false;
  if (!cgroups.empty() && record.cgroup.empty()) return false;
  if (!any_or_none(cgroups, glob_of(record.cgroup))) return false;
  if (!any_or_none(pods, [&](const auto& uid) {
        return ::strcasecmp(uid.c_str(), record.pod_uid.c_str()) == 0;
      }))
    return false;
  if (!rules.empty() && record.rule.empty()) return false;
  const std::string full = record.collection + "/" + record.rule;
  return any_or_none(rules, [&](const auto& glob) {
    return matches_glob(glob, record.rule) || matches_glob(glob, full);
  });
}

std::vector<CLI::Option*> add_filter_options(CLI::App& command, RecordFilter& filter) {
  return {
      command.add_flag("--denied", filter.denied, "Only what was refused"),
      command.add_flag("--would-deny", filter.would_deny,
                       "Only what passed because of audit mode or break-glass"),
      add(command, "--reason", "Only refusals for this reason", filter.reasons, &parse_reason),
      add(command, "--fqdn", "Only destinations with this name; * and ? as in a shell",
          filter.fqdns, &parse_name_glob),
      add<net::Prefix>(command, "--destination", "Only this address or prefix", filter.destinations,
                       &net::Prefix::parse),
      add(command, "--port", "Only this port, or ports FIRST-LAST", filter.ports, &parse_ports),
      add(command, "--pid", "Only this process", filter.pids, &parse_pid),
      add(command, "--comm", "Only threads of this name (glob)", filter.comms, &parse_text),
      add(command, "--cgroup", "Only processes of this cgroup (glob)", filter.cgroups, &parse_text),
      add(command, "--pod", "Only this Kubernetes pod, by its UID", filter.pods, &parse_text),
      add(command, "--rule", "Only what this rule refused: RULE or COLLECTION/RULE (glob)",
          filter.rules, &parse_text)};
}

}  // namespace egressd::cli
