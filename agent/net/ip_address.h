#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

struct in_addr;
struct in6_addr;

namespace egressd::net {

// An IPv4 or IPv6 address as 16 bytes in network order, IPv4 in its v4-mapped form
// ::ffff:a.b.c.d (RFC 4291 2.5.5.2). This is the form of every address key in bpf/egressd_abi.h,
// so that an address has one verdict however the socket was opened.
class IpAddress {
 public:
  using Bytes = std::array<std::uint8_t, 16>;

  IpAddress() = default;  // ::
  explicit IpAddress(const Bytes& bytes) : bytes_(bytes) {}
  static IpAddress v4(std::uint32_t host_order);
  static IpAddress from(const in_addr& address);
  static IpAddress from(const in6_addr& address);

  // Strict textual form (inet_pton): no leading zeros, no ports, no brackets, no zone.
  static std::optional<IpAddress> parse(std::string_view text);

  [[nodiscard]] const Bytes& bytes() const { return bytes_; }
  [[nodiscard]] bool is_v4() const;
  [[nodiscard]] bool is_loopback() const;
  // "10.0.0.1" for IPv4 (mapped included), RFC 5952 for IPv6.
  [[nodiscard]] std::string to_string() const;

  auto operator<=>(const IpAddress&) const = default;

 private:
  Bytes bytes_{};
};

}  // namespace egressd::net

template <>
struct std::hash<egressd::net::IpAddress> {
  std::size_t operator()(const egressd::net::IpAddress& a) const noexcept {
    const auto& b = a.bytes();
    return std::hash<std::string_view>{}({reinterpret_cast<const char*>(b.data()), b.size()});
  }
};
