#include "cli/destination.h"

#include <charconv>
#include <optional>

#include "policy/pattern.h"

namespace egressd::cli {
namespace {

constexpr std::uint16_t kDefaultPort = 443;

template <typename T>
std::optional<T> parse_number(std::string_view text) {
  T value{};
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (ec != std::errc{} || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

bool has_ports(net::Protocol protocol) {
  using net::Protocol;
  return protocol == Protocol::Tcp || protocol == Protocol::Udp || protocol == Protocol::Sctp;
}

std::optional<net::Protocol> parse_protocol(std::string_view text, bool v6) {
  using net::Protocol;
  if (text == "tcp") return Protocol::Tcp;
  if (text == "udp") return Protocol::Udp;
  if (text == "sctp") return Protocol::Sctp;
  if (text == "icmp") return v6 ? Protocol::Icmpv6 : Protocol::Icmp;
  if (const auto number = parse_number<std::uint8_t>(text)) return static_cast<Protocol>(*number);
  return std::nullopt;
}

}  // namespace

std::string AskedDestination::to_string() const {
  const auto& d = destination;
  const bool ports = has_ports(d.protocol);
  std::string text = d.address ? d.address->to_string() : d.fqdn;
  if (ports) {
    if (d.address && !d.address->is_v4()) text = "[" + text + "]";
    text += ":" + std::to_string(d.port);
  }
  return text + "/" + net::to_string(d.protocol);
}

std::expected<AskedDestination, std::string> parse_destination(std::string_view text) {
  const auto fail = [&](const std::string& why) {
    return std::unexpected("'" + std::string(text) + "': " + why);
  };
  if (text.find("://") != std::string_view::npos)
    return fail("is a URL; write the host and port, such as example.com:443");

  std::string_view rest = text;
  std::optional<std::string_view> protocol;
  if (const auto slash = rest.find('/'); slash != std::string_view::npos) {
    protocol = rest.substr(slash + 1);
    rest = rest.substr(0, slash);
  }

  std::string_view host = rest;
  std::optional<std::string_view> port;
  if (rest.starts_with('[')) {
    const auto close = rest.find(']');
    if (close == std::string_view::npos) return fail("no ']' after the address");
    host = rest.substr(1, close - 1);
    const auto tail = rest.substr(close + 1);
    if (!tail.empty() && tail.front() != ':') return fail("expected ':PORT' after ']'");
    if (!tail.empty()) port = tail.substr(1);
    const auto address = net::IpAddress::parse(host);
    if (!address || host.find(':') == std::string_view::npos)
      return fail("no IPv6 address between the brackets");
  } else if (!net::IpAddress::parse(rest)) {
    // A bare IPv6 address is taken whole; in anything else the last colon starts the port.
    if (const auto colon = rest.rfind(':'); colon != std::string_view::npos) {
      host = rest.substr(0, colon);
      port = rest.substr(colon + 1);
      if (host.find(':') != std::string_view::npos)
        return fail("write an IPv6 address with a port as [2001:db8::1]:443");
    }
  }

  AskedDestination asked;
  auto& d = asked.destination;
  d.address = net::IpAddress::parse(host);
  if (!d.address) {
    auto name = policy::canonical_fqdn(host);
    if (!name) return fail(name.error());
    d.fqdn = std::move(*name);
  }

  const auto p = parse_protocol(protocol.value_or("tcp"), d.address && !d.address->is_v4());
  if (!p)
    return fail("unknown protocol '" + std::string(*protocol) +
                "'; use tcp, udp, sctp, icmp or a number (prefixes such as 10.0.0.0/8 cannot be "
                "asked about, single addresses can)");
  d.protocol = *p;
  if (!has_ports(*p)) {
    if (port) return fail(net::to_string(*p) + " has no ports");
    return asked;
  }
  if (!port) {
    asked.port_defaulted = true;
    d.port = kDefaultPort;
    return asked;
  }
  const auto number = parse_number<std::uint16_t>(*port);
  if (!number || *number == 0) return fail("port must be a number from 1 to 65535");
  d.port = *number;
  return asked;
}

}  // namespace egressd::cli
