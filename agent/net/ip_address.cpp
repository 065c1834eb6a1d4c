#include "net/ip_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>

namespace egressd::net {
namespace {
constexpr std::array<std::uint8_t, 12> kV4Mapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
}

IpAddress IpAddress::v4(std::uint32_t host_order) {
  in_addr a{};
  a.s_addr = htonl(host_order);
  return from(a);
}

IpAddress IpAddress::from(const in_addr& address) {
  Bytes b{};
  std::ranges::copy(kV4Mapped, b.begin());
  std::memcpy(b.data() + 12, &address.s_addr, 4);
  return IpAddress(b);
}

IpAddress IpAddress::from(const in6_addr& address) {
  Bytes b{};
  std::memcpy(b.data(), address.s6_addr, 16);
  return IpAddress(b);
}

std::optional<IpAddress> IpAddress::parse(std::string_view text) {
  char buffer[INET6_ADDRSTRLEN];
  if (text.empty() || text.size() >= sizeof(buffer)) return std::nullopt;
  std::memcpy(buffer, text.data(), text.size());
  buffer[text.size()] = '\0';
  if (std::strlen(buffer) != text.size()) return std::nullopt;  // embedded NUL
  if (in_addr a4{}; ::inet_pton(AF_INET, buffer, &a4) == 1) return from(a4);
  if (in6_addr a6{}; ::inet_pton(AF_INET6, buffer, &a6) == 1) return from(a6);
  return std::nullopt;
}

bool IpAddress::is_v4() const {
  return std::equal(kV4Mapped.begin(), kV4Mapped.end(), bytes_.begin());
}

bool IpAddress::is_loopback() const {
  if (is_v4()) return bytes_[12] == 127;
  static const IpAddress kLoopback6 = *parse("::1");
  return *this == kLoopback6;
}

std::string IpAddress::to_string() const {
  char buffer[INET6_ADDRSTRLEN];
  const bool v4 = is_v4();
  ::inet_ntop(v4 ? AF_INET : AF_INET6, bytes_.data() + (v4 ? 12 : 0), buffer, sizeof(buffer));
  return buffer;
}

}  // namespace egressd::net
