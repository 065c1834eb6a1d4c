#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

namespace egressd::net {

// IP protocol number (IANA). kAny is not a number on the wire: it stands for every protocol.
enum class Protocol : std::uint16_t {
  Icmp = 1,
  Tcp = 6,
  Udp = 17,
  Icmpv6 = 58,
  Sctp = 132,
  Any = 256
};

// "tcp", "udp", "icmp" (for both ICMP and ICMPv6), "sctp", "any", else the number.
std::string to_string(Protocol protocol);

// Inclusive range of ports in host byte order. The full range also matches protocols that have
// no ports.
struct PortRange {
  std::uint16_t first = 0;
  std::uint16_t last = 65535;

  [[nodiscard]] bool is_all() const { return first == 0 && last == 65535; }
  [[nodiscard]] bool contains(std::uint16_t port) const { return first <= port && port <= last; }
  [[nodiscard]] std::string to_string() const;  // "443", "8000-8010", "*"

  auto operator<=>(const PortRange&) const = default;
};

}  // namespace egressd::net
