#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "arena.h"
#include "base/unique_fd.h"
#include "dns_traffic.h"
#include "enforce/backend.h"
#include "map_memory.h"
#include "tests/bench/dns_bench.h"

struct dns_bench_bpf;
struct ring_buffer;

namespace egressd::bench {

// An Ethernet frame, as a test run takes it.
using Frame = std::vector<std::uint8_t>;

// Names 1..n of a policy of n: the odd ones are wildcards. Three or four labels deep.
std::string pattern_number(std::uint32_t k);
std::string name_number(std::uint32_t k);
// Number k of the addresses that are learned, all different for k < 2^28 and none of them private.
constexpr std::uint32_t public_address(std::uint32_t k) {
  return 0x20000000u | ((k * 0x9e3779b1u) & 0x0fffffffu);
}

// Numbers from here on are for answers over the network, those below for answers in test runs.
inline constexpr std::uint32_t kRealAddresses = 1u << 27;

Frame question_frame(const std::string& name, std::uint16_t id);
// Names of the CNAME chain from `name`, 0 or more, then the addresses of its end.
Frame answer_frame(const std::string& name, std::uint16_t id, std::uint32_t cnames,
                   std::span<const std::uint32_t> addresses);
// A packet from or to port 443 with 100 bytes of data.
enum class Way : std::uint8_t { Out, In };
Frame ordinary_frame(std::uint8_t protocol, Way way);

enum class Program : std::uint8_t { EmptyOut, EmptyIn, DnsOut, DnsIn, Egress, Ingress };

// What one test run does: `program`, `repeat` times, or through a wrapper; see dns_bench.bpf.c.
struct Probe {
  Program program = Program::EmptyIn;
  enum class Through : std::uint8_t { Nothing, Flow, Question } through = Through::Nothing;
  std::uint32_t steps = 0;      // BENCH_*, of a question
  std::uint32_t name = 0;       // number of the name that was asked
  std::uint16_t id = 0;         // and the question's id
  std::uint8_t protocol = 0;    // of the flow
  std::uint32_t outcome = ~0u;  // enum egressd_dns_outcome that every run must end in
  std::uint32_t verdict = 1;
};

// A policy of `size` names with as many learned addresses, in the kernel through egressd's own
// library, and its programs, run on packets without a network.
class DnsWorld {
 public:
  static Result<std::unique_ptr<DnsWorld>> create(const Arena& arena, std::uint32_t size, int index,
                                                  int cpu, int applies);
  ~DnsWorld();
  DnsWorld(const DnsWorld&) = delete;
  DnsWorld& operator=(const DnsWorld&) = delete;

  [[nodiscard]] std::uint32_t size() const { return size_; }
  [[nodiscard]] double apply_ms() const { return apply_ms_; }
  [[nodiscard]] double learn_ns() const { return learn_ns_; }
  // When size() names and addresses were there, and no more.
  [[nodiscard]] const std::vector<MapMemory>& maps() const { return maps_; }

  // Nanoseconds of one run, as the kernel took them. Call inside().
  double run(const Probe& probe, const Frame& frame, std::uint32_t repeat);
  // What the kernel measures of the programs at work while the client asks for `names`, or sends
  // and gets back `count` datagrams: mean nanoseconds of one run, by Program. The empty ones hang
  // beside the others and see the same packets.
  using RunTimes = std::array<double, 6>;
  RunTimes ask(std::span<const std::string> names);
  RunTimes echo(std::uint32_t count);

  // Runs that did not end as their probe says, and exchanges without an answer.
  [[nodiscard]] std::uint64_t failures() const { return failures_; }
  // Compares what the kernel counted since the last time with what the probes wanted.
  void check_counts();
  // Runs `work` on the world's own thread, in its namespace, on the senders' CPU.
  void inside(const std::function<void()>& work) { place_->run(work); }
  void drain_events();

 private:
  DnsWorld() = default;
  Result<void> fill(int applies);
  Result<void> find_programs();
  Result<void> load_wrappers();
  RunTimes timed(const std::function<void()>& work);
  [[nodiscard]] std::uint64_t question_hash(const std::string& name) const;
  [[nodiscard]] std::vector<std::uint64_t> counts() const;

  std::uint32_t size_ = 0;
  std::string bpffs_;
  std::unique_ptr<Place> place_;
  std::unique_ptr<enforce::Backend> backend_;
  dns_bench_bpf* wrappers_ = nullptr;
  dns_bench_io* io_ = nullptr;
  ring_buffer* events_ = nullptr;
  Client client_;
  std::array<UniqueFd, 2> empty_links_;
  std::array<UniqueFd, 6> programs_;  // by Program; the empty ones are the wrappers'
  UniqueFd counts_;                   // egressd_dstats
  UniqueFd verdicts_;                 // egressd_counts
  std::array<std::uint64_t, 2> key_{};
  std::uint32_t ifindex_ = 0;
  std::uint32_t generation_ = 0;  // in force
  double apply_ms_ = 0;
  double learn_ns_ = 0;
  std::vector<MapMemory> maps_;
  std::vector<std::uint64_t> counted_;
  std::vector<std::uint64_t> wanted_;  // by outcome, since counted_
  std::uint64_t failures_ = 0;
};

}  // namespace egressd::bench
