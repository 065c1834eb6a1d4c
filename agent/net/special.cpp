#include "net/special.h"

#include <utility>
#include <vector>

#include "net/prefix.h"

namespace egressd::net {

const char* special_purpose(const IpAddress& address) {
  static const std::vector<std::pair<Prefix, const char*>> kBlocks = [] {
    std::vector<std::pair<Prefix, const char*>> blocks;
    for (const auto& [text, name] : std::initializer_list<std::pair<const char*, const char*>>{
             {"0.0.0.0/8", "unspecified"},
             {"10.0.0.0/8", "private"},
             {"100.64.0.0/10", "shared (CGNAT)"},
             {"127.0.0.0/8", "loopback"},
             {"168.63.129.16/32", "platform"},
             {"169.254.0.0/16", "link-local"},
             {"172.16.0.0/12", "private"},
             {"192.0.0.0/24", "reserved"},
             {"192.168.0.0/16", "private"},
             {"224.0.0.0/4", "multicast"},
             {"240.0.0.0/4", "reserved"},
             {"::/96", "embedded IPv4"},  // ::, ::1 and v4-compatible addresses
             {"64:ff9b::/96", "embedded IPv4"},
             {"64:ff9b:1::/48", "embedded IPv4"},
             {"2001::/32", "embedded IPv4"},
             {"2002::/16", "embedded IPv4"},
             {"fc00::/7", "unique local"},
             {"fe80::/10", "link-local"},
             {"fec0::/10", "private"},
             {"ff00::/8", "multicast"},
         }) {
      blocks.emplace_back(*Prefix::parse(text), name);
    }
    return blocks;
  }();
  if (address.is_loopback()) return "loopback";
  for (const auto& [prefix, name] : kBlocks) {
    if (prefix.contains(address)) return name;
  }
  return nullptr;
}

}  // namespace egressd::net
