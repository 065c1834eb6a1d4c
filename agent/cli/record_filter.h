#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <vector>

#include "audit/record.h"
#include "net/endpoint.h"
#include "net/prefix.h"

namespace CLI {  // NOLINT(readability-identifier-naming): CLI11's own
class App;
class Option;
}  // namespace CLI

namespace egressd::cli {

// Which records `watch` and `top` show. Of several values in one member any may match; every member
// that has values must. Without values everything matches.
struct RecordFilter {
  bool denied = false;      // with both of these, or none: either verdict
  bool would_deny = false;  // passed in audit mode
  std::vector<std::string> reasons = {};
  // Globs of fnmatch(3), in which * also stands for dots and slashes.
  std::vector<std::string> fqdns =
      {};  // any name of the address, or of its CNAME chain; without case
  std::vector<std::string> comms = {};
  std::vector<std::string> cgroups = {};
  std::vector<std::string> rules = {};  // RULE or COLLECTION/RULE
  std::vector<net::Prefix> destinations = {};
  std::vector<net::PortRange> ports = {};
  std::vector<std::uint32_t> pids = {};
  std::vector<std::string> pods = {};  // uid as the Kubernetes API shows it, without case

  [[nodiscard]] bool matches(const audit::Record& record) const;
};

// What --reason takes.
std::vector<std::string_view> refusal_reasons();

// Readers of option values; the error says what to write instead.
std::expected<std::string, std::string> parse_name_glob(std::string_view text);
std::expected<net::PortRange, std::string> parse_ports(std::string_view text);  // "443", "1-1023"
std::expected<std::uint32_t, std::string> parse_pid(std::string_view text);

// Adds --denied, --reason and so on to `command`, which owns what is returned; `filter` must
// outlive the parsing.
std::vector<CLI::Option*> add_filter_options(CLI::App& command, RecordFilter& filter);

}  // namespace egressd::cli
