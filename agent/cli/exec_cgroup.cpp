#include "cli/exec_cgroup.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>
#include <vector>

#include "enforce/cgroup.h"

namespace egressd::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::seconds kEmptyWithin{5};
constexpr std::chrono::milliseconds kLookAgain{5};

// `path` and every cgroup below it, those below first.
std::vector<fs::path> tree(const fs::path& path) {
  std::vector<fs::path> found;
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(path, ec)) {
    if (!entry.is_directory(ec)) continue;
    for (auto& below : tree(entry.path())) found.push_back(std::move(below));
  }
  found.push_back(path);
  return found;
}

std::vector<pid_t> processes(const std::string& path) {
  std::vector<pid_t> found;
  for (const fs::path& cgroup : tree(path)) {
    std::ifstream in(cgroup / "cgroup.procs");
    // 0: of a PID namespace that cannot be seen from here.
    for (pid_t pid = 0; in >> pid;) found.push_back(pid);
  }
  return found;
}

// Since Linux 5.14; takes what is forking at this moment too.
bool kill_by_kernel(const std::string& path) {
  const UniqueFd fd(::open((path + "/cgroup.kill").c_str(), O_WRONLY | O_CLOEXEC));
  return fd && ::write(fd.get(), "1", 1) == 1;
}

}  // namespace

std::string own_cgroup(const std::string& proc_file) {
  std::ifstream in(proc_file);
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with("0::/")) continue;
    line.erase(0, 3);
    return line.starts_with("/..") ? std::string() : line;
  }
  return {};
}

Result<ExecCgroup> ExecCgroup::create(const std::string& name) {
  const auto mount = enforce::find_cgroup2_mount();
  if (!mount) return std::unexpected(mount.error());
  std::string path = *mount;
  if (const std::string own = own_cgroup(); own.size() > 1) path += own;
  path += "/" + name;
  if (::mkdir(path.c_str(), 0755) != 0) {
    // The caller's own directory may be hidden by a mount, or full.
    path = *mount + "/" + name;
    if (::mkdir(path.c_str(), 0755) != 0)
      return std::unexpected(Error::from_errno("create cgroup " + path));
  }
  UniqueFd procs(::open((path + "/cgroup.procs").c_str(), O_WRONLY | O_CLOEXEC));
  if (!procs) {
    const int err = errno;
    ::rmdir(path.c_str());
    return std::unexpected(Error::from_errno("open " + path + "/cgroup.procs", err));
  }
  return ExecCgroup(std::move(path), std::move(procs));
}

bool ExecCgroup::enter() const { return ::write(procs_.get(), "0", 1) == 1; }

Result<std::size_t> ExecCgroup::kill_all() const {
  auto left = processes(path_);
  const std::size_t found = left.size();
  const auto deadline = std::chrono::steady_clock::now() + kEmptyWithin;
  while (!left.empty()) {
    if (!kill_by_kernel(path_)) {
      for (const pid_t pid : left)
        if (pid > 0) ::kill(pid, SIGKILL);
    }
    if (std::chrono::steady_clock::now() > deadline)
      return std::unexpected(Error::of(std::to_string(left.size()) + " processes in " + path_ +
                                       " cannot be killed; kill them, then remove it with rmdir"));
    std::this_thread::sleep_for(kLookAgain);
    left = processes(path_);
  }
  return found;
}

Result<void> ExecCgroup::remove() const {
  const auto deadline = std::chrono::steady_clock::now() + kEmptyWithin;
  for (const fs::path& cgroup : tree(path_)) {
    // A process that has just ended counts until the kernel is done with it.
    while (::rmdir(cgroup.c_str()) != 0 && errno != ENOENT) {
      if (errno != EBUSY || std::chrono::steady_clock::now() > deadline)
        return std::unexpected(Error::from_errno("remove cgroup " + cgroup.string()));
      std::this_thread::sleep_for(kLookAgain);
    }
  }
  return {};
}

}  // namespace egressd::cli
