#include "enforce/process_sockets.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "enforce/pins.h"

namespace egressd::enforce {
namespace {

namespace fs = std::filesystem;

// Neither has a wrapper in glibc 2.35 and before.
int pidfd_open(int pid) { return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)); }
int pidfd_getfd(int pidfd, int fd) {
  return static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd, fd, 0));
}

SocketVerdict to_verdict(const egressd_sock& value) {
  net::IpAddress::Bytes bytes{};
  std::ranges::copy(value.daddr.addr, bytes.begin());
  return {.destination = net::IpAddress(bytes),
          .port = ntohs(value.dport),
          .protocol = value.proto,
          .inbound = value.inbound != 0,
          .generation = value.generation,
          .reason = value.reason,
          .would_deny = value.would_deny};
}

}  // namespace

Result<std::vector<SocketVerdict>> sockets_of(int pid, const std::string& bpffs_dir) {
  const auto maps = maps_of_other_versions(bpffs_dir, "", "egressd_socks");
  if (maps.empty())
    return std::unexpected(Error::of("nothing of egressd is pinned in " + bpffs_dir +
                                     ": nothing is enforced from there, or --bpffs is another"));
  const UniqueFd process(pidfd_open(pid));
  if (!process) return std::unexpected(Error::from_errno("process " + std::to_string(pid)));
  std::error_code ec;
  std::vector<SocketVerdict> all;
  const fs::path dir = "/proc/" + std::to_string(pid) + "/fd";
  for (auto it = fs::directory_iterator(dir, ec); !ec && it != fs::directory_iterator();
       it.increment(ec)) {
    std::error_code gone;
    if (!fs::read_symlink(it->path(), gone).string().starts_with("socket:")) continue;
    const std::string name = it->path().filename();
    int number = -1;
    std::from_chars(name.data(), name.data() + name.size(), number);
    const UniqueFd socket(pidfd_getfd(process.get(), number));
    if (!socket) {
      if (errno == EBADF) continue;  // closed meanwhile
      return std::unexpected(Error::from_errno("sockets of process " + std::to_string(pid)));
    }
    for (const UniqueFd& map : maps) {
      const int key = socket.get();
      egressd_sock value{};
      if (::bpf_map_lookup_elem(map.get(), &key, &value) == 0 && value.proto != 0)
        all.push_back(to_verdict(value));
    }
  }
  if (ec)
    return std::unexpected(
        Error{ec.value(), "sockets of process " + std::to_string(pid) + ": " + ec.message()});
  std::ranges::sort(all);
  return all;
}

}  // namespace egressd::enforce
