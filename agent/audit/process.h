#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace egressd::audit {

// A task as an event names it.
struct TaskIdentity {
  std::uint32_t tgid = 0;
  std::uint32_t tid = 0;
  std::string_view comm = {};    // of the thread
  std::uint64_t seen_at_ns = 0;  // CLOCK_BOOTTIME: when the event was made
  bool seen_acting = true;       // false: the task was recorded earlier than seen_at_ns
};

// What the task runs.
struct Program {
  std::string exe;      // PROC_ROOT/PID/exe without the kernel's " (deleted)"
  std::string cmdline;  // arguments with spaces between, "…" behind what was cut at kMaxCmdline
};
constexpr std::size_t kMaxCmdline = 1024;  // bytes

// Both empty if the process is gone or cannot be shown to be the same one: a process that started
// after the event has a reused pid, and a thread that has another name now is another thread or has
// since run exec. exe is also empty if there is no file (kernel thread).
Program read_program(const std::string& proc_root, const TaskIdentity& task);

}  // namespace egressd::audit
