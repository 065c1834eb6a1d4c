#include "dns/ask.h"

#include <ares.h>
#include <arpa/nameser.h>
#include <netinet/in.h>
#include <sys/select.h>

#include <algorithm>
#include <cstring>
#include <optional>

namespace egressd::dns {
namespace {

using Steady = std::chrono::steady_clock;

// The library and one channel of it, as long as the question takes.
struct Channel {
  Channel() = default;
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;
  ~Channel() {
    if (channel != nullptr) ares_destroy(channel);
    if (library_ready) ares_library_cleanup();
  }

  bool library_ready = false;
  ares_channel channel = nullptr;
};

int open(Channel& own, const net::IpAddress& server, std::chrono::milliseconds timeout) {
  if (const int status = ares_library_init(ARES_LIB_INIT_ALL); status != ARES_SUCCESS)
    return status;
  own.library_ready = true;
  // As in resolver.cpp: nothing is left to /etc/resolv.conf or the environment.
  ares_options options{};
  std::string lookups = "b";
  in_addr placeholder{};
  options.flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES | ARES_FLAG_NOCHECKRESP;
  options.timeout = static_cast<int>(timeout.count());
  options.tries = 1;
  options.ndots = 1;
  options.servers = &placeholder;
  options.nservers = 1;
  options.lookups = lookups.data();
  constexpr int kMask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_NDOTS |
                        ARES_OPT_SERVERS | ARES_OPT_DOMAINS | ARES_OPT_LOOKUPS | ARES_OPT_SORTLIST |
                        ARES_OPT_NOROTATE;
  if (const int status = ares_init_options(&own.channel, &options, kMask); status != ARES_SUCCESS) {
    own.channel = nullptr;
    return status;
  }
  ares_addr_node node{};
  const auto& bytes = server.bytes();
  if (server.is_v4()) {
    node.family = AF_INET;
    std::memcpy(&node.addr.addr4, bytes.data() + 12, sizeof(node.addr.addr4));
  } else {
    node.family = AF_INET6;
    std::memcpy(&node.addr.addr6, bytes.data(), sizeof(node.addr.addr6));
  }
  return ares_set_servers(own.channel, &node);
}

void on_reply(void* arg, int status, int /*timeouts*/, unsigned char* /*message*/, int /*size*/) {
  *static_cast<std::optional<int>*>(arg) = status;
}

Result<std::string> text_of(int status) {
  switch (status) {
    case ARES_SUCCESS:
    case ARES_ENODATA:
      return "NOERROR";
    case ARES_ENOTFOUND:
      return "NXDOMAIN";
    case ARES_ESERVFAIL:
      return "SERVFAIL";
    case ARES_EREFUSED:
      return "REFUSED";
    case ARES_ENOTIMP:
      return "NOTIMP";
    case ARES_EFORMERR:
      return "FORMERR";
    case ARES_ECONNREFUSED:
      return std::unexpected(Error::of("refused or unreachable"));
    case ARES_ETIMEOUT:
      return std::unexpected(Error::of("no answer in time"));
    default:
      return std::unexpected(Error::of(ares_strerror(status)));
  }
}

}  // namespace

Result<std::string> ask_once(const net::IpAddress& server, const std::string& name,
                             std::uint16_t type, std::chrono::milliseconds timeout) {
  std::optional<int> status;  // outlives the channel, which may still write to it when it goes
  Channel own;
  if (const int failed = open(own, server, timeout); failed != ARES_SUCCESS)
    return std::unexpected(Error::of(std::string("c-ares: ") + ares_strerror(failed)));
  const auto deadline = Steady::now() + timeout;
  ares_query(own.channel, name.c_str(), ns_c_in, type, &on_reply, &status);
  while (!status && Steady::now() < deadline) {
    // A handful of descriptors, all opened here.
    fd_set readable, writable;
    FD_ZERO(&readable);
    FD_ZERO(&writable);
    const int count = ares_fds(own.channel, &readable, &writable);
    const auto left = std::chrono::duration_cast<std::chrono::microseconds>(
        std::max(deadline - Steady::now(), Steady::duration::zero()));
    timeval limit{.tv_sec = left.count() / 1'000'000, .tv_usec = left.count() % 1'000'000};
    timeval wait{};
    if (::select(count, &readable, &writable, nullptr, ares_timeout(own.channel, &limit, &wait)) <
        0)
      return std::unexpected(Error::from_errno("select"));
    ares_process(own.channel, &readable, &writable);
  }
  return text_of(status.value_or(ARES_ETIMEOUT));
}

}  // namespace egressd::dns
