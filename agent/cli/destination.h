#pragma once

#include <expected>
#include <string>
#include <string_view>

#include "policy/policy.h"

namespace egressd::cli {

struct AskedDestination {
  policy::Destination destination;
  bool port_defaulted = false;

  // NAME:443/tcp, 192.0.2.1:53/udp, [2001:db8::1]:443/tcp, 192.0.2.1/icmp
  [[nodiscard]] std::string to_string() const;
};

// DEST[:PORT][/PROTO]. The port defaults to 443 and the protocol to tcp; icmp takes no port. The
// error says what to write instead.
std::expected<AskedDestination, std::string> parse_destination(std::string_view text);

}  // namespace egressd::cli
