// egressd_flood SECONDS: from every core at once, datagrams to ever other addresses of
// 198.18.0.0/15 (RFC 2544), by UDP sockets (cgroup/sendmsg4) and by raw ones (cgroup_skb). Prints
// how many were refused with EPERM, how many were not, and how many failed otherwise.

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace {

struct Sums {
  std::atomic<std::uint64_t> refused = 0;
  std::atomic<std::uint64_t> sent = 0;
  std::atomic<std::uint64_t> failed = 0;
};

void send_until(std::chrono::steady_clock::time_point end, bool raw, std::uint32_t seed,
                Sums& sums) {
  const int fd = raw ? ::socket(AF_INET, SOCK_RAW, 253)  // RFC 3692: for experiments
                     : ::socket(AF_INET, SOCK_DGRAM, 0);
  if (fd < 0) {
    ++sums.failed;
    return;
  }
  std::uint64_t refused = 0;
  std::uint64_t sent = 0;
  std::uint64_t failed = 0;
  constexpr std::array<char, 64> kData{};
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(4000);
  for (std::uint32_t i = seed; std::chrono::steady_clock::now() < end; ++i) {
    // Every fourth goes where one went before: some repeat, some do not.
    to.sin_addr.s_addr = htonl(0xc6120000U | ((i % 4 == 0 ? i % 64 : i) & 0x1ffffU));
    if (::sendto(fd, kData.data(), kData.size(), 0, reinterpret_cast<const sockaddr*>(&to),
                 sizeof(to)) >= 0)
      ++sent;
    else
      ++(errno == EPERM ? refused : failed);
  }
  ::close(fd);
  sums.refused += refused;
  sums.sent += sent;
  sums.failed += failed;
}

}  // namespace

int main(int argc, char** argv) {
  const int seconds = argc == 2 ? std::atoi(argv[1]) : 0;
  if (seconds <= 0) {
    std::fputs("usage: egressd_flood SECONDS\n", stderr);
    return 2;
  }
  Sums sums;
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  std::vector<std::jthread> threads;
  const unsigned count = std::max(std::thread::hardware_concurrency(), 2U);
  for (unsigned i = 0; i < count; ++i)
    threads.emplace_back([&, i] { send_until(end, i % 2 == 1, i << 24U, sums); });
  threads.clear();
  std::printf("refused=%llu sent=%llu failed=%llu\n",
              static_cast<unsigned long long>(sums.refused.load()),
              static_cast<unsigned long long>(sums.sent.load()),
              static_cast<unsigned long long>(sums.failed.load()));
  return 0;
}
