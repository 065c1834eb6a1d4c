#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "enforce/backend.h"
#include "net/ip_address.h"

namespace egressd::test {

// A network namespace, a cgroup and a BPF file system of the test's own, with the product's
// programs loaded and attached there. Skips where the test may not make them.
class KernelTest : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  // Runs `program` (a name of bpf/) on one packet by BPF_PROG_TEST_RUN, as if sent over a device
  // that is not loopback. Returns the program's verdict: 1 pass, 0 drop.
  int run(const std::string& program, const std::vector<std::uint8_t>& packet);
  // From now on packets are sent over the loopback device.
  void over_loopback() { ifindex_ = 1; }
  // Descriptor of an attached program; owned by the fixture.
  int program_fd(const std::string& name);

  // By how much each counter moved since the last call.
  enforce::Counters moved();
  // Exactly one verdict since the last call: its enum egressd_reason, else -1.
  int single_reason();

  std::unique_ptr<enforce::Backend> backend_;
  std::string cgroup_;
  std::string bpffs_;

 private:
  int original_netns_ = -1;
  unsigned ifindex_ = 0;
  enforce::Counters last_;
  std::vector<std::pair<std::string, int>> programs_;
};

struct PacketSpec {
  net::IpAddress source, destination;
  std::uint8_t protocol = 6;
  std::uint16_t source_port = 40000, destination_port = 0;  // host byte order
  std::size_t payload = 8;
};

// Ethernet + IP + the first bytes of the transport header, ports for those that have them.
std::vector<std::uint8_t> make_packet(const PacketSpec& spec);

}  // namespace egressd::test
