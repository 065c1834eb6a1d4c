#pragma once

#include <netinet/in.h>

#include <atomic>
#include <cstdint>
#include <span>
#include <thread>
#include <vector>

#include "arena.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace egressd::bench {

inline constexpr std::uint16_t kPort = 443;

// Number k of the addresses the sets are made of, in 10.0.0.0/8 and in host order: all different
// for k < 2^24, neighbours far apart. A set of n holds numbers 1..n.
constexpr std::uint32_t address_number(std::uint32_t k) {
  return 0x0a000000u | ((k * 0x9e3779b1u) & 0x00ffffffu);
}
// In nobody's set.
inline constexpr std::uint32_t kDenied = 0xac100001;  // 172.16.0.1

// The other side: TCP and UDP on port 443 of every address of 10.0.0.0/8. Datagrams are dropped
// by a socket filter, the cheapest end that is not a special case of the sender's stack.
class Sink {
 public:
  static Result<std::unique_ptr<Sink>> create(const Arena& arena);
  ~Sink() { stop(); }
  Sink(const Sink&) = delete;
  Sink& operator=(const Sink&) = delete;

  // Accepts what is waiting and closes it.
  void drain();
  // Accepts one connection, to be read by the bulk thread.
  Result<void> adopt();
  // Reads all adopted connections as fast as it can, on `cpu`, until stop().
  void start(int cpu);
  void stop();

 private:
  Sink() = default;

  UniqueFd listener_;
  UniqueFd udp_;
  std::vector<UniqueFd> bulk_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// What one slice found. Times in nanoseconds.
struct ConnectSlice {
  double connect = 0;      // median of connect()
  double whole = 0;        // median of connect() + close(), which resets the connection
  double with_socket = 0;  // and socket() + setsockopt() before it
  int failures = 0;
};

// `count` connections, each from a new socket to the next of `to`, beginning at `at`.
ConnectSlice connect_slice(std::span<const std::uint32_t> to, std::size_t at, int count);

// connect() to an address the policy refuses. Every one must end in EPERM.
ConnectSlice denied_slice(int count);

struct PacketSlice {
  double cpu = 0;  // this thread's CPU time per packet, the stack's work included
  double wall = 0;
  int failures = 0;
};

// Sockets are opened once: their first packets are judged, the ones measured are live.
class UdpSender {
 public:
  // Connected to the first address of every set.
  Result<void> open();
  PacketSlice connected(int packets);
  // Destination in every message; from `at` on in `to`, around its end.
  PacketSlice unconnected(std::span<const std::uint32_t> to, std::size_t at, int packets);

 private:
  UniqueFd connected_;
  UniqueFd unconnected_;
};

struct BulkSlice {
  double cpu_per_kb = 0;  // ns of the sender's CPU time per 1024 bytes
  double wall_per_kb = 0;
  double bytes = 0;
};

class BulkSender {
 public:
  Result<void> open();
  // Sends for `nanoseconds`, then waits until everything is acknowledged.
  BulkSlice slice(std::int64_t nanoseconds);

 private:
  UniqueFd fd_;
  std::vector<char> data_ = std::vector<char>(128 << 10, 'e');
};

}  // namespace egressd::bench
