#pragma once

#include <arpa/inet.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace egressd::test {

// A UDP or TCP packet from its IP header on, as cgroup_skb programs see it. Numbers are host order;
// checksums are left out, nobody on the way to the programs looks at them.
struct DnsPacket {
  std::string from;  // both IPv4 or both IPv6
  std::string to;
  std::uint16_t sport = 0;
  std::uint16_t dport = 0;
  std::uint8_t protocol = 17;
  std::vector<std::uint8_t> payload = {};
  // TCP
  std::uint32_t sequence = 0;
  std::uint32_t acknowledged = 0;
  std::uint8_t flags = 0x18;  // PSH, ACK
  // What is wrong with it
  int udp_length_off = 0;                    // added to the right UDP length
  std::uint16_t fragment = 0;                // IPv4: flags and offset
  std::vector<std::uint8_t> extension = {};  // IPv6: one header, its first byte is filled in
  std::uint8_t extension_type = 60;
  std::uint8_t tcp_words = 5;  // what the TCP header says of its length

  [[nodiscard]] std::vector<std::uint8_t> bytes() const {
    std::vector<std::uint8_t> p;
    const auto u16 = [&](std::size_t v) {
      p.push_back(static_cast<std::uint8_t>(v >> 8));
      p.push_back(static_cast<std::uint8_t>(v & 0xff));
    };
    const auto u32 = [&](std::uint32_t v) {
      u16(v >> 16);
      u16(v & 0xffff);
    };
    const std::size_t body = (protocol == 6 ? 20 : 8) + payload.size();
    std::uint8_t address[16];
    if (from.find(':') == std::string::npos) {
      p = {0x45, 0};
      u16(20 + body);
      u16(1);
      u16(fragment);
      p.push_back(64);
      p.push_back(protocol);
      u16(0);
      for (const auto& text : {from, to}) {
        ::inet_pton(AF_INET, text.c_str(), address);
        p.insert(p.end(), address, address + 4);
      }
    } else {
      p = {0x60, 0, 0, 0};
      u16(extension.size() + body);
      p.push_back(extension.empty() ? protocol : extension_type);
      p.push_back(64);
      for (const auto& text : {from, to}) {
        ::inet_pton(AF_INET6, text.c_str(), address);
        p.insert(p.end(), address, address + 16);
      }
      p.insert(p.end(), extension.begin(), extension.end());
      if (!extension.empty()) {
        p[40] = protocol;
      }
    }
    u16(sport);
    u16(dport);
    if (protocol == 6) {
      u32(sequence);
      u32(acknowledged);
      p.push_back(static_cast<std::uint8_t>(tcp_words << 4));
      p.push_back(flags);
      u16(65535);
      u32(0);
    } else {
      u16(static_cast<std::size_t>(static_cast<std::ptrdiff_t>(body) + udp_length_off));
      u16(0);
    }
    p.insert(p.end(), payload.begin(), payload.end());
    return p;
  }
};

}  // namespace egressd::test
