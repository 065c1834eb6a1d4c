#include "enforce/pins.h"

#include <bpf/bpf.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <sstream>

#ifndef BPF_FS_MAGIC
#define BPF_FS_MAGIC 0xcafe4a11
#endif

namespace egressd::enforce {
namespace {

namespace fs = std::filesystem;

bool on_bpffs(const fs::path& path) {
  struct statfs s{};
  return ::statfs(path.c_str(), &s) == 0 && static_cast<unsigned long>(s.f_type) == BPF_FS_MAGIC;
}

Result<void> make_directories(const fs::path& dir) {
  std::error_code ec;
  const bool made = fs::create_directories(dir, ec);
  if (ec) return std::unexpected(Error{ec.value(), "create " + dir.string() + ": " + ec.message()});
  // Who can open it can hold the lock against us.
  if (made && ::chmod(dir.c_str(), 0700) != 0)
    return std::unexpected(Error::from_errno("set mode of " + dir.string()));
  return {};
}

Result<void> mount_bpffs(const fs::path& dir) {
  if (::mount("bpf", dir.c_str(), "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") != 0)
    return std::unexpected(Error::from_errno("mount a BPF file system on " + dir.string()));
  return {};
}

std::vector<fs::path> entries(const fs::path& dir) {
  std::vector<fs::path> found;
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(dir, ec)) found.push_back(entry.path());
  std::ranges::sort(found);
  return found;
}

// `dir` may be shared with other programs, /sys/fs/bpf itself for one.
std::vector<fs::path> versions(const std::string& dir) {
  auto found = entries(dir);
  std::erase_if(found, [](const fs::path& path) {
    const std::string name = path.filename();
    return name.size() < 2 || name[0] != 'v' ||
           !std::all_of(name.begin() + 1, name.end(), [](char c) { return c >= '0' && c <= '9'; });
  });
  return found;
}

std::vector<fs::path> pins(const fs::path& dir) {
  auto found = entries(dir);
  std::erase_if(found, [](const fs::path& path) {
    return !path.filename().string().starts_with("egressd_");
  });
  return found;
}

// Who holds a flock() on that file: "process 4711 (egressd run …)".
std::string lock_holder(const struct stat& file) {
  char wanted[64];
  std::snprintf(wanted, sizeof(wanted), "%02x:%02x:%lu", major(file.st_dev), minor(file.st_dev),
                static_cast<unsigned long>(file.st_ino));
  std::ifstream locks("/proc/locks");
  for (std::string line; std::getline(locks, line);) {
    // NUMBER: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE START END; `->` after it if it waits
    std::istringstream fields(line);
    std::string number, kind, advisory, access, pid, inode;
    fields >> number >> kind >> advisory >> access >> pid >> inode;
    if (kind != "FLOCK" || inode != wanted) continue;
    std::ifstream in("/proc/" + pid + "/cmdline", std::ios::binary);
    std::string command((std::istreambuf_iterator<char>(in)), {});
    while (command.ends_with('\0')) command.pop_back();
    for (char& c : command) {
      if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') c = ' ';
    }
    return "process " + pid + (command.empty() ? "" : " (" + command + ")");
  }
  return "a process that cannot be seen from here";  // of another PID namespace
}

// What is not empty stays.
void remove_directories(const fs::path& version) {
  for (const char* sub : {"links", "maps"}) ::rmdir((version / sub).c_str());
  ::rmdir(version.c_str());
}

}  // namespace

Result<void> ensure_bpffs(const std::string& dir) {
  const fs::path path = fs::path(dir).lexically_normal();
  fs::path existing = path;
  // A path that cannot be looked at is one that cannot be made: that error is told below.
  std::error_code ec;
  while (!fs::exists(existing, ec) && existing.has_relative_path())
    existing = existing.parent_path();
  if (!on_bpffs(existing)) {
    const fs::path system = "/sys/fs/bpf";
    const bool below_system =
        std::mismatch(system.begin(), system.end(), path.begin(), path.end()).first == system.end();
    const fs::path& target = below_system ? system : path;
    if (auto r = make_directories(target); !r) return r;
    if (auto r = mount_bpffs(target); !r) return r;
  }
  return make_directories(path);
}

Result<UniqueFd> lock_pins(const std::string& dir) {
  constexpr int kTries = 10;
  for (int i = 0; i < kTries; ++i) {
    if (auto r = ensure_bpffs(dir); !r) return std::unexpected(std::move(r.error()));
    UniqueFd fd(::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    struct stat locked{};
    if (!fd || ::fstat(fd.get(), &locked) != 0)
      return std::unexpected(Error::from_errno("open " + dir));
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK) return std::unexpected(Error::from_errno("lock " + dir));
      return std::unexpected(Error::of("another agent keeps its programs and maps in " + dir +
                                       ": " + lock_holder(locked) +
                                       "; stop it, or choose another directory with --bpffs"));
    }
    // A detach may have removed the directory between open() and flock().
    struct stat there{};
    if (::stat(dir.c_str(), &there) == 0 && there.st_dev == locked.st_dev &&
        there.st_ino == locked.st_ino)
      return fd;
  }
  return std::unexpected(Error::of(dir + " is removed again and again"));
}

std::vector<UniqueFd> maps_of_other_versions(const std::string& dir, const std::string& except,
                                             const std::string& name) {
  std::vector<UniqueFd> found;
  for (const fs::path& version : versions(dir)) {
    if (version.filename() == fs::path(except).filename()) continue;
    if (UniqueFd fd(::bpf_obj_get((version / "maps" / name).c_str())); fd)
      found.push_back(std::move(fd));
  }
  return found;
}

void remove_other_versions(const std::string& dir, const std::string& keep) {
  for (const fs::path& version : versions(dir)) {
    if (version.filename() == fs::path(keep).filename()) continue;
    for (const char* sub : {"links", "maps"}) {
      for (const fs::path& pin : pins(version / sub)) ::unlink(pin.c_str());
    }
    remove_directories(version);
  }
}

void remove_unused_version(const std::string& version) {
  const fs::path path = version;
  if (!entries(path / "links").empty()) return;
  for (const fs::path& map : pins(path / "maps")) ::unlink(map.c_str());
  remove_directories(path);
  ::rmdir(path.parent_path().c_str());
}

Result<std::vector<std::string>> detach_pinned(const std::string& dir) {
  std::vector<std::string> removed;
  Error first_error;
  const auto failed = [&](const std::string& what) {
    if (first_error.message.empty()) first_error = Error::from_errno(what);
  };
  const auto all = versions(dir);
  for (const fs::path& version : all) {
    for (const fs::path& link : pins(version / "links")) {
      // Detach now rather than when the last descriptor goes: a stuck agent may hold one.
      UniqueFd fd(::bpf_obj_get(link.c_str()));
      if (fd && ::bpf_link_detach(fd.get()) != 0 && errno != ENOLINK)
        failed("detach " + link.string());
      if (::unlink(link.c_str()) != 0)
        failed("remove " + link.string());
      else
        removed.push_back("program " + link.filename().string() + " (detached)");
    }
  }
  for (const fs::path& version : all) {
    for (const fs::path& map : pins(version / "maps")) {
      if (::unlink(map.c_str()) != 0)
        failed("remove " + map.string());
      else
        removed.push_back("map " + map.filename().string());
    }
    remove_directories(version);
  }
  // Fails where `dir` itself is the mount point, which is left as it is.
  ::rmdir(dir.c_str());
  if (!first_error.message.empty()) return std::unexpected(std::move(first_error));
  return removed;
}

}  // namespace egressd::enforce
