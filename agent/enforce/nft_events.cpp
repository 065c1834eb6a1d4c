#include "enforce/nft_events.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <sys/socket.h>

#include <array>
#include <charconv>
#include <cstring>
#include <string_view>

namespace egressd::enforce {
namespace {

constexpr std::string_view kPrefix = "egressd:";
constexpr int kMaxExtensions = 6;
constexpr std::size_t kV4Offset = 12;

bool has_ports(int protocol) {
  return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE ||
         protocol == IPPROTO_SCTP || protocol == IPPROTO_DCCP;
}

// "VERDICT:REASON:RULE:GENERATION:", an empty RULE being none.
bool read_prefix(std::string_view text, egressd_event& event) {
  std::array<std::uint32_t, 4> numbers{0, 0, EGRESSD_NO_RULE, 0};
  for (std::uint32_t& number : numbers) {
    const auto colon = text.find(':');
    if (colon == std::string_view::npos) return false;
    const std::string_view word = text.substr(0, colon);
    text.remove_prefix(colon + 1);
    if (word.empty() && &number == &numbers[2]) continue;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
    if (error != std::errc() || end != word.data() + word.size()) return false;
  }
  event.verdict = static_cast<std::uint8_t>(numbers[0]);
  event.reason = numbers[1];
  event.rule_id = numbers[2];
  event.generation = numbers[3];
  return true;
}

void put_v4(egressd_addr& to, const in_addr& from) {
  to.addr[10] = to.addr[11] = 0xff;
  std::memcpy(to.addr + kV4Offset, &from, sizeof(from));
}

}  // namespace

std::optional<egressd_event> event_of(const nft::Nflog::Packet& packet, BootTime now) {
  egressd_event event{};
  if (!packet.prefix.starts_with(kPrefix) ||
      !read_prefix(packet.prefix.substr(kPrefix.size()), event))
    return std::nullopt;
  event.time_ns = static_cast<std::uint64_t>(now.count());
  event.hook = EGRESSD_HOOK_PACKET;
  event.uid = packet.uid;
  event.length = packet.length;

  const auto& bytes = packet.payload;
  std::size_t at = 0;
  int protocol = 0;
  if (bytes.size() >= sizeof(iphdr) && bytes[0] >> 4 == 4) {
    iphdr ip{};
    std::memcpy(&ip, bytes.data(), sizeof(ip));
    event.family = AF_INET;
    put_v4(event.saddr, in_addr{ip.saddr});
    put_v4(event.daddr, in_addr{ip.daddr});
    event.length = ntohs(ip.tot_len);
    protocol = ip.protocol;
    at = std::size_t{4} * ip.ihl;
    // No ports where there is no whole header, or none of the first fragment.
    if (at < sizeof(ip) || (ntohs(ip.frag_off) & IP_OFFMASK) != 0) at = bytes.size();
  } else if (bytes.size() >= sizeof(ip6_hdr) && bytes[0] >> 4 == 6) {
    ip6_hdr ip{};
    std::memcpy(&ip, bytes.data(), sizeof(ip));
    event.family = AF_INET6;
    std::memcpy(event.saddr.addr, &ip.ip6_src, sizeof(ip.ip6_src));
    std::memcpy(event.daddr.addr, &ip.ip6_dst, sizeof(ip.ip6_dst));
    event.length = static_cast<std::uint32_t>(ntohs(ip.ip6_plen) + sizeof(ip));
    protocol = ip.ip6_nxt;
    at = sizeof(ip);
    for (int i = 0; i < kMaxExtensions && at + 2 <= bytes.size() &&
                    (protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_DSTOPTS ||
                     protocol == IPPROTO_ROUTING);
         ++i) {
      protocol = bytes[at];
      at += (bytes[at + 1] + std::size_t{1}) * 8;
    }
  }
  event.proto = static_cast<std::uint8_t>(protocol);
  if (has_ports(protocol) && at + 4 <= bytes.size()) {
    std::memcpy(&event.sport, &bytes[at], sizeof(event.sport));
    std::memcpy(&event.dport, &bytes[at + 2], sizeof(event.dport));
  }
  return event;
}

}  // namespace egressd::enforce
