#include "enforce/cgroup.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/vfs.h>

#include <cstring>
#include <fstream>
#include <sstream>

namespace egressd::enforce {
namespace {

// mountinfo writes space, tab, newline and backslash as \ooo (proc(5)).
std::string unescape(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      out += static_cast<char>(std::stoi(text.substr(i + 1, 3), nullptr, 8));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

}  // namespace

Result<std::string> find_cgroup2_mount(const std::string& mountinfo) {
  std::ifstream in(mountinfo);
  if (!in) return std::unexpected(Error::from_errno("open " + mountinfo));
  std::string best;
  for (std::string line; std::getline(in, line);) {
    // ID PARENT MAJ:MIN ROOT MOUNTPOINT OPTIONS… - FSTYPE SOURCE SUPEROPTIONS
    const auto dash = line.find(" - ");
    if (dash == std::string::npos || line.compare(dash + 3, 8, "cgroup2 ") != 0) continue;
    std::istringstream fields(line);
    std::string id, parent, device, root, mountpoint;
    fields >> id >> parent >> device >> root >> mountpoint;
    mountpoint = unescape(mountpoint);
    if (best.empty() || mountpoint.size() < best.size()) best = mountpoint;
  }
  if (best.empty())
    return std::unexpected(Error::of("no cgroup v2 hierarchy is mounted (" + mountinfo +
                                     "); mount one with: mount -t cgroup2 none /sys/fs/cgroup"));
  return best;
}

Result<std::uint64_t> cgroup_id(const std::string& path) {
  struct statfs fs{};
  if (::statfs(path.c_str(), &fs) != 0) return std::unexpected(Error::from_errno(path));
  if (fs.f_type != CGROUP2_SUPER_MAGIC)
    return std::unexpected(Error::of(path + " is not a cgroup v2 directory"));
  // kernfs puts the 64-bit id into the file handle.
  alignas(file_handle) char buffer[sizeof(file_handle) + sizeof(std::uint64_t)] = {};
  auto* handle = reinterpret_cast<file_handle*>(buffer);
  handle->handle_bytes = sizeof(std::uint64_t);
  int mount_id = 0;
  if (::name_to_handle_at(AT_FDCWD, path.c_str(), handle, &mount_id, 0) != 0)
    return std::unexpected(Error::from_errno("name_to_handle_at " + path));
  std::uint64_t id = 0;
  std::memcpy(&id, handle->f_handle, sizeof(id));
  return id;
}

}  // namespace egressd::enforce
