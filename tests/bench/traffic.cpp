#include "traffic.h"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <array>

#include "stats.h"

namespace egressd::bench {
namespace {

double now(clockid_t clock = CLOCK_MONOTONIC) {
  timespec t{};
  ::clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}

sockaddr_in endpoint(std::uint32_t address) {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(kPort);
  to.sin_addr.s_addr = htonl(address);
  return to;
}

const sockaddr* generic(const sockaddr_in& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

constexpr std::array<char, 18> kPayload{};
constexpr int kBatch = 64;

template <typename SetDestination>
PacketSlice send_packets(int fd, int packets, SetDestination set_destination) {
  std::array<mmsghdr, kBatch> messages{};
  std::array<iovec, kBatch> parts{};
  std::array<sockaddr_in, kBatch> addresses{};
  for (std::size_t i = 0; i < kBatch; ++i) {
    parts[i] = {.iov_base = const_cast<char*>(kPayload.data()), .iov_len = kPayload.size()};
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  PacketSlice slice;
  const double cpu = now(CLOCK_THREAD_CPUTIME_ID);
  const double wall = now();
  for (int sent = 0; sent < packets;) {
    const int batch = std::min(kBatch, packets - sent);
    set_destination(std::span(messages).first(static_cast<std::size_t>(batch)), addresses);
    const int n = ::sendmmsg(fd, messages.data(), static_cast<unsigned>(batch), 0);
    if (n < batch) slice.failures += batch - std::max(n, 0);
    sent += batch;
  }
  slice.wall = (now() - wall) / packets;
  slice.cpu = (now(CLOCK_THREAD_CPUTIME_ID) - cpu) / packets;
  return slice;
}

}  // namespace

Result<std::unique_ptr<Sink>> Sink::create(const Arena& arena) {
  std::unique_ptr<Sink> sink(new Sink());
  auto r = arena.sink().inside([&]() -> Result<void> {
    const sockaddr_in any = endpoint(INADDR_ANY);
    sink->listener_ = UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    sink->udp_ = UniqueFd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (::bind(sink->listener_.get(), generic(any), sizeof(any)) != 0 ||
        ::listen(sink->listener_.get(), 1024) != 0 ||
        ::bind(sink->udp_.get(), generic(any), sizeof(any)) != 0)
      return std::unexpected(Error::from_errno("listen in the sink namespace"));
    sock_filter drop[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
    const sock_fprog program{.len = 1, .filter = drop};
    if (::setsockopt(sink->udp_.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) !=
        0)
      return std::unexpected(Error::from_errno("attach a socket filter"));
    return {};
  });
  if (!r) return std::unexpected(r.error());
  return sink;
}

void Sink::drain() {
  for (int fd = 0; (fd = ::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC)) >= 0;)
    ::close(fd);
}

Result<void> Sink::adopt() {
  pollfd ready{.fd = listener_.get(), .events = POLLIN, .revents = 0};
  ::poll(&ready, 1, 1000);
  UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!fd) return std::unexpected(Error::from_errno("accept"));
  bulk_.push_back(std::move(fd));
  return {};
}

void Sink::start(int cpu) {
  stop_ = false;
  thread_ = std::thread([this, cpu] {
    pin_this_thread(cpu);
    std::vector<pollfd> ready;
    for (const UniqueFd& fd : bulk_)
      ready.push_back({.fd = fd.get(), .events = POLLIN, .revents = 0});
    while (!stop_) {
      if (::poll(ready.data(), ready.size(), 20) <= 0) continue;
      for (const pollfd& one : ready) {
        if (one.revents == 0) continue;
        // MSG_TRUNC: the bytes are dropped in the kernel, not copied.
        while (::recv(one.fd, nullptr, 4 << 20, MSG_TRUNC | MSG_DONTWAIT) > 0) {
        }
      }
    }
  });
}

void Sink::stop() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
}

ConnectSlice connect_slice(std::span<const std::uint32_t> to, std::size_t at, int count) {
  ConnectSlice slice;
  std::vector<double> connects;
  std::vector<double> wholes;
  std::vector<double> all;
  constexpr int kWarm = 6;
  for (int i = 0; i < count + kWarm; ++i) {
    const sockaddr_in address = endpoint(to[(at + static_cast<std::size_t>(i)) % to.size()]);
    const linger reset{.l_onoff = 1, .l_linger = 0};
    const double begin = now();
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    const double before = now();
    const int err = ::connect(fd, generic(address), sizeof(address));
    const double connected = now();
    ::close(fd);
    const double closed = now();
    if (err != 0) ++slice.failures;
    if (i < kWarm) continue;
    connects.push_back(connected - before);
    wholes.push_back(closed - before);
    all.push_back(closed - begin);
  }
  slice.connect = median(std::move(connects));
  slice.whole = median(std::move(wholes));
  slice.with_socket = median(std::move(all));
  return slice;
}

ConnectSlice denied_slice(int count) {
  ConnectSlice slice;
  std::vector<double> connects;
  const sockaddr_in address = endpoint(kDenied);
  for (int i = 0; i < count; ++i) {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const double before = now();
    const int err = ::connect(fd, generic(address), sizeof(address));
    const double after = now();
    if (err == 0 || (errno != EPERM && errno != ECONNREFUSED)) ++slice.failures;
    ::close(fd);
    connects.push_back(after - before);
  }
  slice.connect = median(std::move(connects));
  return slice;
}

Result<void> UdpSender::open() {
  connected_ = UniqueFd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  unconnected_ = UniqueFd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const sockaddr_in address = endpoint(address_number(1));
  if (::connect(connected_.get(), generic(address), sizeof(address)) != 0)
    return std::unexpected(Error::from_errno("connect a UDP socket"));
  return {};
}

PacketSlice UdpSender::connected(int packets) {
  const auto nothing = [](std::span<mmsghdr>, std::array<sockaddr_in, kBatch>&) {};
  send_packets(connected_.get(), packets / 4, nothing);
  return send_packets(connected_.get(), packets, nothing);
}

PacketSlice UdpSender::unconnected(std::span<const std::uint32_t> to, std::size_t at, int packets) {
  const auto next = [&](std::span<mmsghdr> messages, std::array<sockaddr_in, kBatch>& addresses) {
    for (std::size_t i = 0; i < messages.size(); ++i) {
      addresses[i] = endpoint(to[at++ % to.size()]);
      messages[i].msg_hdr.msg_name = &addresses[i];
      messages[i].msg_hdr.msg_namelen = sizeof(addresses[i]);
    }
  };
  send_packets(unconnected_.get(), packets / 4, next);
  return send_packets(unconnected_.get(), packets, next);
}

Result<void> BulkSender::open() {
  fd_ = UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_in address = endpoint(address_number(2));
  if (::connect(fd_.get(), generic(address), sizeof(address)) != 0)
    return std::unexpected(Error::from_errno("connect for bulk transfer"));
  return {};
}

BulkSlice BulkSender::slice(std::int64_t nanoseconds) {
  const double cpu = now(CLOCK_THREAD_CPUTIME_ID);
  const double begin = now();
  const double end = begin + static_cast<double>(nanoseconds);
  BulkSlice slice;
  while (now() < end) {
    const ssize_t n = ::send(fd_.get(), data_.data(), data_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0) {
      slice.bytes += static_cast<double>(n);
    } else if (errno == EAGAIN) {
      pollfd ready{.fd = fd_.get(), .events = POLLOUT, .revents = 0};
      ::poll(&ready, 1, 5);
    } else {
      break;
    }
  }
  const double sending = now(CLOCK_THREAD_CPUTIME_ID) - cpu;
  // What is still under way belongs to this slice's time, not to the next one's.
  for (int i = 0, left = 1; i < 4000 && ::ioctl(fd_.get(), SIOCOUTQ, &left) == 0 && left > 0; ++i)
    ::usleep(50);
  slice.cpu_per_kb = sending / (slice.bytes / 1024);
  slice.wall_per_kb = (now() - begin) / (slice.bytes / 1024);
  return slice;
}

}  // namespace egressd::bench
