// To be preloaded into egressd: a kernel, or a container, that lets nobody change nftables. With
// EGRESSD_NO_NFT_AFTER=N after N sockets only: one that lacks a part.
#include <dlfcn.h>
#include <libmnl/libmnl.h>
#include <linux/netlink.h>

#include <cerrno>
#include <cstdlib>

extern "C" mnl_socket* mnl_socket_open2(int bus, int flags) {
  static int opened = 0;
  const char* after = std::getenv("EGRESSD_NO_NFT_AFTER");
  if (bus == NETLINK_NETFILTER && opened++ >= (after == nullptr ? 0 : std::atoi(after))) {
    errno = EPERM;
    return nullptr;
  }
  const auto real =
      reinterpret_cast<decltype(&mnl_socket_open2)>(::dlsym(RTLD_NEXT, "mnl_socket_open2"));
  return real(bus, flags);
}
