// `socket cgroupv2 level 0`: what a table behind eBPF rests on when the root is judged, which the
// end-to-end tests leave alone.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "base/unique_fd.h"
#include "enforce/cgroup.h"
#include "nft/batch.h"
#include "nft/connection.h"

namespace egressd::nft {
namespace {

// Of a datagram over loopback; 0: it left.
int error_of_datagram() {
  const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM, 0));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(9);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return ::sendto(socket.get(), "x", 1, 0, reinterpret_cast<sockaddr*>(&to), sizeof(to)) == 1
             ? 0
             : errno;
}

TEST(RootCgroup, EverySocketIsBelowIt) {
  ASSERT_EQ(::unshare(CLONE_NEWNET), 0) << "needs root";
  ifreq up{};
  std::strcpy(up.ifr_name, "lo");
  up.ifr_flags = IFF_UP;
  const UniqueFd any(::socket(AF_INET, SOCK_DGRAM, 0));
  ASSERT_EQ(::ioctl(any.get(), SIOCSIFFLAGS, &up), 0);
  const auto mount = enforce::find_cgroup2_mount();
  ASSERT_TRUE(mount) << mount.error().message;
  const auto root = enforce::cgroup_id(*mount);
  ASSERT_TRUE(root) << root.error().message;
  auto connection = Connection::open();
  ASSERT_TRUE(connection) << connection.error().message;

  for (const std::uint64_t id : {*root, *root + 1}) {
    Batch batch;
    batch.add_table();
    batch.add_chain({.name = "output", .hook = Chain::Hook::Output, .drop = true});
    batch.flush_chain("output");
    batch.add_rule("output", Rule().cgroup(0, id).accept());
    const auto r = (*connection)->commit(batch);
    ASSERT_TRUE(r) << r.error().message;
    EXPECT_EQ(error_of_datagram(), id == *root ? 0 : EPERM);
    EXPECT_EQ((*connection)->count_rules("output"), 1u);
    EXPECT_EQ((*connection)->count_rules("forward"), 0u);
  }
}

}  // namespace
}  // namespace egressd::nft
