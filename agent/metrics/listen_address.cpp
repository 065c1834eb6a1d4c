#include "metrics/listen_address.h"

#include <charconv>
#include <optional>

namespace egressd::metrics {
namespace {

std::optional<ListenAddress> parse_strictly(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return std::nullopt;
  std::string_view host = text.substr(0, colon);
  const std::string_view port = text.substr(colon + 1);
  const bool bracketed = host.starts_with('[') && host.ends_with(']');
  if (bracketed) host = host.substr(1, host.size() - 2);
  const auto address = net::IpAddress::parse(host);
  // Only in brackets is the last colon not one of the address.
  if (!address || bracketed != (host.find(':') != std::string_view::npos)) return std::nullopt;
  ListenAddress listen{*address, 0};
  const auto [end, error] = std::from_chars(port.begin(), port.end(), listen.port);
  if (error != std::errc{} || end != port.end()) return std::nullopt;
  return listen;
}

}  // namespace

Result<ListenAddress> ListenAddress::parse(std::string_view text) {
  if (const auto listen = parse_strictly(text)) return *listen;
  return std::unexpected(Error::of("'" + std::string(text) +
                                   "' is no ADDRESS:PORT; write 127.0.0.1:9477 or "
                                   "[::1]:9477, or off"));
}

std::string ListenAddress::to_string() const {
  const std::string host = address.to_string();
  return (address.is_v4() ? host : "[" + host + "]") + ":" + std::to_string(port);
}

}  // namespace egressd::metrics
