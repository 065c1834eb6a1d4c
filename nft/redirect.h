#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "net/ip_address.h"

struct mnl_socket;

namespace egressd::nft {

// Sends what processes of this network namespace say to port 53 of some servers to ports on
// loopback instead. In a table of its own with the owner flag (Linux 5.12): it belongs to this
// object's netlink socket, nobody else can change it, and the kernel takes it away when the socket
// is closed, however the process ends. Only new flows are sent there: a TCP connection or a UDP
// flow that conntrack knows goes on where it went.
class Redirect {
 public:
  struct Way {
    net::IpAddress server;
    std::uint16_t udp = 0;  // port on 127.0.0.1 or ::1, host byte order
    std::uint16_t tcp = 0;
    bool operator==(const Way&) const = default;
  };
  struct Cgroup {
    std::uint32_t level = 0;  // of the mount: 0 is the root
    std::uint64_t id = 0;
    bool operator==(const Cgroup&) const = default;
  };
  struct What {
    std::vector<Way> ways;
    std::optional<Cgroup> cgroup;  // processes in or below it; absent: all
    // Sockets of this user with this mark (SO_MARK) are left alone.
    std::uint32_t mark = 0;
    std::uint32_t uid = 0;
    bool operator==(const What&) const = default;
  };

  // The table's name is unique in the namespace: `name` and the number of this process.
  static Result<std::unique_ptr<Redirect>> open(const std::string& name);
  ~Redirect();
  Redirect(const Redirect&) = delete;
  Redirect& operator=(const Redirect&) = delete;

  // In force as a whole when it returns; on error, what was before is. Whatever was in force
  // before is replaced.
  Result<void> set(const What& what);

 private:
  struct Close {
    void operator()(mnl_socket* socket) const;
  };
  Redirect(mnl_socket* socket, std::string table) : socket_(socket), table_(std::move(table)) {}

  std::unique_ptr<mnl_socket, Close> socket_;
  std::string table_;
  bool there_ = false;
  std::uint32_t sequence_ = 1;
};

}  // namespace egressd::nft
