#include "net/special.h"

#include <utility>
#include <vector>

#include "net/prefix.h"

namespace egressd::net {

const SpecialBlock* special_block(const IpAddress& address) {
  using enum SpecialBlock::Learnable;
  static const std::vector<std::pair<Prefix, SpecialBlock>> kBlocks = [] {
    std::vector<std::pair<Prefix, SpecialBlock>> blocks;
    for (const auto& [text, block] : std::initializer_list<std::pair<const char*, SpecialBlock>>{
             {"0.0.0.0/8", {"unspecified", Never}},
             {"10.0.0.0/8", {"private", IfPrivateIsAllowed}},
             {"100.64.0.0/10", {"shared (CGNAT)", IfPrivateIsAllowed}},
             {"127.0.0.0/8", {"loopback", Never}},
             {"168.63.129.16/32", {"platform", Never}},
             {"169.254.0.0/16", {"link-local", Never}},
             {"172.16.0.0/12", {"private", IfPrivateIsAllowed}},
             {"192.0.0.0/24", {"reserved", Never}},
             {"192.168.0.0/16", {"private", IfPrivateIsAllowed}},
             {"224.0.0.0/4", {"multicast", Never}},
             {"240.0.0.0/4", {"reserved", Never}},
             {"::1/128", {"loopback", Never}},
             {"::/96", {"embedded IPv4", Never}},  // :: and v4-compatible addresses
             {"64:ff9b::/96", {"embedded IPv4", Never}},
             {"64:ff9b:1::/48", {"embedded IPv4", Never}},
             {"2001::/32", {"embedded IPv4", Never}},
             {"2002::/16", {"embedded IPv4", Never}},
             {"fc00::/7", {"unique local", IfPrivateIsAllowed}},
             {"fe80::/10", {"link-local", Never}},
             {"ff00::/8", {"multicast", Never}},
         }) {
      blocks.emplace_back(*Prefix::parse(text), block);
    }
    return blocks;
  }();
  for (const auto& [prefix, block] : kBlocks) {
    if (prefix.contains(address)) return &block;
  }
  static const Prefix kGlobalUnicast = *Prefix::parse("2000::/3");
  static constexpr SpecialBlock kElsewhere{"not global unicast", Never};
  return address.is_v4() || kGlobalUnicast.contains(address) ? nullptr : &kElsewhere;
}

}  // namespace egressd::net
