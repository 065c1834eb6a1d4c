#include "variant.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <linux/bpf.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <limits>
#include <set>

#include "base/clock.h"
#include "enforce/bpf_backend.h"
#include "enforce/nft_backend.h"

namespace egressd::bench {
namespace {

double milliseconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin)
      .count();
}

net::IpAddress address(std::uint32_t k) { return net::IpAddress::v4(address_number(k)); }

// n different /24 around the addresses 1, 2, 3, …: the sets' own first addresses are in them.
std::vector<net::Prefix> prefixes_around(std::uint32_t n) {
  std::vector<net::Prefix> all;
  std::set<net::Prefix> seen;
  for (std::uint32_t k = 1; all.size() < n; ++k) {
    const net::Prefix prefix = net::Prefix::host(address(k)).widened(24);
    if (seen.insert(prefix).second) all.push_back(prefix);
  }
  return all;
}

enforce::RuleSet rules_of(const VariantSpec& spec) {
  enforce::RuleSet rules;
  rules.generation = 1;
  rules.enforce = spec.kind != Kind::Audit;
  rules.rule_names = {{"bench", "allowed"}};
  const net::PortRange port{kPort, kPort};
  rules.lists = {{{.protocol = net::Protocol::Tcp, .ports = port},
                  {.protocol = net::Protocol::Udp, .ports = port}}};
  switch (spec.kind) {
    case Kind::Static:
      for (std::uint32_t k = 1; k <= spec.size; ++k)
        rules.prefixes.emplace_back(net::Prefix::host(address(k)), 0);
      break;
    case Kind::Cidr:
      for (const net::Prefix& prefix : prefixes_around(spec.size))
        rules.prefixes.emplace_back(prefix, 0);
      break;
    case Kind::Mixed:
      // Of 11.0.0.0/8, where nothing is sent to: looked through in vain before what is learned.
      for (std::uint32_t k = 1; k <= spec.size; ++k) {
        const auto other = net::IpAddress::v4(address_number(k) ^ 0x01000000u);
        rules.prefixes.emplace_back(net::Prefix::host(other), 0);
      }
      {
        std::set<net::Prefix> seen;
        for (std::uint32_t k = 1; k <= spec.size; ++k) {
          const auto other = net::IpAddress::v4(address_number(k) ^ 0x01000000u);
          const net::Prefix prefix = net::Prefix::host(other).widened(24);
          if (seen.insert(prefix).second) rules.prefixes.emplace_back(prefix, 0);
        }
      }
      [[fallthrough]];
    case Kind::Learned:
      rules.names = {{.name_id = 1, .list = 0, .pattern = "bench.example"}};
      break;
    case Kind::Audit:
    case Kind::Nothing:
    case Kind::Empty:
      break;
  }
  return rules;
}

// What the kernel has for itself: sets of nftables are there, and are not told apart. Whatever else
// the machine does at the time counts as well.
std::uint64_t kernel_bytes() {
  std::ifstream file("/proc/meminfo");
  std::uint64_t sum = 0;
  std::string name;
  std::uint64_t kib = 0;
  while (file >> name >> kib) {
    if (name == "SUnreclaim:" || name == "VmallocUsed:") sum += kib * 1024;
    file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return sum;
}

int forget_event(void*, void*, std::size_t) { return 0; }

}  // namespace

Result<std::unique_ptr<Variant>> Variant::create(const Arena& arena, Sink& sink, VariantSpec spec,
                                                 int index, int cpu) {
  std::unique_ptr<Variant> variant(new Variant());
  variant->spec_ = std::move(spec);
  variant->bpffs_ = arena.bpffs(variant->spec_.name);
  variant->address_ = "192.168." + std::to_string(index) + ".2";
  auto place = Place::create(arena, variant->spec_.name, index, cpu);
  if (!place) return std::unexpected(place.error());
  variant->place_ = std::move(*place);

  Result<void> r;
  if (variant->spec_.kind == Kind::Empty)
    r = variant->attach_empty();
  else if (variant->spec_.engine == Engine::Nft)
    r = variant->place_->netns().inside([&] { return variant->enforce_rules(); });
  else if (variant->spec_.kind != Kind::Nothing)
    r = variant->enforce_rules();
  if (!r) return std::unexpected(std::move(r.error()).context(variant->spec_.name));

  variant->place_->run([&] {
    r = variant->udp_.open();
    if (r) r = variant->bulk_.open();
  });
  if (r) r = sink.adopt();
  if (!r) return std::unexpected(std::move(r.error()).context(variant->spec_.name));
  return variant;
}

Variant::~Variant() {
  ::ring_buffer__free(events_);
  if (backend_) {
    if (auto r = backend_->detach(); !r) std::fprintf(stderr, "%s\n", r.error().message.c_str());
  }
}

Result<void> Variant::attach_empty() {
  // r0 = 1; exit
  bpf_insn pass[2] = {};
  pass[0].code = BPF_ALU64 | BPF_MOV | BPF_K;
  pass[0].imm = 1;
  pass[1].code = BPF_JMP | BPF_EXIT;
  LIBBPF_OPTS(bpf_prog_load_opts, options);
  options.expected_attach_type = BPF_CGROUP_INET_EGRESS;
  empty_program_ =
      UniqueFd(::bpf_prog_load(BPF_PROG_TYPE_CGROUP_SKB, "bench_empty", "GPL", pass, 2, &options));
  if (!empty_program_) return std::unexpected(Error::from_errno("load the empty program"));
  const UniqueFd cgroup(::open(place_->cgroup().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  empty_link_ = UniqueFd(
      ::bpf_link_create(empty_program_.get(), cgroup.get(), BPF_CGROUP_INET_EGRESS, nullptr));
  if (!empty_link_) return std::unexpected(Error::from_errno("attach the empty program"));
  return {};
}

Result<void> Variant::open_backend(bool learns) {
  const std::uint32_t room = spec_.size + spec_.size / 8;
  Result<std::unique_ptr<enforce::Backend>> backend;
  if (spec_.engine == Engine::Nft) {
    enforce::NftOptions options{.cgroup_path = place_->cgroup()};
    if (learns) options.max_learned = std::max(options.max_learned, room);
    backend = enforce::open_nft_backend(options);
  } else {
    enforce::BpfOptions options{.cgroup_path = place_->cgroup(), .bpffs_dir = bpffs_};
    if (learns) options.max_learned = std::max(options.max_learned, room);
    backend = enforce::open_bpf_backend(options);
  }
  if (!backend) return std::unexpected(backend.error());
  backend_ = std::move(*backend);
  return {};
}

Result<void> Variant::enforce_rules() {
  const bool learns = spec_.kind == Kind::Learned || spec_.kind == Kind::Mixed;
  const std::uint64_t before = kernel_bytes();
  if (auto r = open_backend(learns); !r) return r;
  rules_ = rules_of(spec_);
  const net::IpAddress local = *net::IpAddress::parse(address_);
  if (auto r = backend_->set_local_addresses({&local, 1}); !r) return r;
  if (auto r = backend_->apply(rules_); !r) return r;
  if (learns) {
    std::vector<enforce::LearnedAddress> addresses(spec_.size);
    const BootTime tomorrow = SystemClock().now() + std::chrono::hours(24);
    for (std::uint32_t k = 1; k <= spec_.size; ++k)
      addresses[k - 1] = {.address = address(k), .name_id = 1, .expires = tomorrow};
    const auto begin = std::chrono::steady_clock::now();
    if (auto r = backend_->learn(addresses); !r) return r;
    learn_ns_ = milliseconds_since(begin) * 1e6 / spec_.size;
  }
  if (auto r = backend_->attach(); !r) return r;
  const std::uint64_t after = kernel_bytes();
  table_bytes_ = after > before ? after - before : 0;
  if (backend_->events_fd() < 0) return check_attached();
  events_ = ::ring_buffer__new(backend_->events_fd(), forget_event, nullptr, nullptr);
  if (events_ == nullptr) return std::unexpected(Error::from_errno("open the event ring buffer"));
  return check_attached();
}

Result<void> Variant::check_attached() {
  if (!backend_) return {};
  for (const auto& layer : backend_->layers()) {
    // Programs that only run on request have nothing to attach to.
    if (!layer.attached && layer.program != "egressd_grant")
      return std::unexpected(Error::of(layer.program + ": " + layer.detail));
  }
  return {};
}

void Variant::drain_events() {
  if (events_ != nullptr) ::ring_buffer__consume(events_);
  if (spec_.engine == Engine::Nft)
    (void)backend_->read_denials(std::numeric_limits<std::size_t>::max(),
                                 [](const egressd_event&) {});
}

ConnectSlice Variant::connect(std::span<const std::uint32_t> to, std::size_t at, int count) {
  ConnectSlice slice;
  place_->run([&] { slice = connect_slice(to, at, count); });
  drain_events();
  return slice;
}

ConnectSlice Variant::denied(int count) {
  ConnectSlice slice;
  place_->run([&] { slice = denied_slice(count); });
  return slice;
}

PacketSlice Variant::udp_connected(int packets) {
  PacketSlice slice;
  place_->run([&] { slice = udp_.connected(packets); });
  drain_events();
  return slice;
}

PacketSlice Variant::udp_unconnected(std::span<const std::uint32_t> to, std::size_t at,
                                     int packets) {
  PacketSlice slice;
  place_->run([&] { slice = udp_.unconnected(to, at, packets); });
  drain_events();
  return slice;
}

BulkSlice Variant::bulk(std::int64_t nanoseconds) {
  BulkSlice slice;
  place_->run([&] { slice = bulk_.slice(nanoseconds); });
  drain_events();
  return slice;
}

Result<double> Variant::apply_again() {
  ++rules_.generation;
  double spent = 0;
  const auto apply = [&]() -> Result<void> {
    const auto begin = std::chrono::steady_clock::now();
    auto r = backend_->apply(rules_);
    spent = milliseconds_since(begin);
    return r;
  };
  const auto r = spec_.engine == Engine::Nft ? place_->netns().inside(apply) : apply();
  if (!r) return std::unexpected(r.error());
  return spent;
}

Result<std::vector<MapMemory>> Variant::memory() const {
  if (spec_.engine == Engine::Nft)
    return std::vector<MapMemory>{{.name = "table inet egressd", .bytes = table_bytes_}};
  return map_memory(bpffs_);
}

EventReader::EventReader(const std::vector<int>& event_fds, int cpu) {
  for (const int fd : event_fds) {
    if (events_ == nullptr)
      events_ = ::ring_buffer__new(fd, forget_event, nullptr, nullptr);
    else
      ::ring_buffer__add(events_, fd, forget_event, nullptr);
  }
  thread_ = std::thread([this, cpu] {
    pin_this_thread(cpu);
    while (!stop_ && events_ != nullptr) ::ring_buffer__poll(events_, 50);
  });
}

EventReader::~EventReader() {
  stop_ = true;
  thread_.join();
  ::ring_buffer__free(events_);
}

}  // namespace egressd::bench
