#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "arena.h"
#include "base/unique_fd.h"
#include "enforce/backend.h"
#include "map_memory.h"
#include "traffic.h"

struct ring_buffer;

namespace egressd::bench {

enum class Kind : std::uint8_t {
  Nothing,  // no program attached
  Empty,    // one egress program that lets everything pass
  Static,   // addresses of network rules
  Learned,  // addresses learned for an FQDN rule
  Cidr,     // prefixes of network rules
  Mixed,    // learned, beside as many static addresses and prefixes that do not hold them
  Audit,    // no rules, mode audit: everything would be denied
};

enum class Engine : std::uint8_t { Bpf, Nft };

struct VariantSpec {
  std::string name;
  Kind kind = Kind::Nothing;
  std::uint32_t size = 0;  // addresses or prefixes
  Engine engine = Engine::Bpf;
};

// One way of filtering, in force on a cgroup of its own, through egressd's own library.
class Variant {
 public:
  static Result<std::unique_ptr<Variant>> create(const Arena& arena, Sink& sink, VariantSpec spec,
                                                 int index, int cpu);
  ~Variant();
  Variant(const Variant&) = delete;
  Variant& operator=(const Variant&) = delete;

  [[nodiscard]] const VariantSpec& spec() const { return spec_; }
  [[nodiscard]] bool enforces() const {
    return spec_.kind != Kind::Nothing && spec_.kind != Kind::Empty && spec_.kind != Kind::Audit;
  }
  [[nodiscard]] bool has_backend() const { return backend_ != nullptr; }

  ConnectSlice connect(std::span<const std::uint32_t> to, std::size_t at, int count);
  // Leaves the events it causes to an EventReader, or to drain_events().
  ConnectSlice denied(int count);
  // Otherwise a full buffer would make the next denials look cheaper than they are. Every other
  // slice does this by itself.
  void drain_events();
  // -1 with nftables, which has no ring buffer.
  [[nodiscard]] int events_fd() const { return backend_->events_fd(); }
  PacketSlice udp_connected(int packets);
  PacketSlice udp_unconnected(std::span<const std::uint32_t> to, std::size_t at, int packets);
  BulkSlice bulk(std::int64_t nanoseconds);

  // Milliseconds to replace the rules in force by as many again.
  Result<double> apply_again();
  // Nanoseconds per address; 0 where nothing is learned.
  [[nodiscard]] double learn_ns() const { return learn_ns_; }
  [[nodiscard]] Result<std::vector<MapMemory>> memory() const;
  // Counts the programs the kernel says are attached; an error if one of egressd's is not.
  Result<void> check_attached();

 private:
  Variant() = default;
  Result<void> open_backend(bool learns);
  Result<void> enforce_rules();
  Result<void> attach_empty();

  VariantSpec spec_;
  std::string bpffs_;
  std::unique_ptr<Place> place_;
  std::unique_ptr<enforce::Backend> backend_;
  ring_buffer* events_ = nullptr;
  UniqueFd empty_program_;
  UniqueFd empty_link_;
  enforce::RuleSet rules_;
  double learn_ns_ = 0;
  std::uint64_t table_bytes_ = 0;
  UdpSender udp_;
  BulkSender bulk_;
  std::string address_;
};

// A thread that waits for denial events as the daemon does, on a CPU of its own.
class EventReader {
 public:
  EventReader(const std::vector<int>& event_fds, int cpu);
  ~EventReader();
  EventReader(const EventReader&) = delete;
  EventReader& operator=(const EventReader&) = delete;

 private:
  ring_buffer* events_ = nullptr;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace egressd::bench
