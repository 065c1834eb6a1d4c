#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "base/result.h"
#include "net/ip_address.h"

namespace egressd::dns {

inline constexpr std::uint16_t kTypeA = 1, kTypeNs = 2;  // IANA numbers

// Asks `server` one question, once, over UDP (TCP after truncation), and waits for the answer:
// "NOERROR", "NXDOMAIN", "SERVFAIL", … The error says why there was none. Blocks for `timeout` at
// most. `name` is canonical; "." is the root.
Result<std::string> ask_once(const net::IpAddress& server, const std::string& name,
                             std::uint16_t type, std::chrono::milliseconds timeout);

}  // namespace egressd::dns
