#include "audit/syslog_sink.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>

namespace egressd::audit {
namespace {

constexpr int kDaemon = 3;  // facility
constexpr int kWarning = 4;
constexpr int kNotice = 5;

// HOSTNAME of RFC 5424: 255 printable characters at most, "-" for none.
std::string host_field(std::string name) {
  std::erase_if(name, [](char c) { return c <= ' ' || c > '~'; });
  name.resize(std::min<std::size_t>(name.size(), 255));
  return name.empty() ? "-" : name;
}

}  // namespace

std::optional<SyslogSink::Peer> SyslogSink::parse_peer(const std::string& target) {
  const auto colon = target.rfind(':');
  if (colon == std::string::npos) return std::nullopt;
  auto host = target.substr(0, colon);
  const bool brackets = host.size() > 2 && host.starts_with('[') && host.ends_with(']');
  if (brackets) host = host.substr(1, host.size() - 2);
  const auto address = net::IpAddress::parse(host);
  Peer peer;
  const auto* end = target.data() + target.size();
  const auto [read, ec] = std::from_chars(target.data() + colon + 1, end, peer.port);
  // Without brackets the last group of an IPv6 address could be meant.
  if (!address || (!brackets && host.contains(':')) || ec != std::errc{} || read != end ||
      peer.port == 0)
    return std::nullopt;
  peer.address = *address;
  return peer;
}

Result<std::unique_ptr<SyslogSink>> SyslogSink::open(const std::string& target, Options options) {
  options.host_name = host_field(std::move(options.host_name));
  const auto make = [&](Result<Datagram> socket, std::optional<Peer> peer) {
    return std::unique_ptr<SyslogSink>(
        new SyslogSink(target, std::move(*socket), peer, std::move(options)));
  };
  constexpr std::string_view kUnix = "unix:";
  if (target == "unix" || target.starts_with(kUnix)) {
    auto socket = Datagram::to_path(target == "unix" ? kLocal : target.substr(kUnix.size()));
    if (!socket) return std::unexpected(std::move(socket.error()));
    return make(std::move(*socket), std::nullopt);
  }
  const auto peer = parse_peer(target);
  if (!peer)
    return std::unexpected(Error::of(
        "'" + target +
        "' is not where syslog can go: unix, unix:/path, 192.0.2.1:514 or [2001:db8::1]:514 "
        "(an address, not a name)"));
  auto socket = Datagram::to_udp(peer->address, peer->port);
  if (!socket) return std::unexpected(std::move(socket.error()));
  return make(std::move(*socket), peer);
}

SyslogSink::SyslogSink(std::string target, Datagram socket, std::optional<Peer> peer,
                       Options options)
    : target_(std::move(target)),
      socket_(std::move(socket)),
      peer_(peer),
      options_(std::move(options)) {}

SyslogSink::~SyslogSink() { flush(); }

std::string SyslogSink::message(int severity, std::chrono::system_clock::time_point time,
                                const char* id, const std::string& line) const {
  return "<" + std::to_string(kDaemon * 8 + severity) + ">1 " + format_time(time) + " " +
         options_.host_name + " egressd " + std::to_string(::getpid()) + " " + id + " - " + line;
}

std::string SyslogSink::message(const Notice& notice) const {
  return message(notice.event == Notice::Event::DnsQuestion ? kNotice : kWarning, notice.time,
                 notice.event_name(), options_.format->line(notice));
}

bool SyslogSink::send(const std::string& message) {
  if (failed_ && options_.now() - *failed_ < kHoldOff) {
    errno = EAGAIN;
    return false;
  }
  failed_.reset();
  if (socket_.send(message)) return true;
  if (peer_) failed_ = options_.now();
  return false;
}

Result<void> SyslogSink::write(const Record& record) {
  if (peer_ && record.pid == static_cast<std::uint32_t>(::getpid()) &&
      record.destination == peer_->address && record.port == peer_->port)
    return {};
  return write_message(
      message(record.denied ? kWarning : kNotice, record.time,
              record.denied ? "denied" : "would_deny", options_.format->line(record)),
      1);
}

Result<void> SyslogSink::write(const Notice& notice) {
  return write_message(message(notice), notice.weight());
}

Result<void> SyslogSink::write_message(const std::string& message, std::uint64_t records) {
  flush();
  // Behind a gap that is not noted yet nothing is written, or it would seem to be later.
  if (!losses_.pending() && send(message)) return {};
  auto first = losses_.once(Error::from_errno("write to " + name()));
  losses_.add(records);
  return first;
}

void SyslogSink::flush() {
  if (losses_.pending() && send(message(losses_.gap()))) losses_.noted();
}

}  // namespace egressd::audit
