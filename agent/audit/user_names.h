#pragma once

#include <sys/types.h>

#include <cstdint>
#include <ctime>
#include <string>
#include <unordered_map>

namespace egressd::audit {

// Names of this host's users. From the file alone: getpwuid() may ask a directory over the network,
// which could block the agent, or be judged by it. Read again when the file has changed.
class UserNames {
 public:
  static constexpr off_t kMaxBytes = 4 << 20;  // of a longer file, the names up to there

  explicit UserNames(std::string path = "/etc/passwd") : path_(std::move(path)) {}

  // Empty if the file has no such user or cannot be read.
  std::string find(std::uint32_t uid);

 private:
  void read();

  std::string path_;
  // The file last read.
  ino_t inode_ = 0;
  off_t size_ = -1;
  std::timespec changed_{};
  std::unordered_map<std::uint32_t, std::string> names_;
};

}  // namespace egressd::audit
