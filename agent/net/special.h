#pragma once

#include "net/ip_address.h"

namespace egressd::net {

// Name of the special-purpose block (RFC 6890 and the platform's own addresses) an address is in,
// nullptr for ordinary ones: "loopback", "link-local", "private", "unique local", "shared
// (CGNAT)", "multicast", "unspecified", "reserved", "platform" (168.63.129.16), "embedded IPv4"
// (v4-compatible, NAT64, 6to4, Teredo: the IPv4 address inside decides nothing).
//
// What an attacker who controls a name could point it at to reach the host itself, its neighbours
// or the metadata service (DNS rebinding). Documentation blocks (RFC 5737, 3849) are not in it:
// nothing lives there.
const char* special_purpose(const IpAddress& address);

}  // namespace egressd::net
