#include "net/endpoint.h"

namespace egressd::net {

std::string to_string(Protocol protocol) {
  switch (protocol) {
    case Protocol::Icmp:
    case Protocol::Icmpv6:
      return "icmp";
    case Protocol::Tcp:
      return "tcp";
    case Protocol::Udp:
      return "udp";
    case Protocol::Sctp:
      return "sctp";
    case Protocol::Any:
      return "any";
  }
  return std::to_string(static_cast<unsigned>(protocol));
}

std::string PortRange::to_string() const {
  if (is_all()) return "*";
  if (first == last) return std::to_string(first);
  return std::to_string(first) + "-" + std::to_string(last);
}

}  // namespace egressd::net
