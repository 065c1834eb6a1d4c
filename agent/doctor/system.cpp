#include <linux/magic.h>
#include <sys/statvfs.h>
#include <sys/timex.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "doctor/checks.h"

#ifndef BPF_FS_MAGIC
#define BPF_FS_MAGIC 0xcafe4a11
#endif

namespace egressd::doctor {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMinSpace = 16u << 20;  // bytes; names and rules of a large policy
constexpr std::uint64_t kMinFiles = 16;
constexpr time_t kYear2024 = 1704067200;  // before this program was written

// The nearest directory on the way up that is there.
fs::path existing_above(const fs::path& path) {
  std::error_code ec;
  fs::path there = path.lexically_normal();
  while (!fs::exists(there, ec) && there.has_relative_path()) there = there.parent_path();
  return there;
}

std::string first_line(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

std::string words_of(const std::string& path) {
  std::ifstream in(path);
  std::string text;
  for (std::string word; in >> word;) text += (text.empty() ? "" : ", ") + word;
  return text;
}

// "none [integrity] confidentiality" -> "integrity"
std::string chosen(const std::string& line) {
  const auto open = line.find('[');
  const auto close = line.find(']', open);
  return close == std::string::npos ? std::string() : line.substr(open + 1, close - open - 1);
}

}  // namespace

void check_bpffs(Findings& findings, const Options& options) {
  const fs::path there = existing_above(options.bpffs);
  struct statfs s{};
  if (::statfs(there.c_str(), &s) == 0 && static_cast<unsigned long>(s.f_type) == BPF_FS_MAGIC) {
    add(findings, "bpffs", State::Ok, options.bpffs + " is on a BPF file system");
    return;
  }
  add(findings, "bpffs", State::Degraded,
      "no BPF file system is mounted at " + options.bpffs + " or above",
      "egressd mounts one when it starts, if it may; to have it there before: mount -t bpf bpf "
      "/sys/fs/bpf");
}

void check_state_dir(Findings& findings, const Options& options, bool privileged) {
  const fs::path there = existing_above(options.state_dir);
  const bool made = there == fs::path(options.state_dir).lexically_normal();
  if (::access(there.c_str(), W_OK | X_OK) != 0) {
    const auto error = Error::from_errno("write to " + there.string());
    add(findings, "state_dir", privileged ? State::Broken : State::Degraded, error.message,
        privileged ? "mount it writable, or choose another with egressd run --state-dir"
                   : "run egressctl doctor as root");
    return;
  }
  struct statvfs s{};
  if (::statvfs(there.c_str(), &s) == 0) {
    const std::uint64_t space = std::uint64_t{s.f_bavail} * s.f_frsize;
    // Some file systems do not count files.
    if (space < kMinSpace || (s.f_files != 0 && s.f_favail < kMinFiles)) {
      add(findings, "state_dir", State::Degraded,
          there.string() + " has room for " + std::to_string(space >> 10) + " KiB and " +
              std::to_string(s.f_favail) + " files",
          "make room: a policy that cannot be written down is not put in force");
      return;
    }
  }
  add(findings, "state_dir", State::Ok,
      options.state_dir + (made ? " can be written" : " can be made"));
}

void check_clock(Findings& findings) {
  timespec real{}, boot{};
  ::clock_gettime(CLOCK_REALTIME, &real);
  ::clock_gettime(CLOCK_BOOTTIME, &boot);
  if (real.tv_sec < kYear2024 || real.tv_sec < boot.tv_sec) {
    add(findings, "clock", State::Degraded,
        "the clock is at " + std::to_string(real.tv_sec) +
            " s since 1970: records carry wrong times (what is enforced does not depend on it)",
        "set it: timedatectl set-time, or start an NTP client");
    return;
  }
  timex state{};
  const int r = ::adjtimex(&state);
  if (r < 0 || r == TIME_ERROR || (state.status & STA_UNSYNC) != 0)
    add(findings, "clock", State::Degraded,
        "nothing keeps the clock right: times in records may drift (what is enforced does not "
        "depend on it)",
        "start an NTP client: timedatectl set-ntp true, or install chrony");
  else
    add(findings, "clock", State::Ok, "the clock is kept right by NTP");
}

void check_neighbours(Findings& findings) {
  const std::string unprivileged = first_line("/proc/sys/kernel/unprivileged_bpf_disabled");
  add(findings, "unprivileged_bpf", State::Ok,
      unprivileged.empty() ? "kernel.unprivileged_bpf_disabled is not there"
      : unprivileged == "0"
          ? "every user may load programs of some types (kernel.unprivileged_bpf_disabled=0); they "
            "cannot touch egressd's"
          : "only privileged users may load programs (kernel.unprivileged_bpf_disabled=" +
                unprivileged + ")");
  const std::string lockdown = chosen(first_line("/sys/kernel/security/lockdown"));
  add(findings, "lockdown", State::Ok,
      "kernel lockdown: " + (lockdown.empty() ? std::string("not there") : lockdown));
  std::string firewalls;
  const auto tables = [&](const char* family, const char* path) {
    const std::string names = words_of(path);
    if (names.empty()) return;
    if (!firewalls.empty()) firewalls += "; ";
    firewalls += std::string(family) + " tables " + names;
  };
  tables("iptables-legacy", "/proc/net/ip_tables_names");
  tables("ip6tables-legacy", "/proc/net/ip6_tables_names");
  std::error_code ec;
  if (fs::exists("/sys/module/nf_tables", ec)) {
    if (!firewalls.empty()) firewalls += "; ";
    firewalls += "nf_tables is loaded (`nft list ruleset` shows it)";
  }
  add(findings, "firewalls", State::Ok,
      firewalls.empty()
          ? "no other packet filter is loaded"
          : "other packet filters: " + firewalls + "; a packet has to pass these and egressd");
}

}  // namespace egressd::doctor
