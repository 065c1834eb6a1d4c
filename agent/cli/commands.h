#pragma once

#include <chrono>
#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

namespace egressd::cli {

// Exit codes; scripts rely on them, --help lists them.
inline constexpr int kOk = 0;
inline constexpr int kDenied = 1;    // verdict: at least one destination is denied
inline constexpr int kUsage = 2;     // wrong arguments, or the policy has errors
inline constexpr int kNoDaemon = 3;  // no daemon answers
inline constexpr int kFailed = 4;    // the daemon or the kernel refused

// What a command says goes to `out`, what went wrong to `err`. No command throws.
struct Streams {
  std::ostream& out;
  std::ostream& err;
};

struct DaemonOptions {
  std::string socket;
  bool json = false;
};

int check(const std::string& file, bool json, Streams io);
int verdict(const std::string& file, const std::vector<std::string>& destinations, bool json,
            Streams io);
int tags_list(const std::string& cloud, bool json, Streams io);  // empty cloud: all
int tags_show(const std::string& name, const std::string& cloud, bool json, Streams io);
int status(const DaemonOptions& options, Streams io);
int list(const DaemonOptions& options, Streams io);
// Why a destination, or what a process is connected to, is reachable or not.
int explain(const DaemonOptions& options, const std::string& target, const std::string& bpffs_dir,
            Streams io);
// Puts `file` in force until confirmed, or rolls back after `duration`.
int try_policy(const DaemonOptions& options, const std::string& file, std::chrono::seconds duration,
               Streams io);
int confirm(const DaemonOptions& options, Streams io);
// `command`: reload or rollback.
int put_in_force(const DaemonOptions& options, const std::string& command, Streams io);
// Break-glass, on the pinned maps: needs no daemon. `reason` is cut to enforce::kMaxOpenReason.
int open(const std::string& bpffs_dir, std::chrono::seconds duration, const std::string& reason,
         bool json, Streams io);
int close(const std::string& bpffs_dir, bool json, Streams io);
// Asks the daemon; if none answers, removes the pins under `bpffs_dir` itself.
int detach(const DaemonOptions& options, const std::string& bpffs_dir, Streams io);

// Parses the command line and runs the command.
int run(int argc, const char* const* argv, Streams io);

}  // namespace egressd::cli
