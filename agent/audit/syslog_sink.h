#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "audit/datagram.h"
#include "audit/format.h"
#include "audit/sink.h"

namespace egressd::audit {

// RFC 5424 messages, facility daemon, to a local socket or over UDP (RFC 5426); the text is the
// line of the log. What the socket does not take at once is lost; what UDP loses on the way nobody
// knows.
//
// The agent's own datagrams may be judged, too. A refusal of one is in no message of this sink, and
// after one over UDP failed the next is tried kHoldOff later: each would cause the next.
class SyslogSink final : public Sink {
 public:
  struct Options {
    std::shared_ptr<const Format> format = std::make_shared<JsonFormat>();
    std::string host_name;
    // For tests.
    std::function<std::chrono::steady_clock::time_point()> now = std::chrono::steady_clock::now;
  };
  static constexpr std::chrono::seconds kHoldOff{1};
  static constexpr const char* kLocal = "/dev/log";

  // `target`: "unix", "unix:/path", "ADDRESS:PORT" or "[ADDRESS]:PORT". Names are not resolved.
  static Result<std::unique_ptr<SyslogSink>> open(const std::string& target, Options options);
  ~SyslogSink() override;
  SyslogSink(const SyslogSink&) = delete;
  SyslogSink& operator=(const SyslogSink&) = delete;

  Result<void> write(const Record& record) override;
  Result<void> write(const Notice& notice) override;
  void flush() override;
  Result<void> reopen() override { return {}; }
  [[nodiscard]] std::uint64_t lost() const override { return losses_.total(); }
  [[nodiscard]] std::string name() const override { return "syslog " + target_; }

 private:
  struct Peer {
    net::IpAddress address;
    std::uint16_t port = 0;
  };
  SyslogSink(std::string target, Datagram socket, std::optional<Peer> peer, Options options);
  static std::optional<Peer> parse_peer(const std::string& target);
  [[nodiscard]] std::string message(int severity, std::chrono::system_clock::time_point time,
                                    const char* id, const std::string& line) const;
  [[nodiscard]] std::string message(const Notice& notice) const;
  bool send(const std::string& message);
  Result<void> write_message(const std::string& message, std::uint64_t records);

  std::string target_;
  Datagram socket_;
  std::optional<Peer> peer_;  // none: local
  Options options_;
  std::optional<std::chrono::steady_clock::time_point> failed_;
  Losses losses_;
};

}  // namespace egressd::audit
