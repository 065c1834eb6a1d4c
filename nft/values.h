#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "net/endpoint.h"
#include "net/ip_address.h"

namespace egressd::nft {

// What is made here is in this table, `table inet egressd`, unless another one is named. It has no
// owner, so that it outlives whoever made it.
inline constexpr const char* kTable = "egressd";

// What a set is keyed by. Addresses, protocols and ports are in network byte order.
enum class Key : std::uint8_t {
  Ipv4,       // ipv4_addr
  Ipv6,       // ipv6_addr
  Flow4,      // ipv4_addr . inet_proto . inet_service: destination, protocol, destination port
  Flow6,      // ipv6_addr . inet_proto . inet_service
  Protocol,   // inet_proto
  Port,       // inet_service
  Mark,       // mark: a number in host byte order
  Interface,  // ifname: its name, 16 bytes, filled up with zeros
  Family,     // nf_proto: one byte, NFPROTO_IPV4 or NFPROTO_IPV6
};

std::size_t key_length(Key key);  // bytes; each part of a concatenation takes a multiple of four
// "203.0.113.5 . tcp . 443"
std::string to_string(Key key, std::span<const std::uint8_t> bytes);

struct Set {
  std::string name;
  Key key = Key::Ipv4;
  // Elements are where a range begins (or ends, Element::end): ordered, thus slow to change. What
  // changes often belongs into a set without.
  bool interval = false;
  bool timeout = false;   // elements may end by themselves
  bool verdicts = false;  // a map to chains
  // Elements it holds at most; 0: no limit. Declared, the kernel makes room at once: loading is
  // several times faster.
  std::uint32_t size = 0;
};

// A key, encoded. Small and without memory of its own: a million are made in a row.
class KeyBytes {
 public:
  static KeyBytes of(const net::IpAddress& address);  // 4 or 16 bytes, by the family
  static KeyBytes of(const net::IpAddress& address, net::Protocol protocol, std::uint16_t port);
  static KeyBytes of(net::Protocol protocol);
  static KeyBytes port(std::uint16_t port);
  static KeyBytes family(bool v4);
  static KeyBytes mark(std::uint32_t value);
  static KeyBytes interface(std::string_view name);  // at most 15 bytes count

  [[nodiscard]] std::span<const std::uint8_t> bytes() const { return {bytes_.data(), length_}; }

 private:
  void put(const void* data, std::size_t length) {
    std::memcpy(bytes_.data() + length_, data, length);
    length_ += (length + 3) / 4 * 4;
  }

  std::array<std::uint8_t, 24> bytes_{};
  std::size_t length_ = 0;
};

// The address a key of that kind begins with.
net::IpAddress address_of(Key key, std::span<const std::uint8_t> bytes);

// What is pointed to is read when it is added to a batch, not later.
struct Element {
  std::span<const std::uint8_t> key = {};
  bool end = false;                             // of an interval: the first key behind it
  std::chrono::milliseconds timeout{0};         // 0: stays
  std::string_view chain = {};                  // of a map to chains: where it goes to
  std::span<const std::uint8_t> userdata = {};  // at most kUserDataMax bytes
};

// User data in the form other tools skip: one attribute of a type they do not know.
inline constexpr std::uint8_t kUserDataType = 0x65;
inline constexpr std::size_t kUserDataMax = 253;  // bytes of content

struct Chain {
  // BeforeNat: prerouting, in front of NAT of destinations; the others are behind it.
  enum class Hook : std::uint8_t { None, Output, Forward, BeforeNat };
  std::string name;
  Hook hook = Hook::None;  // None: reached from other chains only
  bool drop = false;       // of a hook: what no rule decides is dropped
};

// Packets and bytes of a named counter.
struct CounterValue {
  std::uint64_t packets = 0;
  std::uint64_t bytes = 0;
};

}  // namespace egressd::nft
