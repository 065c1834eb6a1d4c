#include "daemon/name_servers.h"

#include <algorithm>

#include "dns/resolver.h"

namespace egressd::daemon {

Result<NameServers> find_name_servers(const policy::Policy& policy, const ResolvConfPaths& paths) {
  auto conf = dns::read_resolv_conf(paths.conf);
  NameServers found;
  if (conf) found.dns.search_domains = std::move(conf->search);
  if (!policy.dns.servers.empty()) {
    found.dns.addresses = policy.dns.servers;
    return found;
  }
  if (!conf) return std::unexpected(std::move(conf.error()));
  found.dns.addresses = std::move(conf->servers);
  auto& addresses = found.dns.addresses;
  if (addresses.empty())
    return std::unexpected(Error::of(paths.conf +
                                     " names no server; name the trusted ones in the policy: "
                                     "dns: {servers: [168.63.129.16]}"));
  if (!std::ranges::all_of(addresses, &net::IpAddress::is_loopback)) return found;

  found.stub_alone = true;
  const auto upstream = dns::read_resolv_conf(paths.upstream);
  if (!upstream) return found;
  for (const net::IpAddress& address : upstream->servers) {
    if (address.is_loopback()) continue;
    addresses.push_back(address);
    found.stub_alone = false;
  }
  return found;
}

}  // namespace egressd::daemon
