// egressd_confined WHAT [free]: does one thing as a confined agent could be made to, or with `free`
// as it would be otherwise. Prints "done", or "errno=NAME"; exit status 0 both times.

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <thread>

#include "daemon/confine.h"

namespace {

long load_program() {
  // r0 = 0; exit
  bpf_insn program[2] = {};
  program[0].code = BPF_ALU64 | BPF_MOV | BPF_K;
  program[1].code = BPF_JMP | BPF_EXIT;
  bpf_attr attributes{};
  attributes.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
  attributes.insns = reinterpret_cast<std::uintptr_t>(program);
  attributes.insn_cnt = 2;
  attributes.license = reinterpret_cast<std::uintptr_t>("GPL");
  return ::syscall(SYS_bpf, BPF_PROG_LOAD, &attributes, sizeof(attributes));
}

long create_map() {
  bpf_attr attributes{};
  attributes.map_type = BPF_MAP_TYPE_HASH;
  attributes.key_size = attributes.value_size = 4;
  attributes.max_entries = 1;
  return ::syscall(SYS_bpf, BPF_MAP_CREATE, &attributes, sizeof(attributes));
}

long run_thread() {
  bool ran = false;
  std::thread([&] { ran = true; }).join();
  return ran ? 0 : -1;
}

// A process, not a thread, the newer way.
long clone3_child() {
  clone_args arguments{};
  arguments.exit_signal = SIGCHLD;
  const long child = ::syscall(SYS_clone3, &arguments, sizeof(arguments));
  if (child == 0) ::_exit(0);
  return child < 0 ? -1 : ::waitpid(static_cast<pid_t>(child), nullptr, 0);
}

long fork_child() {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  return child < 0 ? -1 : ::waitpid(child, nullptr, 0);
}

const std::map<std::string, std::function<long()>> kThings = {
    {"exec", [] { return static_cast<long>(::execl("/bin/echo", "echo", "done", nullptr)); }},
    {"fork", [] { return fork_child(); }},
    {"clone3", [] { return clone3_child(); }},
    {"ptrace", [] { return ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr); }},
    {"namespace", [] { return static_cast<long>(::unshare(CLONE_NEWUTS)); }},
    {"mount", [] { return static_cast<long>(::mount("x", "/tmp", "no-such-type", 0, nullptr)); }},
    {"keyctl", [] { return ::syscall(SYS_keyctl, 0, -3, 0, 0, 0); }},
    {"module", [] { return ::syscall(SYS_init_module, "", 0L, ""); }},
    {"load-program", [] { return load_program(); }},
    {"create-map", [] { return create_map(); }},
    {"thread", [] { return run_thread(); }},
    {"packet", [] { return static_cast<long>(::socket(AF_PACKET, SOCK_RAW, 0)); }},
    {"raw", [] { return static_cast<long>(::socket(AF_INET, SOCK_RAW, 1)); }},
    {"vsock", [] { return static_cast<long>(::socket(AF_VSOCK, SOCK_STREAM, 0)); }},
    {"audit-netlink", [] { return static_cast<long>(::socket(AF_NETLINK, SOCK_RAW, 9)); }},
    {"route-netlink", [] { return static_cast<long>(::socket(AF_NETLINK, SOCK_RAW, 0)); }},
    {"inet6", [] { return static_cast<long>(::socket(AF_INET6, SOCK_DGRAM, 0)); }},
};

}  // namespace

int main(int argc, char** argv) {
  const auto thing = kThings.find(argc > 1 ? argv[1] : "");
  if (thing == kThings.end()) {
    std::fprintf(stderr, "usage: egressd_confined WHAT [free], WHAT one of\n");
    for (const auto& [name, _] : kThings) std::fprintf(stderr, "  %s\n", name.c_str());
    return 2;
  }
  if (argc < 3) {
    if (auto r = egressd::daemon::confine(); !r) {
      std::fprintf(stderr, "%s\n", r.error().message.c_str());
      return 1;
    }
  }
  if (thing->second() >= 0)
    std::puts("done");
  else
    std::printf("errno=%s\n", ::strerrorname_np(errno));
  return 0;
}
