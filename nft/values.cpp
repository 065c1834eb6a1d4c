#include "nft/values.h"

#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <netinet/in.h>

#include <algorithm>

namespace egressd::nft {
namespace {

constexpr std::size_t kV4 = 4;
constexpr std::size_t kV6 = 16;
constexpr std::size_t kInterface = 16;  // IFNAMSIZ
constexpr std::size_t kV4Offset = 12;   // within the v4-mapped form

}  // namespace

std::size_t key_length(Key key) {
  switch (key) {
    case Key::Ipv6:
      return kV6;
    case Key::Interface:
      return kInterface;
    case Key::Flow4:
      return kV4 + 8;
    case Key::Flow6:
      return kV6 + 8;
    case Key::Protocol:
    case Key::Family:
      return 1;
    case Key::Port:
      return 2;
    case Key::Ipv4:
    case Key::Mark:
      break;
  }
  return 4;
}

net::IpAddress address_of(Key key, std::span<const std::uint8_t> bytes) {
  if (key == Key::Ipv6 || key == Key::Flow6) {
    in6_addr address{};
    std::memcpy(&address, bytes.data(), std::min(bytes.size(), kV6));
    return net::IpAddress::from(address);
  }
  in_addr address{};
  std::memcpy(&address, bytes.data(), std::min(bytes.size(), kV4));
  return net::IpAddress::from(address);
}

std::string to_string(Key key, std::span<const std::uint8_t> bytes) {
  if (bytes.size() < key_length(key)) return "(no key)";
  const auto port_at = [&](std::size_t at) { return (bytes[at] << 8) | bytes[at + 1]; };
  switch (key) {
    case Key::Ipv4:
    case Key::Ipv6:
      return address_of(key, bytes).to_string();
    case Key::Flow4:
    case Key::Flow6: {
      const std::size_t at = key_length(key) - 8;
      return address_of(key, bytes).to_string() + " . " + net::to_string(net::Protocol{bytes[at]}) +
             " . " + std::to_string(port_at(at + 4));
    }
    case Key::Protocol:
      return net::to_string(net::Protocol{bytes[0]});
    case Key::Port:
      return std::to_string(port_at(0));
    case Key::Interface:
      return {bytes.begin(), std::ranges::find(bytes.first(kInterface), 0)};
    case Key::Family:
      return bytes[0] == NFPROTO_IPV4 ? "ipv4" : "ipv6";
    case Key::Mark:
      break;
  }
  std::uint32_t value = 0;
  std::memcpy(&value, bytes.data(), sizeof(value));
  return std::to_string(value);
}

KeyBytes KeyBytes::of(const net::IpAddress& address) {
  KeyBytes key;
  if (address.is_v4())
    key.put(address.bytes().data() + kV4Offset, kV4);
  else
    key.put(address.bytes().data(), kV6);
  return key;
}

KeyBytes KeyBytes::of(const net::IpAddress& address, net::Protocol protocol, std::uint16_t port) {
  KeyBytes key = of(address);
  const auto number = static_cast<std::uint8_t>(protocol);
  const std::uint16_t network = htons(port);
  key.put(&number, sizeof(number));
  key.put(&network, sizeof(network));
  return key;
}

KeyBytes KeyBytes::of(net::Protocol protocol) {
  KeyBytes key;
  const auto number = static_cast<std::uint8_t>(protocol);
  key.put(&number, sizeof(number));
  key.length_ = sizeof(number);
  return key;
}

KeyBytes KeyBytes::port(std::uint16_t port) {
  KeyBytes key;
  const std::uint16_t network = htons(port);
  key.put(&network, sizeof(network));
  key.length_ = sizeof(network);
  return key;
}

KeyBytes KeyBytes::interface(std::string_view name) {
  std::array<char, kInterface> filled{};
  std::ranges::copy(name.substr(0, kInterface - 1), filled.begin());
  KeyBytes key;
  key.put(filled.data(), filled.size());
  return key;
}

KeyBytes KeyBytes::family(bool v4) {
  KeyBytes key;
  const std::uint8_t number = v4 ? NFPROTO_IPV4 : NFPROTO_IPV6;
  key.put(&number, sizeof(number));
  key.length_ = sizeof(number);
  return key;
}

KeyBytes KeyBytes::mark(std::uint32_t value) {
  KeyBytes key;
  key.put(&value, sizeof(value));
  return key;
}

}  // namespace egressd::nft
