#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <string>

#include "doctor/checks.h"
#include "enforce/probe.h"

namespace egressd::doctor {
namespace {

// Bits of linux/capability.h.
struct Capability {
  int bit;
  const char* name;
};
constexpr std::array kNeeded{Capability{12, "CAP_NET_ADMIN"}, Capability{21, "CAP_SYS_ADMIN"},
                             Capability{38, "CAP_PERFMON"}, Capability{39, "CAP_BPF"}};

std::uint64_t effective_capabilities() {
  std::ifstream in("/proc/self/status");
  for (std::string word; in >> word;) {
    std::uint64_t bits = 0;
    if (word == "CapEff:" && in >> std::hex >> bits) return bits;
  }
  return 0;
}

std::string joined(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : ", ") + part;
  return text;
}

}  // namespace

bool check_capabilities(Findings& findings) {
  const std::uint64_t effective = effective_capabilities();
  std::vector<std::string> missing;
  for (const auto& [bit, name] : kNeeded)
    if ((effective >> bit & 1) == 0) missing.emplace_back(name);
  if (missing.empty()) {
    add(findings, "capabilities", State::Ok, "the caller may load and attach programs");
    return true;
  }
  add(findings, "capabilities", State::Degraded,
      "the caller lacks " + joined(missing) +
          ": the kernel's features and what is on the cgroup were not looked at",
      ::geteuid() == 0 ? "give the container these capabilities" : "run egressctl doctor as root");
  return false;
}

void check_kernel(Findings& findings) {
  utsname name{};
  ::uname(&name);
  const std::string release = std::string("Linux ") + name.release;
  const auto features = enforce::probe_features();
  if (std::ranges::all_of(features, &enforce::Feature::there))
    add(findings, "kernel", State::Ok,
        release + " has all of " + std::to_string(features.size()) + " features that are used");
  for (const enforce::Feature& feature : features) {
    if (feature.there) continue;
    add(findings, "kernel", feature.required ? State::Broken : State::Degraded,
        release + " has not: " + feature.name,
        feature.without + "; boot a newer kernel, or one built with it");
  }
  const auto jit = enforce::probe_jit();
  if (!jit)
    add(findings, "jit", State::Broken, "no program can be loaded, not even an empty one",
        "look at `dmesg`; in a container, allow bpf() in its seccomp profile");
  else if (*jit)
    add(findings, "jit", State::Ok, "programs run as machine code");
  else
    add(findings, "jit", State::Degraded, "programs are interpreted: each packet costs more",
        "sysctl -w net.core.bpf_jit_enable=1");
}

void check_cgroup(Findings& findings, const std::string& cgroup, bool privileged) {
  if (!privileged) return;
  const auto programs = enforce::programs_on(cgroup);
  if (!programs) {
    add(findings, "cgroup", State::Broken, programs.error().message,
        "name a cgroup v2 directory that is there: --cgroup");
    return;
  }
  std::vector<std::string> harmless;
  bool quiet = true;
  for (const enforce::OnCgroup& program : *programs) {
    if (program.ours) continue;
    const std::string who = (program.name.empty() ? "a program without name" : program.name) +
                            " (id " + std::to_string(program.id) + ") is on hook " + program.hook +
                            " of " + cgroup;
    const std::string find = "`bpftool prog show id " + std::to_string(program.id) +
                             "` and `bpftool cgroup tree` say more";
    if (program.exclusive) {
      quiet = false;
      add(findings, "cgroup", State::Broken,
          who + ", attached so that no other may be there: egressd cannot attach",
          "have it attached with the flag multi, or judge another cgroup (--cgroup); " + find);
    } else if (program.rewrites) {
      quiet = false;
      add(findings, "cgroup", State::Degraded,
          who + ": it may change the destination before or after egressd judges it",
          "both have to let a connection pass; if it translates addresses (Cilium, a service "
          "mesh), the policy has to allow what it translates to; " +
              find);
    } else {
      harmless.push_back((program.name.empty() ? "?" : program.name) + " on " + program.hook);
    }
  }
  if (!quiet) return;
  add(findings, "cgroup", State::Ok,
      cgroup + (harmless.empty()
                    ? ": nobody else has programs there"
                    : ": beside egressd " + joined(harmless) + "; they can only refuse more"));
}

}  // namespace egressd::doctor
