#include "net/prefix.h"

#include <charconv>

namespace egressd::net {
namespace {

IpAddress masked(const IpAddress& address, int mapped_length) {
  IpAddress::Bytes b = address.bytes();
  for (int i = 0; i < 16; ++i) {
    const int keep = mapped_length - i * 8;
    if (keep >= 8) continue;
    b[static_cast<std::size_t>(i)] &=
        keep <= 0 ? std::uint8_t{0} : static_cast<std::uint8_t>(0xff << (8 - keep));
  }
  return IpAddress(b);
}

}  // namespace

std::expected<Prefix, std::string> Prefix::parse(std::string_view text) {
  const auto slash = text.find('/');
  const auto address = IpAddress::parse(text.substr(0, slash));
  if (!address)
    return std::unexpected("'" + std::string(text) +
                           "' is not an IP address or CIDR block; write it like 10.0.0.0/8 or "
                           "2001:db8::/32");
  if (slash == std::string_view::npos) return host(*address);
  const int max = address->is_v4() ? 32 : 128;
  const std::string_view digits = text.substr(slash + 1);
  int length = -1;
  const auto [end, ec] = std::from_chars(digits.data(), digits.data() + digits.size(), length);
  if (ec != std::errc{} || end != digits.data() + digits.size() || length < 0 || length > max)
    return std::unexpected("prefix length '" + std::string(digits) + "' in '" + std::string(text) +
                           "' is not a number from 0 to " + std::to_string(max));
  const Prefix prefix(masked(*address, length + 128 - max), length);
  if (prefix.address_ != *address)
    return std::unexpected("'" + std::string(text) + "' has bits set beyond its /" +
                           std::to_string(length) + "; write " + prefix.to_string() + " or " +
                           host(*address).to_string());
  return prefix;
}

Prefix Prefix::host(const IpAddress& address) { return {address, address.is_v4() ? 32 : 128}; }

bool Prefix::contains(const IpAddress& address) const {
  return address.is_v4() == address_.is_v4() && masked(address, mapped_length()) == address_;
}

bool Prefix::contains(const Prefix& other) const {
  return other.length_ >= length_ && contains(other.address_);
}

Prefix Prefix::widened(int length) const {
  return {masked(address_, length + mapped_length() - length_), length};
}

std::string Prefix::to_string() const {
  return address_.to_string() + "/" + std::to_string(length_);
}

}  // namespace egressd::net
