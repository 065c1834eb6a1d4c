// egressd_probe: the workload of the end-to-end tests. One connection attempt per call, with the
// errno and the time it took on one line; and the listeners on the other side.
//
// Exit status of the probes: 0 the other side answered, 1 it failed (the line says errno=NAME),
// 2 wrong usage, 77 this kernel does not have the protocol.

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr int kExitOk = 0;
constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;
constexpr int kExitUnsupported = 77;

constexpr char kUsage[] =
    "usage: egressd_probe KIND ADDRESS PORT [options]      one attempt\n"
    "       egressd_probe resolve NAME PORT [options]      getaddrinfo, then connect at once\n"
    "       egressd_probe hold ADDRESS PORT [options]      connect; one echo per line of stdin\n"
    "       egressd_probe hold-udp ADDRESS PORT [options]  the same with datagrams\n"
    "       egressd_probe listen [tcp|udp|raw:PROTO] PORT…  echo on every address, v4 and v6\n"
    "       egressd_probe accept-once PORT                 accept one, close the listener, echo\n"
    "KIND   tcp | udp | udp-connected | icmp | raw-tcp | raw-udp | raw:PROTO | sctp | ask | "
    "forged\n"
    "       (icmp and raw:PROTO take a PORT too, and ignore it)\n"
    "       ask     one DNS question (--name, --type) over UDP; ok if it is answered, however\n"
    "       forged  one UDP datagram under an IP header of our own (--bind, --header-to); ok if "
    "sent\n"
    "options --timeout MS (1000)  --bind ADDRESS  --bind-port PORT  --freebind  --device NAME\n"
    "        --send N datagrams (1)  --name NAME  --type N (1)  --header-to ADDRESS\n"
    "        --linger MS  -4  -6\n";

class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { reset(); }
  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] bool valid() const { return fd_ >= 0; }
  void reset() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }

 private:
  int fd_ = -1;
};

// A socket address of either family.
struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;

  [[nodiscard]] int family() const { return storage.ss_family; }
  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  [[nodiscard]] sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  [[nodiscard]] sockaddr_in& v4() { return reinterpret_cast<sockaddr_in&>(storage); }
  [[nodiscard]] sockaddr_in6& v6() { return reinterpret_cast<sockaddr_in6&>(storage); }
  [[nodiscard]] const sockaddr_in& v4() const {
    return reinterpret_cast<const sockaddr_in&>(storage);
  }
  [[nodiscard]] const sockaddr_in6& v6() const {
    return reinterpret_cast<const sockaddr_in6&>(storage);
  }

  static std::optional<Address> parse(const std::string& text, std::uint16_t port) {
    Address result;
    if (inet_pton(AF_INET, text.c_str(), &result.v4().sin_addr) == 1) {
      result.v4().sin_family = AF_INET;
      result.v4().sin_port = htons(port);
      result.size = sizeof(sockaddr_in);
      return result;
    }
    if (inet_pton(AF_INET6, text.c_str(), &result.v6().sin6_addr) == 1) {
      result.v6().sin6_family = AF_INET6;
      result.v6().sin6_port = htons(port);
      result.size = sizeof(sockaddr_in6);
      return result;
    }
    return std::nullopt;
  }

  static Address any(int family, std::uint16_t port) {
    Address result;
    result.storage.ss_family = static_cast<sa_family_t>(family);
    if (family == AF_INET) {
      result.v4().sin_port = htons(port);
      result.size = sizeof(sockaddr_in);
    } else {
      result.v6().sin6_port = htons(port);
      result.size = sizeof(sockaddr_in6);
    }
    return result;
  }

  // The bytes of the IP address, network order.
  [[nodiscard]] std::span<const std::uint8_t> bytes() const {
    if (family() == AF_INET) {
      return {reinterpret_cast<const std::uint8_t*>(&v4().sin_addr), 4};
    }
    return {reinterpret_cast<const std::uint8_t*>(&v6().sin6_addr), 16};
  }

  [[nodiscard]] std::string to_string() const {
    std::array<char, INET6_ADDRSTRLEN> text{};
    const void* source = family() == AF_INET ? static_cast<const void*>(&v4().sin_addr)
                                             : static_cast<const void*>(&v6().sin6_addr);
    inet_ntop(family(), source, text.data(), text.size());
    return text.data();
  }
};

struct Options {
  milliseconds timeout{1000};
  std::string bind;
  std::uint16_t bind_port = 0;
  bool freebind = false;  // `bind` need not be an address of this host
  std::string device;     // SO_BINDTODEVICE
  std::string name;
  std::uint16_t type = 1;
  std::string header_to;  // destination in the header, where it is not the one routed by
  int send = 1;
  milliseconds linger{0};
  int family = AF_UNSPEC;
};

// What became of one attempt.
struct Outcome {
  int error = 0;  // errno, 0 = the other side answered
  bool unsupported = false;
  const char* call = nullptr;  // the one that failed, where it matters which
};

Outcome failed() { return {.error = errno}; }

int remaining_ms(Clock::time_point deadline) {
  const auto left = std::chrono::ceil<milliseconds>(deadline - Clock::now()).count();
  return static_cast<int>(std::max<std::int64_t>(left, 0));
}

// Waits for `events`; 0, or the errno to report (ETIMEDOUT when nobody answered).
int wait_for(int fd, short events, Clock::time_point deadline) {
  pollfd entry{.fd = fd, .events = events, .revents = 0};
  for (;;) {
    const int ready = poll(&entry, 1, remaining_ms(deadline));
    if (ready > 0) return 0;
    if (ready == 0) return ETIMEDOUT;
    if (errno != EINTR) return errno;
  }
}

int bind_local(int fd, int family, const Options& options) {
  const int one = 1;
  if (options.freebind) {
    const bool v4 = family == AF_INET;
    if (setsockopt(fd, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_FREEBIND : IPV6_FREEBIND, &one,
                   sizeof one) != 0) {
      return errno;
    }
  }
  if (!options.device.empty() && setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, options.device.data(),
                                            static_cast<socklen_t>(options.device.size())) != 0) {
    return errno;
  }
  if (options.bind.empty() && options.bind_port == 0) return 0;
  auto local = options.bind.empty() ? Address::any(family, options.bind_port)
                                    : Address::parse(options.bind, options.bind_port);
  if (!local) return EINVAL;
  return bind(fd, local->get(), local->size) == 0 ? 0 : errno;
}

// Sends a few bytes over a connected stream and waits for all of them to come back, so that "ok"
// means data passed both ways, not only the handshake.
Outcome echo_stream(int fd, Clock::time_point deadline) {
  constexpr std::string_view kText = "egressd\n";
  if (send(fd, kText.data(), kText.size(), MSG_NOSIGNAL) != std::ssize(kText)) return failed();
  std::array<char, 64> buffer{};
  std::size_t got = 0;
  while (got < kText.size()) {
    if (const int error = wait_for(fd, POLLIN, deadline)) return {.error = error};
    const ssize_t n = recv(fd, buffer.data() + got, buffer.size() - got, 0);
    if (n < 0) return failed();
    if (n == 0) return {.error = ECONNRESET};
    got += static_cast<std::size_t>(n);
  }
  return {};
}

Outcome connect_stream(Fd& fd, const Address& to, int protocol, const Options& options,
                       Clock::time_point deadline) {
  fd = Fd(socket(to.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol));
  if (!fd.valid()) return {.error = errno, .unsupported = errno == EPROTONOSUPPORT};
  if (const int error = bind_local(fd.get(), to.family(), options)) return {.error = error};
  if (connect(fd.get(), to.get(), to.size) != 0) {
    if (errno != EINPROGRESS) return failed();
    if (const int error = wait_for(fd.get(), POLLOUT, deadline)) return {.error = error};
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) return {.error = error};
  }
  return {};
}

Outcome probe_stream(const Address& to, int protocol, const Options& options) {
  const auto deadline = Clock::now() + options.timeout;
  Fd fd;
  return connect_stream(fd, to, protocol, options, deadline);
}

// One datagram and its echo. to == nullptr: the socket is connected.
Outcome exchange(int fd, const Address* to, const std::string& text, Clock::time_point deadline) {
  const ssize_t sent = to == nullptr ? send(fd, text.data(), text.size(), 0)
                                     : sendto(fd, text.data(), text.size(), 0, to->get(), to->size);
  if (sent != std::ssize(text)) return {.error = errno, .call = "send"};
  if (const int error = wait_for(fd, POLLIN, deadline)) return {.error = error};
  std::array<char, 256> buffer{};
  const ssize_t got = recv(fd, buffer.data(), buffer.size(), 0);
  if (got < 0) return failed();
  if (std::string_view(buffer.data(), static_cast<std::size_t>(got)) != text) {
    return {.error = EBADMSG};
  }
  return {};
}

Outcome probe_udp(const Address& to, bool connected, const Options& options) {
  const auto deadline = Clock::now() + options.timeout;
  const Fd fd(socket(to.family(), SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return failed();
  if (const int error = bind_local(fd.get(), to.family(), options)) return {.error = error};
  const int one = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_BROADCAST, &one, sizeof one);
  if (connected && connect(fd.get(), to.get(), to.size) != 0) {
    return {.error = errno, .call = "connect"};
  }
  for (int i = 0; i < options.send; ++i) {
    const Outcome echo =
        exchange(fd.get(), connected ? nullptr : &to, "egressd " + std::to_string(i), deadline);
    if (echo.error != 0) return echo;
  }
  return {};
}

// RFC 1071, over any number of pieces with even lengths (but the last).
class Checksum {
 public:
  void add(std::span<const std::uint8_t> bytes) {
    for (std::size_t i = 0; i < bytes.size(); i += 2) {
      const unsigned low = i + 1 < bytes.size() ? bytes[i + 1] : 0U;
      sum_ += (static_cast<std::uint32_t>(bytes[i]) << 8) | low;
    }
  }
  // Network byte order.
  [[nodiscard]] std::uint16_t value() const {
    std::uint32_t sum = sum_;
    while ((sum >> 16) != 0) sum = (sum & 0xffff) + (sum >> 16);
    return htons(static_cast<std::uint16_t>(~sum));
  }

 private:
  std::uint32_t sum_ = 0;
};

template <typename T>
std::span<const std::uint8_t> as_bytes(const T& value) {
  return {reinterpret_cast<const std::uint8_t*>(&value), sizeof value};
}

void add_pseudo_header(Checksum& sum, const Address& from, const Address& to, std::uint8_t protocol,
                       std::uint16_t length) {
  sum.add(from.bytes());
  sum.add(to.bytes());
  const std::array<std::uint8_t, 4> tail{0, protocol, static_cast<std::uint8_t>(length >> 8),
                                         static_cast<std::uint8_t>(length & 0xff)};
  sum.add(tail);
}

// The payload of a packet on a raw socket: IPv4 hands over the IP header too, IPv6 does not.
std::span<const std::uint8_t> raw_payload(int family, std::span<const std::uint8_t> packet) {
  if (family == AF_INET6) return packet;
  if (packet.size() < sizeof(iphdr)) return {};
  const std::size_t header = std::size_t{packet[0] & 0x0fU} * 4;
  return packet.size() >= header ? packet.subspan(header) : std::span<const std::uint8_t>{};
}

std::uint16_t read16(std::span<const std::uint8_t> bytes, std::size_t offset) {
  return static_cast<std::uint16_t>((bytes[offset] << 8) | bytes[offset + 1]);
}

// Writes one packet of `protocol` on a raw socket and waits for a packet that `is_reply` accepts.
template <typename IsReply>
Outcome exchange_raw(int fd, const Address& to, std::span<const std::uint8_t> packet,
                     Clock::time_point deadline, IsReply is_reply) {
  // The raw socket of an IPv6 protocol takes the port field for a protocol number.
  Address destination = to;
  if (to.family() == AF_INET6) destination.v6().sin6_port = 0;
  if (sendto(fd, packet.data(), packet.size(), 0, destination.get(), destination.size) !=
      std::ssize(packet)) {
    return failed();
  }
  for (;;) {
    if (const int error = wait_for(fd, POLLIN, deadline)) return {.error = error};
    std::array<std::uint8_t, 2048> buffer{};
    Address from;
    from.size = sizeof from.storage;
    const ssize_t got = recvfrom(fd, buffer.data(), buffer.size(), 0, from.get(), &from.size);
    if (got < 0) return failed();
    if (!std::ranges::equal(from.bytes(), to.bytes())) continue;
    const auto payload =
        raw_payload(to.family(), std::span(buffer).first(static_cast<std::size_t>(got)));
    if (is_reply(payload)) return {};
  }
}

// The local address the kernel would use. On a raw socket connect() only looks up the route: it
// is not one of the calls that egressd's connect hook sees, the packet itself is.
std::optional<Address> source_for(int fd, const Address& to) {
  Address target = to;
  if (to.family() == AF_INET6) target.v6().sin6_port = 0;
  if (connect(fd, target.get(), target.size) != 0) return std::nullopt;
  Address from;
  from.size = sizeof from.storage;
  if (getsockname(fd, from.get(), &from.size) != 0) return std::nullopt;
  return from;
}

std::uint16_t port_of(const Address& address) {
  return ntohs(address.family() == AF_INET ? address.v4().sin_port : address.v6().sin6_port);
}

Outcome probe_raw_tcp(const Address& to, const Options& options) {
  const auto deadline = Clock::now() + options.timeout;
  const Fd fd(socket(to.family(), SOCK_RAW | SOCK_CLOEXEC, IPPROTO_TCP));
  if (!fd.valid()) return failed();
  const auto from = source_for(fd.get(), to);
  if (!from) return failed();
  const auto source_port = static_cast<std::uint16_t>(
      options.bind_port != 0 ? options.bind_port : 20000 + getpid() % 10000);
  tcphdr header{};
  header.source = htons(source_port);
  header.dest = htons(port_of(to));
  header.seq = htonl(1);
  header.doff = sizeof header / 4;
  header.syn = 1;
  header.window = htons(1024);
  Checksum sum;
  add_pseudo_header(sum, *from, to, IPPROTO_TCP, sizeof header);
  sum.add(as_bytes(header));
  header.check = sum.value();
  return exchange_raw(fd.get(), to, as_bytes(header), deadline, [&](auto payload) {
    constexpr std::uint8_t kSynAck = 0x12;
    return payload.size() >= sizeof header && read16(payload, 2) == source_port &&
           (payload[13] & kSynAck) == kSynAck;
  });
}

Outcome probe_raw_udp(const Address& to, const Options& options) {
  const auto deadline = Clock::now() + options.timeout;
  const Fd fd(socket(to.family(), SOCK_RAW | SOCK_CLOEXEC, IPPROTO_UDP));
  if (!fd.valid()) return failed();
  const auto from = source_for(fd.get(), to);
  if (!from) return failed();
  const auto source_port = static_cast<std::uint16_t>(
      options.bind_port != 0 ? options.bind_port : 20000 + getpid() % 10000);
  struct {
    udphdr header;
    std::array<char, 8> text;
  } packet{.header = {}, .text = {'e', 'g', 'r', 'e', 's', 's', 'd', '\n'}};
  packet.header.source = htons(source_port);
  packet.header.dest = htons(port_of(to));
  packet.header.len = htons(sizeof packet);
  Checksum sum;
  add_pseudo_header(sum, *from, to, IPPROTO_UDP, sizeof packet);
  sum.add(as_bytes(packet));
  packet.header.check = sum.value();
  return exchange_raw(fd.get(), to, as_bytes(packet), deadline, [&](auto payload) {
    return payload.size() >= sizeof(udphdr) && read16(payload, 2) == source_port;
  });
}

// One question as a resolver library sends it, without the library's second thoughts: the name as
// it stands, one server, one try.
Outcome probe_ask(const Address& to, const Options& options) {
  const auto deadline = Clock::now() + options.timeout;
  const Fd fd(socket(to.family(), SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return failed();
  if (const int error = bind_local(fd.get(), to.family(), options)) return {.error = error};
  const auto id = static_cast<std::uint16_t>(getpid());
  std::vector<std::uint8_t> message;
  const auto put = [&](std::uint16_t value) {
    message.push_back(static_cast<std::uint8_t>(value >> 8));
    message.push_back(static_cast<std::uint8_t>(value & 0xff));
  };
  for (const std::uint16_t word : {id, std::uint16_t{0x0100}, std::uint16_t{1}, std::uint16_t{0},
                                   std::uint16_t{0}, std::uint16_t{0}}) {
    put(word);
  }
  for (std::string_view rest = options.name; !rest.empty();) {
    const auto label = rest.substr(0, rest.find('.'));
    message.push_back(static_cast<std::uint8_t>(label.size()));
    message.insert(message.end(), label.begin(), label.end());
    rest.remove_prefix(std::min(rest.size(), label.size() + 1));
  }
  message.push_back(0);
  put(options.type);
  put(1);
  if (sendto(fd.get(), message.data(), message.size(), 0, to.get(), to.size) !=
      std::ssize(message)) {
    return {.error = errno, .call = "send"};
  }
  if (const int error = wait_for(fd.get(), POLLIN, deadline)) return {.error = error};
  std::array<std::uint8_t, 4096> buffer{};
  const ssize_t got = recv(fd.get(), buffer.data(), buffer.size(), 0);
  if (got < 0) return failed();
  const bool ours = got >= 12 && read16(buffer, 0) == id && (buffer[2] & 0x80U) != 0;
  return {.error = ours ? 0 : EBADMSG};
}

// The kernel fills in what it always does (IPv4: length, id, header checksum); the addresses are
// ours, and need not be those it routes by.
Outcome probe_forged(const Address& to, const Options& options) {
  const auto from = Address::parse(options.bind, options.bind_port);
  const auto header_to =
      options.header_to.empty() ? to : Address::parse(options.header_to, port_of(to));
  if (!from || !header_to || from->family() != to.family() || header_to->family() != to.family()) {
    return {.error = EINVAL};
  }
  const Fd fd(socket(to.family(), SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW));
  if (!fd.valid()) return failed();
  struct {
    udphdr header;
    std::array<char, 8> text;
  } datagram{.header = {}, .text = {'f', 'o', 'r', 'g', 'e', 'd', '!', '\n'}};
  datagram.header.source = htons(options.bind_port);
  datagram.header.dest = htons(port_of(to));
  datagram.header.len = htons(sizeof datagram);
  Checksum sum;
  add_pseudo_header(sum, *from, *header_to, IPPROTO_UDP, sizeof datagram);
  sum.add(as_bytes(datagram));
  datagram.header.check = sum.value();

  std::vector<std::uint8_t> packet;
  if (to.family() == AF_INET) {
    iphdr header{};
    header.version = 4;
    header.ihl = sizeof header / 4;
    header.ttl = 64;
    header.protocol = IPPROTO_UDP;
    header.saddr = from->v4().sin_addr.s_addr;
    header.daddr = header_to->v4().sin_addr.s_addr;
    std::ranges::copy(as_bytes(header), std::back_inserter(packet));
  } else {
    ip6_hdr header{};
    header.ip6_flow = htonl(6U << 28);
    header.ip6_plen = htons(sizeof datagram);
    header.ip6_nxt = IPPROTO_UDP;
    header.ip6_hlim = 64;
    header.ip6_src = from->v6().sin6_addr;
    header.ip6_dst = header_to->v6().sin6_addr;
    std::ranges::copy(as_bytes(header), std::back_inserter(packet));
  }
  std::ranges::copy(as_bytes(datagram), std::back_inserter(packet));
  Address route = to;
  if (to.family() == AF_INET6) route.v6().sin6_port = 0;
  if (sendto(fd.get(), packet.data(), packet.size(), 0, route.get(), route.size) !=
      std::ssize(packet)) {
    return {.error = errno, .call = "send"};
  }
  return {};
}

Outcome probe_raw_protocol(const Address& to, int protocol, const Options& options) {
  const auto deadline = Clock::now() + options.timeout;
  const Fd fd(socket(to.family(), SOCK_RAW | SOCK_CLOEXEC, protocol));
  if (!fd.valid()) return failed();
  const std::array<std::uint8_t, 16> packet{'e', 'g', 'r', 'e', 's', 's', 'd', '\n'};
  return exchange_raw(fd.get(), to, packet, deadline,
                      [&](auto payload) { return std::ranges::equal(payload, packet); });
}

Outcome probe_icmp(const Address& to, const Options& options) {
  const auto deadline = Clock::now() + options.timeout;
  const bool v4 = to.family() == AF_INET;
  const int protocol = v4 ? int{IPPROTO_ICMP} : int{IPPROTO_ICMPV6};
  const Fd fd(socket(to.family(), SOCK_RAW | SOCK_CLOEXEC, protocol));
  if (!fd.valid()) return failed();
  const auto id = static_cast<std::uint16_t>(getpid() & 0xffff);
  if (v4) {
    icmphdr header{};
    header.type = ICMP_ECHO;
    header.un.echo.id = htons(id);
    Checksum sum;
    sum.add(as_bytes(header));
    header.checksum = sum.value();
    return exchange_raw(fd.get(), to, as_bytes(header), deadline, [&](auto payload) {
      return payload.size() >= sizeof header && payload[0] == ICMP_ECHOREPLY &&
             read16(payload, 4) == id;
    });
  }
  icmp6_hdr header{};  // the kernel fills in the checksum of raw ICMPv6
  header.icmp6_type = ICMP6_ECHO_REQUEST;
  header.icmp6_id = htons(id);
  return exchange_raw(fd.get(), to, as_bytes(header), deadline, [&](auto payload) {
    return payload.size() >= sizeof header && payload[0] == ICMP6_ECHO_REPLY &&
           read16(payload, 4) == id;
  });
}

std::string milliseconds_since(Clock::time_point start) {
  const std::chrono::duration<double, std::milli> spent = Clock::now() - start;
  std::array<char, 32> text{};
  const int n = std::snprintf(text.data(), text.size(), "%.1fms", spent.count());
  return {text.data(), static_cast<std::size_t>(n)};
}

int report(const Outcome& outcome, Clock::time_point start, const std::string& note = "") {
  const std::string tail = (note.empty() ? "" : note + " ") + "after " + milliseconds_since(start);
  if (outcome.unsupported) {
    std::cout << "unsupported " << tail << std::endl;
    return kExitUnsupported;
  }
  if (outcome.error == 0) {
    std::cout << "ok " << tail << std::endl;
    return kExitOk;
  }
  const char* name = strerrorname_np(outcome.error);
  const std::string call = outcome.call == nullptr ? "" : std::string("in ") + outcome.call + ' ';
  std::cout << "errno=" << (name != nullptr ? name : std::to_string(outcome.error)) << ' ' << call
            << tail << std::endl;
  return kExitFailed;
}

template <typename Number>
std::optional<Number> to_number(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

int resolve_and_connect(const std::string& name, const std::string& port, const Options& options) {
  addrinfo hints{};
  hints.ai_family = options.family;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  auto start = Clock::now();
  if (const int error = getaddrinfo(name.c_str(), port.c_str(), &hints, &found)) {
    std::cout << "unresolved " << gai_strerror(error) << " after " << milliseconds_since(start)
              << std::endl;
    return kExitFailed;
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, &freeaddrinfo);
  Outcome outcome;
  std::string tried;
  for (const addrinfo* entry = found; entry != nullptr; entry = entry->ai_next) {
    Address to;
    std::memcpy(&to.storage, entry->ai_addr, entry->ai_addrlen);
    to.size = entry->ai_addrlen;
    tried = to.to_string();
    start = Clock::now();
    outcome = probe_stream(to, 0, options);
    if (outcome.error == 0) break;
  }
  const int status = report(outcome, start, tried);
  std::this_thread::sleep_for(options.linger);
  return status;
}

int hold(const Address& to, int type, const Options& options) {
  auto start = Clock::now();
  Fd fd;
  Outcome connected;
  if (type == SOCK_STREAM) {
    connected = connect_stream(fd, to, 0, options, start + options.timeout);
  } else {
    fd = Fd(socket(to.family(), SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (connect(fd.get(), to.get(), to.size) != 0) connected = failed();
  }
  if (const int status = report(connected, start); status != kExitOk) return status;
  int status = kExitOk;
  for (std::string line; std::getline(std::cin, line);) {
    start = Clock::now();
    const auto deadline = start + options.timeout;
    status = report(type == SOCK_STREAM ? echo_stream(fd.get(), deadline)
                                        : exchange(fd.get(), nullptr, "egressd", deadline),
                    start);
  }
  return status;
}

// One listening socket and what to do when it can be read.
struct Listener {
  Fd fd;
  enum class Kind { TcpAccept, TcpEcho, Datagram, Raw } kind = Kind::TcpAccept;
  int family = AF_INET;
};

// Answers from the address that was asked: one listener speaks for whole prefixes.
void echo_datagram(const Listener& listener) {
  std::array<std::uint8_t, 2048> buffer{};
  alignas(cmsghdr) std::array<char, 256> control{};
  Address from;
  iovec vector{.iov_base = buffer.data(), .iov_len = buffer.size()};
  msghdr message{};
  message.msg_name = from.get();
  message.msg_namelen = sizeof from.storage;
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t got = recvmsg(listener.fd.get(), &message, MSG_DONTWAIT);
  if (got < 0) return;
  auto payload = std::span<std::uint8_t>(buffer).first(static_cast<std::size_t>(got));
  if (listener.kind == Listener::Kind::Raw && listener.family == AF_INET) {
    payload =
        payload.subspan(std::min<std::size_t>(std::size_t{payload[0] & 0x0fU} * 4, payload.size()));
  }
  if (listener.kind == Listener::Kind::Raw && listener.family == AF_INET6) {
    from.v6().sin6_port = 0;
  }
  vector = {.iov_base = payload.data(), .iov_len = payload.size()};
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_PKTINFO) {
      auto* info = reinterpret_cast<in_pktinfo*>(CMSG_DATA(part));
      info->ipi_spec_dst = info->ipi_addr;
      info->ipi_ifindex = 0;
    } else if (part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_PKTINFO) {
      reinterpret_cast<in6_pktinfo*>(CMSG_DATA(part))->ipi6_ifindex = 0;
    }
  }
  message.msg_flags = 0;
  sendmsg(listener.fd.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

std::optional<Listener> open_listener(int family, int type, int protocol, std::uint16_t port) {
  Listener listener;
  listener.family = family;
  listener.kind = type == SOCK_STREAM  ? Listener::Kind::TcpAccept
                  : type == SOCK_DGRAM ? Listener::Kind::Datagram
                                       : Listener::Kind::Raw;
  listener.fd = Fd(socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol));
  if (!listener.fd.valid()) return std::nullopt;
  const int fd = listener.fd.get();
  const int one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (family == AF_INET6) {
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &one, sizeof one);
    // The addresses of a prefix routed to lo are local but on no interface: IPv6 checks that.
    setsockopt(fd, IPPROTO_IPV6, IPV6_FREEBIND, &one, sizeof one);
  } else {
    setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &one, sizeof one);
  }
  if (type != SOCK_RAW) {
    const Address local = Address::any(family, port);
    if (bind(fd, local.get(), local.size) != 0) return std::nullopt;
  }
  if (type == SOCK_STREAM && listen(fd, 1024) != 0) return std::nullopt;
  return listener;
}

int serve(const std::vector<std::unique_ptr<Listener>>& listeners) {
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  const Fd poller(epoll_create1(EPOLL_CLOEXEC));
  if (!poller.valid()) return kExitFailed;
  const auto watch = [&](Listener* listener) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = listener;
    return epoll_ctl(poller.get(), EPOLL_CTL_ADD, listener->fd.get(), &event) == 0;
  };
  for (const auto& listener : listeners) {
    if (!watch(listener.get())) return kExitFailed;
  }
  std::cout << "ready" << std::endl;
  std::array<char, 65536> buffer{};
  for (;;) {
    std::array<epoll_event, 64> events{};
    const int count = epoll_wait(poller.get(), events.data(), static_cast<int>(events.size()), -1);
    if (count < 0 && errno != EINTR) return kExitFailed;
    for (int i = 0; i < count; ++i) {
      auto* source = static_cast<Listener*>(events[static_cast<std::size_t>(i)].data.ptr);
      switch (source->kind) {
        case Listener::Kind::TcpAccept: {
          auto peer = std::make_unique<Listener>();
          peer->kind = Listener::Kind::TcpEcho;
          peer->fd = Fd(accept4(source->fd.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
          // The poller owns it from here; it is deleted when the other side closes.
          if (peer->fd.valid() && watch(peer.get())) std::ignore = peer.release();
          break;
        }
        case Listener::Kind::TcpEcho: {
          const ssize_t got = recv(source->fd.get(), buffer.data(), buffer.size(), 0);
          if (got > 0) {
            send(source->fd.get(), buffer.data(), static_cast<std::size_t>(got), MSG_NOSIGNAL);
          } else if (got == 0 || errno != EAGAIN) {
            delete source;
          }
          break;
        }
        case Listener::Kind::Datagram:
        case Listener::Kind::Raw:
          echo_datagram(*source);
          break;
      }
    }
  }
}

// listen [tcp] 80 443 udp 53 raw:132 …: a word changes what the ports after it mean.
int listen_all(std::span<const std::string> words) {
  std::vector<std::unique_ptr<Listener>> listeners;
  int type = SOCK_STREAM;
  const auto add = [&](int protocol, std::uint16_t port, const std::string& word) {
    for (const int family : {AF_INET, AF_INET6}) {
      auto listener = open_listener(family, type, protocol, port);
      if (!listener) {
        std::cerr << "egressd_probe: cannot listen on " << word << ": " << std::strerror(errno)
                  << '\n';
        return false;
      }
      listeners.push_back(std::make_unique<Listener>(std::move(*listener)));
    }
    return true;
  };
  for (const std::string& word : words) {
    if (word == "tcp") {
      type = SOCK_STREAM;
    } else if (word == "udp") {
      type = SOCK_DGRAM;
    } else if (word.starts_with("raw:")) {
      const auto protocol = to_number<std::uint8_t>(std::string_view(word).substr(4));
      if (!protocol) return kExitUsage;
      const int before = std::exchange(type, SOCK_RAW);
      if (!add(*protocol, 0, word)) return kExitFailed;
      type = before;
    } else if (const auto port = to_number<std::uint16_t>(word)) {
      if (!add(0, *port, word)) return kExitFailed;
    } else {
      return kExitUsage;
    }
  }
  return listeners.empty() ? kExitUsage : serve(listeners);
}

// A server that takes one connection and closes its listener before it answers, as inetd-style
// and debugging servers do: nothing listens on the local port any more while it talks.
int accept_once(std::uint16_t port) {
  auto listener = open_listener(AF_INET, SOCK_STREAM, 0, port);
  if (!listener) return kExitFailed;
  std::cout << "ready" << std::endl;
  if (wait_for(listener->fd.get(), POLLIN, Clock::now() + std::chrono::seconds(30)) != 0) {
    return kExitFailed;
  }
  const Fd peer(accept4(listener->fd.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!peer.valid()) return kExitFailed;
  listener->fd.reset();
  std::array<char, 4096> buffer{};
  for (;;) {
    const ssize_t got = recv(peer.get(), buffer.data(), buffer.size(), 0);
    if (got <= 0) return got == 0 ? kExitOk : kExitFailed;
    if (send(peer.get(), buffer.data(), static_cast<std::size_t>(got), MSG_NOSIGNAL) != got) {
      return kExitFailed;
    }
  }
}

int usage() {
  std::cerr << kUsage;
  return kExitUsage;
}

// nullopt: no such kind.
std::optional<Outcome> attempt(const std::string& kind, const Address& to, const Options& options) {
  if (kind == "tcp") return probe_stream(to, 0, options);
  if (kind == "sctp") return probe_stream(to, IPPROTO_SCTP, options);
  if (kind == "udp") return probe_udp(to, false, options);
  if (kind == "udp-connected") return probe_udp(to, true, options);
  if (kind == "icmp") return probe_icmp(to, options);
  if (kind == "raw-tcp") return probe_raw_tcp(to, options);
  if (kind == "raw-udp") return probe_raw_udp(to, options);
  if (kind == "ask") return probe_ask(to, options);
  if (kind == "forged") return probe_forged(to, options);
  if (kind.starts_with("raw:")) {
    const auto protocol = to_number<std::uint8_t>(std::string_view(kind).substr(4));
    if (protocol) return probe_raw_protocol(to, *protocol, options);
  }
  return std::nullopt;
}

int run(const std::vector<std::string>& words) {
  if (words.size() < 2) return usage();
  const std::string& kind = words[0];
  if (kind == "listen") {
    const int status = listen_all(std::span(words).subspan(1));
    return status == kExitUsage ? usage() : status;
  }
  if (kind == "accept-once") {
    const auto port = to_number<std::uint16_t>(words[1]);
    return port ? accept_once(*port) : usage();
  }
  Options options;
  std::vector<std::string> plain;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (word == "-4" || word == "-6") {
      options.family = word == "-4" ? AF_INET : AF_INET6;
    } else if (word == "--freebind") {
      options.freebind = true;
    } else if (word.starts_with("--")) {
      if (i + 1 == words.size()) return usage();
      const std::string& value = words[++i];
      const auto number = to_number<int>(value);
      if (word == "--timeout" && number) {
        options.timeout = milliseconds(*number);
      } else if (word == "--linger" && number) {
        options.linger = milliseconds(*number);
      } else if (word == "--bind") {
        options.bind = value;
      } else if (word == "--device") {
        options.device = value;
      } else if (word == "--name") {
        options.name = value;
      } else if (word == "--type" && number) {
        options.type = static_cast<std::uint16_t>(*number);
      } else if (word == "--header-to") {
        options.header_to = value;
      } else if (word == "--bind-port" && number) {
        options.bind_port = static_cast<std::uint16_t>(*number);
      } else if (word == "--send" && number) {
        options.send = *number;
      } else {
        return usage();
      }
    } else {
      plain.push_back(word);
    }
  }
  if (plain.size() != 3) return usage();
  const auto port = to_number<std::uint16_t>(plain[2]);
  if (!port) return usage();
  if (kind == "resolve") return resolve_and_connect(plain[1], plain[2], options);
  const auto to = Address::parse(plain[1], *port);
  if (!to) return usage();

  if (kind == "hold") return hold(*to, SOCK_STREAM, options);
  if (kind == "hold-udp") return hold(*to, SOCK_DGRAM, options);
  const auto start = Clock::now();
  const auto outcome = attempt(kind, *to, options);
  if (!outcome) return usage();
  const int status = report(*outcome, start);
  std::this_thread::sleep_for(options.linger);
  return status;
}

}  // namespace

int main(int argc, char** argv) { return run({argv + 1, argv + argc}); }
