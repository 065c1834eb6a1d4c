#include "daemon/name_ids.h"

#include <fcntl.h>
#include <unistd.h>

#include <charconv>
#include <filesystem>
#include <fstream>

#include "base/unique_fd.h"

namespace egressd::daemon {
namespace {

std::string boot_id() {
  std::ifstream in("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(in, id);
  return id;
}

}  // namespace

std::string state_header(const std::string& what, const std::string& instance) {
  return what + " " + instance + " " + boot_id();
}

Result<void> write_file_atomically(const std::string& path, const std::string& content,
                                   Outlives outlives, const struct stat* like) {
  const std::string temporary = path + ".new";
  UniqueFd fd(
      ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return std::unexpected(Error::from_errno("create " + temporary));
  if (like != nullptr && (::fchown(fd.get(), like->st_uid, like->st_gid) != 0 ||
                          ::fchmod(fd.get(), like->st_mode & 07777) != 0)) {
    auto error = Error::from_errno("set owner and mode of " + temporary);
    ::unlink(temporary.c_str());
    return std::unexpected(std::move(error));
  }
  std::string_view left = content;
  while (!left.empty()) {
    const ssize_t n = ::write(fd.get(), left.data(), left.size());
    if (n < 0) {
      if (errno == EINTR) continue;
      auto error = Error::from_errno("write " + temporary);
      ::unlink(temporary.c_str());
      return std::unexpected(std::move(error));
    }
    left.remove_prefix(static_cast<std::size_t>(n));
  }
  const bool sync = outlives == Outlives::Machine;
  if ((sync && ::fsync(fd.get()) != 0) || ::rename(temporary.c_str(), path.c_str()) != 0) {
    auto error = Error::from_errno("replace " + path);
    ::unlink(temporary.c_str());
    return std::unexpected(std::move(error));
  }
  if (!sync) return {};
  const std::string dir = std::filesystem::path(path).parent_path().string();
  if (UniqueFd parent(::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)); parent)
    ::fsync(parent.get());
  return {};
}

Result<NameIds> NameIds::load(const std::string& path, const std::string& instance,
                              std::uint32_t highest) {
  NameIds fresh;
  fresh.path_ = path;
  fresh.header_ = state_header("egressd-names 2", instance);
  fresh.next_ = highest + 1;
  std::ifstream in(path);
  if (!in) {
    if (errno != ENOENT) return std::unexpected(Error::from_errno("open " + path));
    return fresh;
  }
  NameIds names = fresh;
  std::string line;
  // Header, "next N", then "ID PATTERN" or "refusing PATTERN" a line. A file that is not exactly
  // that does not count.
  if (!std::getline(in, line) || line != names.header_) return fresh;
  const auto number = [](std::string_view text, std::uint32_t& value) {
    const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
    return ec == std::errc{} && end == text.data() + text.size();
  };
  if (!std::getline(in, line) || !line.starts_with("next ") ||
      !number(std::string_view(line).substr(5), names.next_) || names.next_ <= highest)
    return fresh;
  constexpr std::string_view kRefusing = "refusing ";
  while (std::getline(in, line)) {
    if (line.starts_with(kRefusing)) {
      names.refusing_.insert(line.substr(kRefusing.size()));
      continue;
    }
    const auto space = line.find(' ');
    std::uint32_t id = 0;
    if (space == std::string::npos || !number(std::string_view(line).substr(0, space), id) ||
        id == 0 || id >= names.next_)
      return fresh;
    std::string pattern = line.substr(space + 1);
    names.patterns_[id] = pattern;
    names.ids_[std::move(pattern)] = id;
  }
  names.kept_ = true;
  return names;
}

std::uint32_t NameIds::id_of(const std::string& pattern) {
  const auto [it, added] = ids_.try_emplace(pattern, next_);
  if (added) {
    patterns_[next_++] = pattern;
    changed_ = true;
  }
  return it->second;
}

void NameIds::renew(const std::string& pattern) {
  const auto it = ids_.find(pattern);
  if (it == ids_.end()) return;
  patterns_.erase(it->second);
  ids_.erase(it);
  changed_ = true;
}

void NameIds::set_refusing(std::set<std::string> patterns) {
  changed_ |= patterns != refusing_;
  refusing_ = std::move(patterns);
}

const std::string& NameIds::pattern_of(std::uint32_t id) const {
  static const std::string kNone;
  const auto it = patterns_.find(id);
  return it == patterns_.end() ? kNone : it->second;
}

Result<void> NameIds::save() {
  if (!changed_) return {};
  std::string content = header_ + "\nnext " + std::to_string(next_) + "\n";
  for (const auto& [id, pattern] : patterns_) content += std::to_string(id) + " " + pattern + "\n";
  for (const std::string& pattern : refusing_) content += "refusing " + pattern + "\n";
  if (auto r = write_file_atomically(path_, content, Outlives::Agent); !r) return r;
  changed_ = false;
  return {};
}

}  // namespace egressd::daemon
