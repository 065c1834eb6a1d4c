#include "audit/user_names.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <charconv>
#include <string_view>

#include "base/unique_fd.h"

namespace egressd::audit {

std::string UserNames::find(std::uint32_t uid) {
  struct stat st{};
  if (::stat(path_.c_str(), &st) != 0) st = {};
  if (st.st_ino != inode_ || st.st_size != size_ || st.st_mtim.tv_sec != changed_.tv_sec ||
      st.st_mtim.tv_nsec != changed_.tv_nsec) {
    inode_ = st.st_ino;
    size_ = st.st_size;
    changed_ = st.st_mtim;
    read();
  }
  const auto it = names_.find(uid);
  return it == names_.end() ? std::string() : it->second;
}

void UserNames::read() {
  names_.clear();
  const UniqueFd fd(::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return;
  std::string text(static_cast<std::size_t>(kMaxBytes), '\0');
  std::size_t have = 0;
  while (have < text.size()) {
    const auto n = ::read(fd.get(), text.data() + have, text.size() - have);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    have += static_cast<std::size_t>(n);
  }
  std::string_view rest(text.data(), have);
  while (!rest.empty()) {
    const auto line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    // name:password:uid:…
    const auto name_end = line.find(':');
    if (name_end == 0 || name_end == std::string_view::npos) continue;
    const auto uid_begin = line.find(':', name_end + 1);
    if (uid_begin == std::string_view::npos) continue;
    const auto field = line.substr(uid_begin + 1);
    std::uint32_t uid = 0;
    const auto [end, ec] = std::from_chars(field.data(), field.data() + field.size(), uid);
    if (ec != std::errc{} || end == field.data() + field.size() || *end != ':') continue;
    names_.try_emplace(uid, line.substr(0, name_end));  // the first one counts, as in getpwuid()
  }
}

}  // namespace egressd::audit
