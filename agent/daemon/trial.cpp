#include "daemon/trial.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "daemon/name_ids.h"

namespace egressd::daemon {

Result<Trial> Trial::begin(const std::string& state_path, std::string path, Text before, Text tried,
                           BootTime deadline) {
  if (auto r = write_file_atomically(state_path, *before); !r)
    return std::unexpected(std::move(r.error()).context("a trial needs a way back"));
  Trial trial;
  trial.path_ = std::move(path);
  trial.before_ = std::move(before);
  trial.tried_ = std::move(tried);
  trial.deadline_ = deadline;
  return trial;
}

std::optional<std::string> Trial::left_behind(const std::string& state_path) {
  std::ifstream in(state_path, std::ios::binary);
  if (!in) return std::nullopt;
  return std::string(std::istreambuf_iterator<char>(in), {});
}

void Trial::forget(const std::string& state_path) { ::unlink(state_path.c_str()); }

Result<void> Trial::keep(const std::string& policy_path) const {
  std::error_code ec;
  const auto real = std::filesystem::canonical(policy_path, ec);
  const std::string target = ec ? policy_path : real.string();
  struct stat st{};
  const bool there = ::stat(target.c_str(), &st) == 0;
  if (there && !S_ISREG(st.st_mode))
    return std::unexpected(Error::of(policy_path + " is no regular file"));
  return write_file_atomically(target, *tried_, Outlives::Machine, there ? &st : nullptr);
}

}  // namespace egressd::daemon
