#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "arena.h"
#include "base/unique_fd.h"

namespace egressd::bench {

inline constexpr std::uint32_t kResolver = 0xcb007135;  // 203.0.113.53
inline constexpr std::uint32_t kServer = 0xcb007101;    // 203.0.113.1
inline constexpr std::uint16_t kEchoPort = 4433;

// In the sink's namespace: a name server that answers every question with one address that it gave
// nobody before, and a server that sends datagrams back.
class Responder {
 public:
  static Result<std::unique_ptr<Responder>> create(const Arena& arena, int cpu);
  ~Responder();
  Responder(const Responder&) = delete;
  Responder& operator=(const Responder&) = delete;

 private:
  Responder() = default;
  void serve(int cpu);

  UniqueFd dns_;
  UniqueFd echo_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// The other end, to be used on one thread: one datagram at a time.
class Client {
 public:
  Result<void> open();
  // False if no answer came, however long it was waited for.
  bool ask(const std::string& name, std::uint16_t id);
  bool echo();

 private:
  UniqueFd dns_;
  UniqueFd echo_;
};

}  // namespace egressd::bench
