#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "bpf/egressd_abi.h"
#include "net/ip_address.h"

namespace egressd::enforce {

// What the kernel last said of one of a process's sockets.
struct SocketVerdict {
  net::IpAddress destination;
  std::uint16_t port = 0;  // host byte order
  std::uint8_t protocol = 0;
  bool inbound = false;          // the other side opened it
  std::uint32_t generation = 0;  // 0: no verdict holds at the moment; the next packet is judged
  std::uint32_t reason = 0;      // enum egressd_reason
  std::uint32_t would_deny = 0;  // likewise, or 0

  auto operator<=>(const SocketVerdict&) const = default;
};

// Of the sockets of process `pid` that the programs pinned below `bpffs_dir` have judged, sorted.
// Needs leave to trace the process (pidfd_getfd(2)), and no agent. An error also if there is no
// such process.
Result<std::vector<SocketVerdict>> sockets_of(int pid, const std::string& bpffs_dir);

}  // namespace egressd::enforce
