#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace egressd::dns {

// A name server as a child process on 127.0.0.1 at a free unprivileged port, with a directory of
// its own. Process and directory go with the object.
class NameServer {
 public:
  NameServer(const NameServer&) = delete;
  NameServer& operator=(const NameServer&) = delete;
  virtual ~NameServer();

  // Returns when the server accepts connections. start() after stop() uses the same port.
  Result<void> start();
  void stop();
  [[nodiscard]] std::uint16_t port() const { return port_; }

 protected:
  NameServer();
  virtual void write_configuration(const std::string& path) const = 0;
  // Program and arguments.
  [[nodiscard]] virtual std::vector<std::string> command(const std::string& path) const = 0;
  [[nodiscard]] const std::string& directory() const { return directory_; }

 private:
  Result<void> launch();
  [[nodiscard]] std::string log() const;

  std::string directory_;
  std::uint16_t port_ = 0;
  pid_t pid_ = -1;
};

// knotd, authoritative for the zone "test." with the records given, and for "broken.test." whose
// file is missing (SERVFAIL).
class KnotServer final : public NameServer {
 public:
  static bool is_installed();
  explicit KnotServer(const std::string& zone_records);

 private:
  void write_configuration(const std::string& path) const override;
  [[nodiscard]] std::vector<std::string> command(const std::string& path) const override;
};

// unbound, which resolves the zone "test." by asking 127.0.0.1 at `upstream_port`.
class UnboundServer final : public NameServer {
 public:
  static bool is_installed();
  explicit UnboundServer(std::uint16_t upstream_port) : upstream_port_(upstream_port) {}

 private:
  void write_configuration(const std::string& path) const override;
  [[nodiscard]] std::vector<std::string> command(const std::string& path) const override;

  std::uint16_t upstream_port_;
};

}  // namespace egressd::dns
