#pragma once

#include "net/ip_address.h"

namespace egressd::net {

// A block of addresses with a special purpose: what somebody who controls a name could point it at
// to reach the host itself, its neighbours or the metadata service (DNS rebinding).
struct SpecialBlock {
  // "loopback", "link-local", "private", "unique local", "shared (CGNAT)", "multicast",
  // "unspecified", "platform" (168.63.129.16), "reserved", "embedded IPv4" (v4-compatible, NAT64,
  // 6to4, Teredo: the IPv4 address inside decides nothing), "not global unicast".
  const char* purpose;
  enum class Learnable {
    IfPrivateIsAllowed,  // by names whose rules say allowPrivate
    Never,               // a network rule is the way to these
  } learnable;
};

// The block the address is in, nullptr for ordinary addresses. Which are private and which never
// learned is as in bpf/dns_learn.h (dns_guard4, dns_guard6): what the kernel refuses to learn from
// an answer the agent does not grant either. Documentation blocks (RFC 5737, 3849) are ordinary:
// nothing lives there.
const SpecialBlock* special_block(const IpAddress& address);

}  // namespace egressd::net
