#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "enforce/name_table.h"
#include "tests/bpf/dns_wrappers.h"

struct dns_test_bpf;

namespace egressd::test {

// The DNS programs in the kernel with maps of their own, not attached to anything.
class DnsKernel {
 public:
  // Null with a reason in *why, when there is no privilege to load programs. max_learned: room for
  // addresses, 0 for the usual.
  static std::unique_ptr<DnsKernel> load(std::string* why, std::uint32_t max_learned = 0);
  ~DnsKernel();
  DnsKernel(const DnsKernel&) = delete;
  DnsKernel& operator=(const DnsKernel&) = delete;

  // Fills the given slot and puts it in force.
  void set_policy(std::span<const enforce::NamePattern> patterns, egressd_dns_config config,
                  std::uint32_t slot = 0, std::uint32_t generation = 1);
  egressd_dns_config usual_config() const;
  void trust_server(const egressd_addr& address, std::uint32_t links, std::uint32_t slots = 3);
  void trust_link(std::uint32_t netns, std::uint32_t ifindex, std::uint32_t links);
  // Forgets every server and link.
  void trust_nobody();
  // What packets say of themselves from now on; 0 = lo, one datagram.
  void device(std::uint32_t ifindex) { ifindex_ = ifindex; }
  void segmentation_offload(std::uint32_t size) { gso_size_ = size; }

  // Each runs one program on one message or packet; false only if the run itself failed.
  bool judge(std::span<const std::uint8_t> message);
  bool answer(std::span<const std::uint8_t> message);
  // Verdict of the program: 1 passes.
  int out(std::span<const std::uint8_t> packet);
  int in(std::span<const std::uint8_t> packet);
  bool grant(std::span<const egressd_grant_request> requests);
  // As grant(), with a frame of its own: the only method for two threads at a time.
  static bool grant_from_thread(const DnsKernel& kernel,
                                std::span<const egressd_grant_request> requests);

  dns_test_io& io() { return *io_; }
  std::uint64_t count(std::uint32_t outcome) const;
  std::uint64_t reason_count(std::uint32_t reason) const;
  // By address; values as in the kernel.
  std::map<std::array<std::uint8_t, 16>, egressd_learned> learned() const;
  void forget();
  // learned() and forget() at once, in one call to the kernel.
  void take_learned(
      std::vector<std::pair<std::array<std::uint8_t, 16>, egressd_learned>>& learned) const;
  // Nothing is outstanding.
  void forget_questions();
  // A TCP connection without any state, instead of the last one's; see dns_wrappers.bpf.c.
  void new_stream();
  std::vector<std::vector<std::uint8_t>> events();
  std::vector<std::pair<std::string, std::uint32_t>> verified_instructions() const;

 private:
  DnsKernel() = default;
  int run(int program, std::span<const std::uint8_t> data, std::uint16_t ether_type,
          std::uint32_t* verdict);

  dns_test_bpf* skel_ = nullptr;
  dns_test_io* io_ = nullptr;
  enforce::NameKey key_{0x5eedULL, 0xfeedULL};
  std::uint32_t ifindex_ = 0;
  std::uint32_t gso_size_ = 0;
  std::vector<std::uint8_t> frame_;
};

}  // namespace egressd::test
