#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"

struct mnl_socket;

namespace egressd::nft {

// What rules with `log group N` hand over, read from the kernel (NFLOG).
class Nflog {
 public:
  struct Packet {
    std::string_view prefix;                // of the rule
    std::span<const std::uint8_t> payload;  // from the IP header on, as much as the rule said
    std::uint32_t length = 0;               // bytes of the whole packet, from its IP header
    std::uint32_t uid = 0;                  // of the socket's owner
    bool has_uid = false;
    std::uint32_t in = 0;  // interface it came in by, 0: sent from here
  };
  using Visit = std::function<void(const Packet&)>;

  // An error with code EPERM if another process reads that group in this network namespace.
  static Result<std::unique_ptr<Nflog>> open(std::uint16_t group);
  ~Nflog();
  Nflog(const Nflog&) = delete;
  Nflog& operator=(const Nflog&) = delete;

  // Readable while packets wait.
  [[nodiscard]] int fd() const;
  // Hands on what waits, about `max` packets, valid within `visit` only; never blocks. Returns how
  // many.
  Result<std::size_t> read(std::size_t max, const Visit& visit);
  // Packets the kernel had no room for, since open(). Exact: they are numbered.
  [[nodiscard]] std::uint64_t lost() const { return lost_; }

 private:
  struct Free {
    void operator()(mnl_socket* socket) const;
  };
  explicit Nflog(mnl_socket* socket) : socket_(socket) {}
  Result<void> configure(std::uint16_t group);

  std::unique_ptr<mnl_socket, Free> socket_;
  std::vector<char> buffer_;
  std::uint32_t next_ = 0;  // number of the next packet
  std::uint64_t lost_ = 0;
};

}  // namespace egressd::nft
