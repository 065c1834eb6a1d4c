// To be preloaded into egressd: a kernel, or a container, that lets nobody change nftables.
#include <dlfcn.h>
#include <libmnl/libmnl.h>
#include <linux/netlink.h>

#include <cerrno>

extern "C" mnl_socket* mnl_socket_open2(int bus, int flags) {
  if (bus == NETLINK_NETFILTER) {
    errno = EPERM;
    return nullptr;
  }
  const auto real =
      reinterpret_cast<decltype(&mnl_socket_open2)>(::dlsym(RTLD_NEXT, "mnl_socket_open2"));
  return real(bus, flags);
}
