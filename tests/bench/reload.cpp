#include "reload.h"

#include <bpf/bpf.h>
#include <time.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <system_error>

#include "base/unique_fd.h"
#include "bpf/egressd_abi.h"
#include "daemon_process.h"

namespace egressd::bench {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kLimit{30};

std::string policy_of(std::uint32_t rules, bool changed) {
  std::string text =
      "version: 1\nmode: enforce\ndns:\n  servers: [192.168.253.53]\ncollections:\n"
      "  - name: bench\n    priority: 200\n    action: allow\n    rules:\n";
  for (std::uint32_t i = 0; i < rules; ++i) {
    const std::string n = std::to_string(i);
    if (i + 1 == rules)
      text += std::string("      - {name: last, fqdns: ['*.") + (changed ? "new" : "old") +
              ".example.com'], ports: [443], protocols: [tcp]}\n";
    else if (i < rules / 2)
      text += "      - {name: network" + n + ", addresses: [10." + std::to_string(i >> 8) + "." +
              std::to_string(i & 255) + ".0/24], ports: [443], protocols: [tcp]}\n";
    else
      text += "      - {name: names" + n + ", fqdns: ['*.h" + n +
              ".example.com'], ports: [443], protocols: [tcp]}\n";
  }
  return text;
}

class Reloaded {
 public:
  static Result<std::unique_ptr<Reloaded>> start(const Arena& arena, const std::string& egressd,
                                                 std::uint32_t rules) {
    auto netns = Netns::create();
    if (!netns) return std::unexpected(netns.error());
    const std::string name = "reload" + std::to_string(rules);
    std::unique_ptr<Reloaded> made(
        new Reloaded(std::move(*netns), arena.dir() + "/" + name, rules));
    std::ofstream(made->path_) << made->text(false);
    auto daemon = Daemon::start(arena, name, made->netns_, egressd, made->path_);
    if (!daemon) return std::unexpected(daemon.error());
    made->daemon_ = std::move(*daemon);
    const auto begin = Clock::now();
    while (!made->open_maps(arena.bpffs(name)) || made->generation() == 0) {
      if (interrupted() || made->daemon_->ended() || Clock::now() - begin > kLimit)
        return std::unexpected(Error::of("egressd does not start:\n" + made->daemon_->log()));
      ::usleep(10'000);
    }
    return made;
  }

  Result<void> reload(Reloads& into) {
    changed_ = !changed_;
    const std::string fresh = path_ + ".fresh";
    std::ofstream(fresh) << text(changed_);
    settle();
    const std::uint32_t before = generation();
    const double cpu = cpu_ms();
    const auto begin = Clock::now();
    std::filesystem::rename(fresh, path_);
    while (generation() == before) {
      if (interrupted() || daemon_->ended() || Clock::now() - begin > kLimit)
        return std::unexpected(
            Error::of("egressd does not put a changed policy in force:\n" + daemon_->log()));
      ::usleep(100);
    }
    into.wall_ms.push_back(std::chrono::duration<double, std::milli>(Clock::now() - begin).count());
    into.cpu_ms.push_back(cpu_ms() - cpu);
    return {};
  }

 private:
  Reloaded(Netns netns, const std::string& base, std::uint32_t rules)
      : netns_(std::move(netns)), path_(base + ".yaml"), rules_(rules) {}

  // False if they are not pinned yet.
  bool open_maps(const std::string& bpffs) {
    std::error_code ec;
    for (auto it = std::filesystem::recursive_directory_iterator(bpffs, ec);
         !ec && it != std::filesystem::recursive_directory_iterator(); it.increment(ec)) {
      const std::string file = it->path().filename();
      if (file == "egressd_active") active_ = UniqueFd(::bpf_obj_get(it->path().c_str()));
      if (file == "egressd_config") config_ = UniqueFd(::bpf_obj_get(it->path().c_str()));
    }
    return active_ && config_;
  }

  [[nodiscard]] std::string text(bool changed) const { return policy_of(rules_, changed); }

  // Of the rules the kernel judges by.
  [[nodiscard]] std::uint32_t generation() const {
    const __u32 zero = 0;
    __u32 slot = 0;
    egressd_config config{};
    if (::bpf_map_lookup_elem(active_.get(), &zero, &slot) != 0 ||
        ::bpf_map_lookup_elem(config_.get(), &slot, &config) != 0)
      return 0;
    return config.generation;
  }

  [[nodiscard]] double cpu_ms() const {
    clockid_t clock{};
    timespec spent{};
    if (::clock_getcpuclockid(daemon_->pid(), &clock) != 0 || ::clock_gettime(clock, &spent) != 0)
      return 0;
    return static_cast<double>(spent.tv_sec) * 1e3 + static_cast<double>(spent.tv_nsec) / 1e6;
  }

  // What it does after a reload belongs to that one.
  void settle() const {
    for (double before = -1; cpu_ms() != before && !interrupted(); ::usleep(30'000))
      before = cpu_ms();
  }

  Netns netns_;
  std::string path_;
  std::uint32_t rules_;
  bool changed_ = false;
  UniqueFd active_;
  UniqueFd config_;
  std::unique_ptr<Daemon> daemon_;
};

}  // namespace

Result<std::vector<Reloads>> measure_reloads(const Arena& arena, const std::string& egressd,
                                             std::span<const std::uint32_t> sizes, int rounds) {
  std::vector<Reloads> out;
  std::vector<std::unique_ptr<Reloaded>> agents;
  for (const std::uint32_t size : sizes) {
    auto agent = Reloaded::start(arena, egressd, size);
    if (!agent) return std::unexpected(agent.error());
    agents.push_back(std::move(*agent));
    out.push_back({.rules = size, .wall_ms = {}, .cpu_ms = {}});
  }
  // The first one of each finds everything cold, and is not counted.
  for (int round = 0; round <= rounds && !interrupted(); ++round) {
    for (std::size_t i = 0; i < agents.size(); ++i) {
      Reloads warm;
      if (auto r = agents[i]->reload(round == 0 ? warm : out[i]); !r)
        return std::unexpected(r.error());
    }
  }
  return out;
}

}  // namespace egressd::bench
