#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "audit/record.h"
#include "policy/parser.h"

namespace egressd::analysis {

// Records as the daemon would write them, a second apart.
inline audit::Record connection(const std::string& address, std::uint16_t port,
                                std::vector<std::string> names = {},
                                net::Protocol protocol = net::Protocol::Tcp) {
  audit::Record r;
  r.time = std::chrono::system_clock::time_point(std::chrono::seconds(1'767'225'600));
  r.denied = false;
  r.reason = "default_deny";
  r.hook = "connect";
  r.destination = *net::IpAddress::parse(address);
  r.port = port;
  r.protocol = protocol;
  r.fqdns = std::move(names);
  r.pid = 0;
  r.comm = "curl";
  return r;
}

inline audit::Record question(const std::string& name) {
  auto r = connection("192.0.2.53", 53, {name}, net::Protocol::Udp);
  r.reason = "dns_name_not_allowed";
  r.hook = "packet";
  return r;
}

inline policy::Policy policy_of(const std::string& yaml) {
  const auto parsed = policy::parse_policy(yaml, "policy.yaml", policy::TagCatalog::builtin());
  if (parsed) return parsed->policy;
  for (const auto& d : parsed.error()) ADD_FAILURE() << d.to_string() << "\n" << yaml;
  return {};
}

}  // namespace egressd::analysis
