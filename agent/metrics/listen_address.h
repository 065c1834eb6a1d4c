#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "net/ip_address.h"

namespace egressd::metrics {

struct ListenAddress {
  net::IpAddress address;
  std::uint16_t port = 0;  // host byte order; 0: any that is free

  // "127.0.0.1:9477", "[::1]:9477": an address, never a name.
  static Result<ListenAddress> parse(std::string_view text);
  [[nodiscard]] std::string to_string() const;
};

}  // namespace egressd::metrics
