// What this kernel's verifier makes of each program of the agent, one line each:
//   egressd_dns_in      21934 instructions
//   egressd_dns_in      refused: BPF_ATOMIC stores into R1 fp is not allowed
// Exit status: 0 if all load and none needs 60 % of the verifier's limit, 77 without privilege.

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <egressd_bpf.skel.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr unsigned kLimit = 1'000'000;
constexpr unsigned kMost = kLimit / 10 * 6;
constexpr __u32 kLogStats = 4;  // only the line with the numbers; BPF_LOG_STATS, not in the UAPI
constexpr __u32 kLogSteps = 1;
// A log that does not fit fails the load, even the part of it that the kernel takes back later.
constexpr std::size_t kStatsSize = 1U << 20U;
constexpr std::size_t kStepsSize = 64U << 20U;

// libbpf's last words that fit on a line; the verifier's whole log is none of them.
std::string said;

__attribute__((format(printf, 2, 0))) int print(libbpf_print_level level, const char* format,
                                                va_list args) {
  if (level != LIBBPF_WARN) return 0;
  char line[256];
  const int n = std::vsnprintf(line, sizeof(line), format, args);
  if (n > 0 && static_cast<std::size_t>(n) < sizeof(line) && said.empty()) {
    said = line;
    said.erase(said.find_last_not_of('\n') + 1);
  }
  return n;
}

// N of "processed N insns"; 0 if the log does not say.
unsigned processed(std::string_view log) {
  constexpr std::string_view kBefore = "processed ";
  const auto at = log.rfind(kBefore);
  if (at == std::string_view::npos) return 0;
  return static_cast<unsigned>(std::strtoul(log.data() + at + kBefore.size(), nullptr, 10));
}

// The line that says why: the last one before the numbers.
std::string reason(std::string_view log) {
  if (const auto stats = log.rfind("processed "); stats != std::string_view::npos)
    log = log.substr(0, stats);
  const auto last = log.find_last_not_of("\n ");
  if (last == std::string_view::npos) return said.empty() ? "no reason given" : said;
  log = log.substr(0, last + 1);
  const auto line = log.rfind('\n');
  return std::string(line == std::string_view::npos ? log : log.substr(line + 1));
}

struct Close {
  void operator()(egressd_bpf* skeleton) const { egressd_bpf::destroy(skeleton); }
};
using Skeleton = std::unique_ptr<egressd_bpf, Close>;

Skeleton open_programs() {
  Skeleton skeleton(egressd_bpf::open());
  if (!skeleton) {
    std::printf("cannot be opened: %s\n", std::strerror(errno));
    std::exit(1);
  }
  return skeleton;
}

std::vector<std::string> program_names() {
  const Skeleton skeleton = open_programs();
  std::vector<std::string> names;
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, skeleton->obj)
      names.emplace_back(bpf_program__name(program));
  return names;
}

// Loads one program and no other. `log` receives the verifier's words.
int load_alone(const std::string& name, __u32 level, std::vector<char>& log) {
  const Skeleton skeleton = open_programs();
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, skeleton->obj) {
    const bool wanted = name == bpf_program__name(program);
    bpf_program__set_autoload(program, wanted);
    if (wanted) {
      bpf_program__set_log_level(program, level);
      bpf_program__set_log_buf(program, log.data(), log.size());
    }
  }
  // What the verifier thinks does not depend on sizes.
  bpf_map__set_max_entries(skeleton->maps.egressd_learned, 1024);
  said.clear();
  return egressd_bpf::load(skeleton.get());
}

}  // namespace

int main() {
  if (::geteuid() != 0) {
    std::puts("SKIPPED: needs root to load BPF programs");
    return 77;
  }
  libbpf_set_strict_mode(LIBBPF_STRICT_ALL);
  libbpf_set_print(print);
  int refused = 0;
  const auto names = program_names();
  for (const auto& name : names) {
    std::vector<char> log(kStatsSize);
    if (load_alone(name, kLogStats, log) == 0) {
      const unsigned instructions = processed(log.data());
      const bool too_many = instructions == 0 || instructions >= kMost;
      std::printf("%-16s %8u instructions%s\n", name.c_str(), instructions,
                  too_many ? ", too close to the limit" : "");
      if (too_many) ++refused;
      continue;
    }
    log.assign(kStepsSize, '\0');
    load_alone(name, kLogSteps, log);
    std::printf("%-16s refused: %s\n", name.c_str(), reason(log.data()).c_str());
    ++refused;
  }
  std::printf("%zu programs, %d refused\n", names.size(), refused);
  return names.empty() || refused != 0 ? 1 : 0;
}
