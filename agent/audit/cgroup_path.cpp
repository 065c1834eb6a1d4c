#include "audit/cgroup_path.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <array>
#include <cstring>
#include <deque>
#include <fstream>
#include <memory>
#include <sstream>

namespace egressd::audit {
namespace {

// enum fid_type in include/linux/exportfs.h, which is not a UAPI header; the value is part of
// what name_to_handle_at() hands to user space and cannot change.
constexpr int kFileIdKernfs = 0xfe;

struct CloseDir {
  void operator()(DIR* dir) const { ::closedir(dir); }
};
using Dir = std::unique_ptr<DIR, CloseDir>;

bool is_deleted(int fd) {
  struct stat st{};
  return ::fstat(fd, &st) != 0 || st.st_nlink == 0;
}

// mountinfo writes space, tab, newline and backslash as \ooo.
std::string unescape(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      int value = 0;
      for (std::size_t k = 1; k <= 3; ++k) value = value * 8 + (text[i + k] - '0');
      out.push_back(static_cast<char>(value));
      i += 3;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

}  // namespace

CgroupPaths::CgroupPaths(std::string mount) : mount_(std::move(mount)) {
  while (mount_.size() > 1 && mount_.back() == '/') mount_.pop_back();
  mount_fd_.reset(::open(mount_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

std::optional<std::string> CgroupPaths::find(std::uint64_t id) {
  if (id == 0 || !mount_fd_) return std::nullopt;
  if (const auto it = index_.find(id); it != index_.end()) {
    recent_.splice(recent_.begin(), recent_, it->second);
    return it->second->second;
  }
  bool not_permitted = false;
  auto path = by_handle(id, not_permitted);
  if (!path && not_permitted) path = by_walk(id);
  if (!path) return std::nullopt;

  if (recent_.size() >= kMaxCached) {
    index_.erase(recent_.back().first);
    recent_.pop_back();
  }
  recent_.emplace_front(id, *path);
  index_[id] = recent_.begin();
  return path;
}

std::optional<std::string> CgroupPaths::by_handle(std::uint64_t id, bool& not_permitted) const {
  // file_handle ends in a flexible array, which C++ has no word for: the bytes are laid out by
  // hand.
  alignas(file_handle) std::array<unsigned char, sizeof(file_handle) + sizeof(id)> storage{};
  auto* handle = reinterpret_cast<file_handle*>(storage.data());
  handle->handle_bytes = sizeof(id);
  handle->handle_type = kFileIdKernfs;
  std::memcpy(storage.data() + offsetof(file_handle, f_handle), &id, sizeof(id));

  const UniqueFd fd(::open_by_handle_at(mount_fd_.get(), handle, O_PATH | O_CLOEXEC));
  if (!fd) {
    // ESTALE is the honest "gone"; anything about permission or support means: look differently.
    not_permitted = errno == EPERM || errno == EACCES || errno == EOPNOTSUPP || errno == ENOSYS;
    return std::nullopt;
  }
  if (is_deleted(fd.get())) return std::nullopt;

  std::array<char, 4096> link{};
  const auto self = "/proc/self/fd/" + std::to_string(fd.get());
  const auto n = ::readlink(self.c_str(), link.data(), link.size());
  if (n <= 0 || static_cast<std::size_t>(n) == link.size()) return std::nullopt;
  std::string path(link.data(), static_cast<std::size_t>(n));
  if (path == mount_) return "/";
  // Outside the mount: a cgroup above the root of this cgroup namespace.
  if (!path.starts_with(mount_ == "/" ? "/" : mount_ + "/")) return std::nullopt;
  return mount_ == "/" ? path : path.substr(mount_.size());
}

std::optional<std::string> CgroupPaths::by_walk(std::uint64_t id) const {
  std::deque<std::string> pending{""};
  std::size_t visited = 0;
  while (!pending.empty() && visited++ < kMaxWalk) {
    const std::string path = std::move(pending.front());
    pending.pop_front();
    const std::string full = mount_ + path;
    struct stat st{};
    if (::lstat(full.c_str(), &st) != 0) continue;
    if (st.st_ino == id) return path.empty() ? "/" : path;
    const Dir dir(::opendir(full.c_str()));
    if (!dir) continue;
    while (const dirent* entry = ::readdir(dir.get())) {
      const std::string_view name = entry->d_name;
      if (entry->d_type == DT_DIR && name != "." && name != "..")
        pending.push_back(path + "/" + entry->d_name);
    }
  }
  return std::nullopt;
}

std::string cgroup2_mount() {
  std::ifstream in("/proc/self/mountinfo");
  for (std::string line; std::getline(in, line);) {
    const auto separator = line.find(" - ");
    if (separator == std::string::npos) continue;
    std::istringstream tail(line.substr(separator + 3));
    std::string type;
    tail >> type;
    if (type != "cgroup2") continue;
    std::istringstream head(line);
    std::string id, parent, device, root, mount;
    head >> id >> parent >> device >> root >> mount;
    return unescape(mount);
  }
  return {};
}

}  // namespace egressd::audit
