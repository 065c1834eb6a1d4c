#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "net/ip_address.h"

namespace egressd::dns {

// The seam between whoever hears a DNS answer (the periodic resolver, later the kernel programs
// or a forwarder) and whoever makes addresses reachable.
struct Answer {
  enum class Source { Resolver, Kernel, Proxy };
  Source source = Source::Resolver;
  std::string fqdn;                      // the name asked, canonical
  std::vector<std::string> cname_chain;  // names the answer led through, in order, canonical
  std::vector<net::IpAddress> addresses;
  std::chrono::seconds ttl{0};  // smallest TTL on the way from name to address
  BootTime heard{0};
  std::optional<net::IpAddress> server;  // who gave it, if known
};

}  // namespace egressd::dns
