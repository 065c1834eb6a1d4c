#include "daemon/confine.h"

#include <asm/ioctls.h>
#include <cap-ng.h>
#include <linux/bpf.h>
#include <linux/netlink.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <iterator>
#include <memory>
#include <vector>

namespace egressd::daemon {
namespace {

constexpr unsigned kKept[] = {CAP_BPF, CAP_NET_ADMIN, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH,
                              CAP_LEASE};

// By name, the forms of all architectures side by side: x86-64 has both epoll_wait and
// epoll_pwait, arm64 only the latter, and which one the C library calls is its business. Names an
// architecture or an older libseccomp does not have are left out there.
[[maybe_unused]] constexpr const char* kAllowed[] = {
    // memory
    "brk", "mmap", "mmap2", "munmap", "mremap", "mprotect", "madvise", "membarrier", "memfd_create",
    // threads (clone is judged below)
    "futex", "futex_time64", "rseq", "set_robust_list", "get_robust_list", "set_tid_address",
    "sched_yield", "sched_getaffinity", "sched_getparam", "sched_getscheduler", "getcpu", "gettid",
    "exit", "exit_group", "restart_syscall",
    // signals
    "rt_sigaction", "rt_sigprocmask", "rt_sigpending", "rt_sigtimedwait", "rt_sigtimedwait_time64",
    "rt_sigreturn", "sigaltstack", "signalfd", "signalfd4",
    // time
    "clock_gettime", "clock_gettime64", "clock_getres", "clock_getres_time64", "clock_nanosleep",
    "clock_nanosleep_time64", "nanosleep", "gettimeofday", "time", "timerfd_create",
    "timerfd_settime", "timerfd_gettime",
    // who am I
    "getpid", "getppid", "getuid", "geteuid", "getgid", "getegid", "getresuid", "getresgid",
    "getgroups", "capget", "uname", "sysinfo", "getrandom", "umask", "getcwd",
    // waiting
    "epoll_create", "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2",
    "poll", "ppoll", "ppoll_time64", "select", "pselect6", "eventfd2", "pipe", "pipe2",
    "inotify_init", "inotify_init1", "inotify_add_watch", "inotify_rm_watch",
    // files
    "open", "openat", "close", "close_range", "read", "readv", "pread64", "write", "writev",
    "pwrite64", "lseek", "_llseek", "dup", "dup2", "dup3", "fcntl", "fcntl64", "flock", "stat",
    "lstat", "fstat", "newfstatat", "fstatat64", "statx", "statfs", "fstatfs", "statfs64",
    "fstatfs64", "access", "faccessat", "faccessat2", "readlink", "readlinkat", "getdents64",
    "fsync", "fdatasync", "ftruncate", "fallocate", "fadvise64", "rename", "renameat", "renameat2",
    "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "chmod", "fchmodat", "fchmod", "fchown",
    "name_to_handle_at", "open_by_handle_at",
    // sockets (socket itself is judged below)
    "bind", "listen", "accept", "accept4", "connect", "getsockname", "getpeername", "getsockopt",
    "setsockopt", "send", "sendto", "sendmsg", "sendmmsg", "recv", "recvfrom", "recvmsg",
    "recvmmsg", "recvmmsg_time64", "shutdown"};

// Neither BPF_PROG_LOAD nor anything that attaches other than by a link to a cgroup.
[[maybe_unused]] constexpr bpf_cmd kBpfCommands[] = {BPF_MAP_CREATE,
                                                     BPF_MAP_LOOKUP_ELEM,
                                                     BPF_MAP_UPDATE_ELEM,
                                                     BPF_MAP_DELETE_ELEM,
                                                     BPF_MAP_GET_NEXT_KEY,
                                                     BPF_MAP_LOOKUP_AND_DELETE_ELEM,
                                                     BPF_MAP_LOOKUP_BATCH,
                                                     BPF_MAP_UPDATE_BATCH,
                                                     BPF_MAP_LOOKUP_AND_DELETE_BATCH,
                                                     BPF_MAP_DELETE_BATCH,
                                                     BPF_OBJ_PIN,
                                                     BPF_OBJ_GET,
                                                     BPF_PROG_TEST_RUN,
                                                     BPF_OBJ_GET_INFO_BY_FD,
                                                     BPF_PROG_QUERY,
                                                     BPF_LINK_CREATE,
                                                     BPF_LINK_UPDATE,
                                                     BPF_LINK_DETACH,
                                                     BPF_ITER_CREATE};

using Filter = std::unique_ptr<void, decltype([](scmp_filter_ctx f) { ::seccomp_release(f); })>;

Result<void> drop_capabilities() {
  // Not all of them may be there: a container or a unit can have taken some away.
  if (::capng_get_caps_process() != 0)
    return std::unexpected(Error::of("drop capabilities: those there are cannot be read"));
  std::vector<unsigned> kept;
  std::ranges::copy_if(kKept, std::back_inserter(kept), [](unsigned capability) {
    return ::capng_have_capability(CAPNG_PERMITTED, capability) != 0;
  });
  const bool can_bound = ::capng_have_capability(CAPNG_EFFECTIVE, CAP_SETPCAP) != 0;
  ::capng_clear(CAPNG_SELECT_ALL);
  for (const unsigned capability : kept)
    if (::capng_update(CAPNG_ADD, static_cast<capng_type_t>(CAPNG_EFFECTIVE | CAPNG_PERMITTED),
                       capability) != 0)
      return std::unexpected(Error::of("drop capabilities: cannot name those to keep"));
  // The bounding set first: that takes CAP_SETPCAP, which goes too. Where a unit or a container has
  // taken that away the set stays as they made it: it is of use to exec only, which is refused.
  if (::capng_apply(
          can_bound ? CAPNG_SELECT_ALL
                    : static_cast<capng_select_t>(CAPNG_SELECT_CAPS | CAPNG_SELECT_AMBIENT)) != 0)
    return std::unexpected(Error::of("drop capabilities: the kernel refused"));
  return {};
}

#ifndef EGRESSD_UNFILTERED
Error failed(const char* what, int negative_errno) {
  return Error::from_errno(what, -negative_errno);
}

// Collects rules; the first error stays.
class Rules {
 public:
  explicit Rules(scmp_filter_ctx filter) : filter_(filter) {}

  void add(const char* name, std::initializer_list<scmp_arg_cmp> arguments = {},
           std::uint32_t action = SCMP_ACT_ALLOW) {
    const int number = ::seccomp_syscall_resolve_name(name);
    if (number == __NR_SCMP_ERROR || error_ != 0) return;
    error_ = ::seccomp_rule_add_array(filter_, action, number,
                                      static_cast<unsigned>(arguments.size()), arguments.begin());
  }
  [[nodiscard]] int error() const { return error_; }

 private:
  scmp_filter_ctx filter_;
  int error_ = 0;
};

scmp_arg_cmp is(unsigned argument, std::uint64_t value) {
  return {argument, SCMP_CMP_EQ, value, 0};
}

scmp_arg_cmp has(unsigned argument, std::uint64_t bits) {
  return {argument, SCMP_CMP_MASKED_EQ, bits, bits};
}

// The flags of clone3 are in memory, where no filter sees them: as on a kernel without it, the C
// library goes on with clone. A filter of its own, as that is nothing to log.
Result<void> hide_clone3() {
  const Filter filter(::seccomp_init(SCMP_ACT_ALLOW));
  if (!filter) return std::unexpected(Error::of("seccomp: no filter can be made"));
  Rules rules(filter.get());
  rules.add("clone3", {}, SCMP_ACT_ERRNO(ENOSYS));
  if (rules.error() != 0) return std::unexpected(failed("seccomp: hide clone3", rules.error()));
  if (const int r = ::seccomp_load(filter.get()); r != 0)
    return std::unexpected(failed("seccomp: load the filter of clone3", r));
  return {};
}

Result<void> filter_system_calls() {
  const Filter filter(::seccomp_init(SCMP_ACT_ERRNO(EPERM)));
  if (!filter) return std::unexpected(Error::of("seccomp: no filter can be made"));
  if (const int r = ::seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_LOG, 1); r != 0)
    return std::unexpected(failed("seccomp: log what is refused", r));
  Rules rules(filter.get());
  for (const char* name : kAllowed) rules.add(name);
  for (const bpf_cmd command : kBpfCommands) rules.add("bpf", {is(0, command)});
  for (const int family : {AF_UNIX, AF_INET, AF_INET6}) rules.add("socket", {is(0, family)});
  // Addresses of the host; the redirection of DNS, and who asks there.
  for (const int protocol : {NETLINK_ROUTE, NETLINK_NETFILTER, NETLINK_SOCK_DIAG})
    rules.add("socket", {is(0, AF_NETLINK), is(2, static_cast<std::uint64_t>(protocol))});
  rules.add("socketpair", {is(0, AF_UNIX)});
  // Threads, no processes. Of clone3, see below.
  rules.add("clone", {has(0, CLONE_THREAD | CLONE_VM | CLONE_SIGHAND)});
  rules.add("clone3");
  rules.add("prctl", {is(0, PR_SET_NAME)});
  rules.add("prctl", {is(0, PR_GET_NAME)});
  for (const char* name : {"prlimit64", "ugetrlimit", "getrlimit"})
    rules.add(name, name[0] == 'p' ? std::initializer_list<scmp_arg_cmp>{is(2, 0)}
                                   : std::initializer_list<scmp_arg_cmp>{});
  for (const unsigned request : {TCGETS, FIONBIO, FIONREAD}) rules.add("ioctl", {is(1, request)});
  // abort() raises a signal in its own thread.
  rules.add("tgkill", {is(0, static_cast<std::uint64_t>(::getpid()))});
  if (rules.error() != 0) return std::unexpected(failed("seccomp: make the filter", rules.error()));
  if (const int r = ::seccomp_load(filter.get()); r != 0)
    return std::unexpected(failed("seccomp: load the filter", r));
  return {};
}
#endif

}  // namespace

Result<void> confine() {
  std::error_code ec;
  const auto threads =
      std::distance(std::filesystem::directory_iterator("/proc/self/task", ec), {});
  if (ec || threads != 1)
    return std::unexpected(Error::of("other threads run already, or /proc cannot be read"));
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    return std::unexpected(Error::from_errno("no_new_privs"));
  if (auto r = drop_capabilities(); !r) return r;
#ifndef EGRESSD_UNFILTERED
  if (auto r = hide_clone3(); !r) return r;
  if (auto r = filter_system_calls(); !r) return r;
#endif
  return {};
}

}  // namespace egressd::daemon
