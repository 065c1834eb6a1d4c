#include "kernel_fixture.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "enforce/bpf_backend.h"
#include "enforce/cgroup.h"

namespace egressd::test {

void KernelTest::SetUp() {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to load BPF programs";
  const auto mount = enforce::find_cgroup2_mount();
  if (!mount) GTEST_SKIP() << mount.error().message;

  original_netns_ = ::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
  ASSERT_EQ(::unshare(CLONE_NEWNET), 0) << std::strerror(errno);
  // Any device but loopback; it carries nothing.
  ASSERT_EQ(::system("ip link set lo up && ip link add eg0 type veth peer name eg1"), 0);
  ifindex_ = ::if_nametoindex("eg0");
  ASSERT_NE(ifindex_, 0u);

  char cgroup[4096];
  std::snprintf(cgroup, sizeof(cgroup), "%s/egressd-test-%d", mount->c_str(), ::getpid());
  cgroup_ = cgroup;
  ASSERT_EQ(::mkdir(cgroup, 0755), 0) << std::strerror(errno);
  char bpffs[] = "/tmp/egressd-bpffs-XXXXXX";
  bpffs_ = ::mkdtemp(bpffs);

  enforce::BpfOptions options;
  options.cgroup_path = cgroup_;
  options.bpffs_dir = bpffs_;
  options.max_learned = 65536;
  auto backend = enforce::open_bpf_backend(options);
  ASSERT_TRUE(backend) << backend.error().message;
  backend_ = std::move(*backend);
  const auto attached = backend_->attach();
  ASSERT_TRUE(attached) << attached.error().message;
}

void KernelTest::TearDown() {
  for (const auto& [name, fd] : programs_) ::close(fd);
  if (backend_) {
    EXPECT_TRUE(backend_->detach());
    backend_.reset();
  }
  if (!bpffs_.empty()) {
    ::umount2(bpffs_.c_str(), MNT_DETACH);
    ::rmdir(bpffs_.c_str());
  }
  if (!cgroup_.empty()) ::rmdir(cgroup_.c_str());
  if (original_netns_ >= 0) {
    EXPECT_EQ(::setns(original_netns_, CLONE_NEWNET), 0);
    ::close(original_netns_);
  }
}

int KernelTest::program_fd(const std::string& name) {
  for (const auto& [known, fd] : programs_) {
    if (known == name) return fd;
  }
  const std::string path = bpffs_ + "/v" + std::to_string(EGRESSD_ABI_VERSION) + "/links/" + name;
  const int link = ::bpf_obj_get(path.c_str());
  bpf_link_info info{};
  __u32 length = sizeof(info);
  if (link < 0 || ::bpf_obj_get_info_by_fd(link, &info, &length) != 0) {
    ADD_FAILURE() << path << ": " << std::strerror(errno);
    return -1;
  }
  ::close(link);
  const int fd = ::bpf_prog_get_fd_by_id(info.prog_id);
  programs_.emplace_back(name, fd);
  return fd;
}

int KernelTest::run(const std::string& program, const std::vector<std::uint8_t>& packet) {
  __sk_buff context{};
  context.ifindex = ifindex_;
  LIBBPF_OPTS(bpf_test_run_opts, options);
  options.data_in = packet.data();
  options.data_size_in = static_cast<__u32>(packet.size());
  options.ctx_in = &context;
  options.ctx_size_in = sizeof(context);
  options.repeat = 1;
  if (::bpf_prog_test_run_opts(program_fd(program), &options) != 0) {
    ADD_FAILURE() << program << ": " << std::strerror(errno);
    return -1;
  }
  return static_cast<int>(options.retval);
}

enforce::Counters KernelTest::moved() {
  const auto now = backend_->counters();
  enforce::Counters delta;
  if (!now) {
    ADD_FAILURE() << now.error().message;
    return delta;
  }
  for (std::size_t i = 0; i < delta.reasons.size(); ++i)
    delta.reasons[i] = now->reasons[i] - last_.reasons[i];
  for (std::size_t i = 0; i < delta.stats.size(); ++i)
    delta.stats[i] = now->stats[i] - last_.stats[i];
  last_ = *now;
  return delta;
}

int KernelTest::single_reason() {
  const auto delta = moved();
  int reason = -1;
  for (std::size_t i = 0; i < delta.reasons.size(); ++i) {
    if (delta.reasons[i] == 0) continue;
    if (delta.reasons[i] != 1 || reason != -1) return -1;
    reason = static_cast<int>(i);
  }
  return reason;
}

std::vector<std::uint8_t> make_packet(const PacketSpec& spec) {
  const bool v4 = spec.destination.is_v4();
  std::vector<std::uint8_t> packet(14);
  packet[12] = v4 ? 0x08 : 0x86;
  packet[13] = v4 ? 0x00 : 0xdd;
  const std::size_t body = 8 + spec.payload;
  if (v4) {
    iphdr ip{};
    ip.version = 4;
    ip.ihl = 5;
    ip.ttl = 64;
    ip.protocol = spec.protocol;
    ip.tot_len = htons(static_cast<std::uint16_t>(sizeof(ip) + body));
    std::memcpy(&ip.saddr, spec.source.bytes().data() + 12, 4);
    std::memcpy(&ip.daddr, spec.destination.bytes().data() + 12, 4);
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(&ip);
    packet.insert(packet.end(), bytes, bytes + sizeof(ip));
  } else {
    ip6_hdr ip{};
    ip.ip6_vfc = 0x60;
    ip.ip6_hlim = 64;
    ip.ip6_nxt = spec.protocol;
    ip.ip6_plen = htons(static_cast<std::uint16_t>(body));
    std::memcpy(&ip.ip6_src, spec.source.bytes().data(), 16);
    std::memcpy(&ip.ip6_dst, spec.destination.bytes().data(), 16);
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(&ip);
    packet.insert(packet.end(), bytes, bytes + sizeof(ip));
  }
  for (const std::uint16_t port : {spec.source_port, spec.destination_port}) {
    packet.push_back(static_cast<std::uint8_t>(port >> 8));
    packet.push_back(static_cast<std::uint8_t>(port & 0xff));
  }
  packet.resize(packet.size() + 4 + spec.payload);
  return packet;
}

}  // namespace egressd::test
