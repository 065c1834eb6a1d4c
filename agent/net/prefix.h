#pragma once

#include <compare>
#include <expected>
#include <string>
#include <string_view>

#include "net/ip_address.h"

namespace egressd::net {

// A CIDR block. The address has no bits set beyond the length (checked on parse), and the length
// counts in the family's own terms: 0..32 for IPv4, 0..128 for IPv6.
class Prefix {
 public:
  // "10.0.0.0/8", "2001:db8::/32", or a bare address (full length). On failure the error says
  // what is wrong and, where there is one, what was probably meant ("10.1.2.0/24").
  static std::expected<Prefix, std::string> parse(std::string_view text);
  static Prefix host(const IpAddress& address);

  [[nodiscard]] const IpAddress& address() const { return address_; }
  [[nodiscard]] int length() const { return length_; }
  // Length in the 16-byte v4-mapped form: 96 + length() for IPv4.
  [[nodiscard]] int mapped_length() const { return address_.is_v4() ? 96 + length_ : length_; }
  [[nodiscard]] bool is_host() const { return mapped_length() == 128; }
  // An IPv4 address is never inside an IPv6 prefix, not even ::/0: families are kept apart.
  [[nodiscard]] bool contains(const IpAddress& address) const;
  [[nodiscard]] bool contains(const Prefix& other) const;
  // The prefix of the given length around this one; `length` must not exceed length().
  [[nodiscard]] Prefix widened(int length) const;
  [[nodiscard]] std::string to_string() const;  // always with /length

  auto operator<=>(const Prefix&) const = default;

 private:
  Prefix(const IpAddress& address, int length) : address_(address), length_(length) {}

  IpAddress address_;
  int length_ = 128;
};

}  // namespace egressd::net
