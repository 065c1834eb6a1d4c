#include "audit/process.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include "base/unique_fd.h"

namespace egressd::audit {
namespace {

// At most `max` bytes from the beginning.
std::optional<std::string> read_small(int dir, const char* name, std::size_t max = 1024) {
  const UniqueFd fd(::openat(dir, name, O_RDONLY | O_CLOEXEC));
  if (!fd) return std::nullopt;
  std::string text(max, '\0');
  const auto n = ::read(fd.get(), text.data(), text.size());
  if (n < 0) return std::nullopt;
  text.resize(static_cast<std::size_t>(n));
  return text;
}

// Field 22 of proc_pid_stat(5), in nanoseconds since boot, rounded down to a clock tick. comm
// (field 2) may hold anything, ')' and spaces included: fields are counted from its last ')'.
std::optional<std::uint64_t> start_time_ns(const std::string& stat) {
  auto at = stat.rfind(')');
  if (at == std::string::npos) return std::nullopt;
  constexpr int kFieldsAfterComm = 20;  // state is field 3
  for (int field = 0; field < kFieldsAfterComm; ++field) {
    at = stat.find(' ', at + 1);
    if (at == std::string::npos) return std::nullopt;
  }
  std::uint64_t ticks = 0;
  const auto* first = stat.data() + at + 1;
  if (std::from_chars(first, stat.data() + stat.size(), ticks).ec != std::errc{})
    return std::nullopt;
  static const auto kPerSecond = static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
  return ticks * (1'000'000'000 / kPerSecond);
}

std::string exe_of(int dir) {
  std::array<char, 4096> link{};
  const auto n = ::readlinkat(dir, "exe", link.data(), link.size());
  if (n <= 0 || static_cast<std::size_t>(n) == link.size()) return {};
  std::string exe(link.data(), static_cast<std::size_t>(n));

  constexpr std::string_view kDeleted = " (deleted)";
  struct statx st{};
  // A file may really be called that; one that has no links left cannot. Not asked of a file
  // server, which may never answer: a program can be of a dead NFS mount, or one made for that.
  if (exe.ends_with(kDeleted) &&
      (::statx(dir, "exe", AT_STATX_DONT_SYNC, STATX_NLINK, &st) != 0 || st.stx_nlink == 0))
    exe.resize(exe.size() - kDeleted.size());
  return exe;
}

std::string cmdline_of(int dir) {
  auto text = read_small(dir, "cmdline", kMaxCmdline + 1).value_or("");
  const bool cut = text.size() > kMaxCmdline;
  if (cut) {
    // Not within a character.
    auto end = kMaxCmdline;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
    text.resize(end);
  }
  while (!cut && text.ends_with('\0')) text.pop_back();
  std::ranges::replace(text, '\0', ' ');
  if (cut) text += "\u2026";
  return text;
}

}  // namespace

Program read_program(const std::string& proc_root, const TaskIdentity& task) {
  if (task.tgid == 0) return {};
  // The directory's descriptor stays with this process: once it dies, reads below fail instead
  // of answering for the next owner of the number.
  const auto path = proc_root + "/" + std::to_string(task.tgid);
  const UniqueFd dir(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!dir) return {};

  const auto stat = read_small(dir.get(), "stat");
  const auto started = stat ? start_time_ns(*stat) : std::nullopt;
  if (!started || *started > task.seen_at_ns) return {};

  const auto comm_path = "task/" + std::to_string(task.tid) + "/comm";
  if (auto comm = read_small(dir.get(), comm_path.c_str())) {
    if (comm->ends_with('\n')) comm->pop_back();
    if (*comm != task.comm) return {};
  } else if (!task.seen_acting) {
    return {};  // neither the name nor the time ties the process to the event
  }

  return {exe_of(dir.get()), cmdline_of(dir.get())};
}

}  // namespace egressd::audit
