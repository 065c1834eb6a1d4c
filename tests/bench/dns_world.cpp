#include "dns_world.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dns_bench_bpf.skel.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "base/clock.h"
#include "bpf/dns_hash.h"
#include "enforce/bpf_backend.h"
#include "stats.h"
#include "tests/support/dns_message.h"
#include "traffic.h"

namespace egressd::bench {
namespace {

constexpr std::uint32_t kClient = 0xc0a80002;  // 192.168.0.2
constexpr std::uint16_t kClientPort = 40000;
constexpr std::uint32_t kTtl = 300;
constexpr std::uint32_t kZones = 977;
// Addresses beyond size(), learned while the benchmark runs.
constexpr std::uint32_t kRoomForMore = 1u << 17;

using Clock = std::chrono::steady_clock;
double milliseconds_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

std::string base_name(std::uint32_t k) {
  return "host" + std::to_string(k) + ".zone" + std::to_string(k % kZones) + ".example";
}

// Ethernet, IPv4 and the transport's header; sums are left zero, nobody looks at them.
Frame frame_of(std::uint8_t protocol, std::uint32_t from, std::uint16_t sport, std::uint32_t to,
               std::uint16_t dport, std::span<const std::uint8_t> payload) {
  test::DnsMessage m;  // any bytes, in network order
  const std::size_t header = protocol == IPPROTO_TCP ? 20 : 8;
  const auto total = static_cast<std::uint16_t>(20 + header + payload.size());
  m.u32(0).u32(0).u32(0).u16(0x0800);
  m.u16(0x4500).u16(total).u16(1).u16(0x4000).u8(64).u8(protocol).u16(0).u32(from).u32(to);
  m.u16(sport).u16(dport);
  if (protocol == IPPROTO_TCP)
    m.u32(1).u32(1).u16(0x5010).u16(1000).u32(0);
  else
    m.u16(static_cast<std::uint16_t>(header + payload.size())).u16(0);
  Frame frame = std::move(m.bytes());
  frame.insert(frame.end(), payload.begin(), payload.end());
  return frame;
}

egressd_addr mapped(std::uint32_t address) {
  egressd_addr a{};
  a.addr[10] = a.addr[11] = 0xff;
  for (int i = 0; i < 4; ++i) a.addr[12 + i] = static_cast<std::uint8_t>(address >> (24 - 8 * i));
  return a;
}

Result<UniqueFd> open_pin(const std::string& path) {
  UniqueFd fd(::bpf_obj_get(path.c_str()));
  if (!fd) return std::unexpected(Error::from_errno("open " + path));
  return fd;
}

int forget_event(void*, void*, std::size_t) { return 0; }

}  // namespace

std::string pattern_number(std::uint32_t k) { return (k % 2 != 0 ? "*." : "") + base_name(k); }
std::string name_number(std::uint32_t k) { return (k % 2 != 0 ? "www." : "") + base_name(k); }

Frame question_frame(const std::string& name, std::uint16_t id) {
  test::DnsMessage m;
  m.header(id, 0x0100, 1, 0).question(name);
  return frame_of(IPPROTO_UDP, kClient, kClientPort, kResolver, 53, m.bytes());
}

Frame answer_frame(const std::string& name, std::uint16_t id, std::uint32_t cnames,
                   std::span<const std::uint32_t> addresses) {
  test::DnsMessage m;
  m.header(id, 0x8180, 1, static_cast<std::uint16_t>(cnames + addresses.size())).question(name);
  std::size_t owner = 12;
  for (std::uint32_t i = 0; i < cnames; ++i)
    m.pointer(owner).cname(kTtl, "edge" + std::to_string(i) + ".cdn.example.net", &owner);
  for (const std::uint32_t address : addresses) m.pointer(owner).a(kTtl, address);
  return frame_of(IPPROTO_UDP, kResolver, 53, kClient, kClientPort, m.bytes());
}

Frame ordinary_frame(std::uint8_t protocol, Way way) {
  const std::array<std::uint8_t, 100> data{};
  return way == Way::Out ? frame_of(protocol, kClient, kClientPort, kServer, kPort, data)
                         : frame_of(protocol, kServer, kPort, kClient, kClientPort, data);
}

Result<std::unique_ptr<DnsWorld>> DnsWorld::create(const Arena& arena, std::uint32_t size,
                                                   int index, int cpu, int applies) {
  std::unique_ptr<DnsWorld> world(new DnsWorld());
  world->size_ = size;
  const std::string name = "dns" + std::to_string(size);
  world->bpffs_ = arena.bpffs(name);
  auto place = Place::create(arena, name, index, cpu);
  if (!place) return std::unexpected(place.error());
  world->place_ = std::move(*place);
  auto r = world->fill(applies);
  if (r) r = world->find_programs();
  if (r) r = world->load_wrappers();
  if (!r) return std::unexpected(std::move(r.error()).context(name));
  world->inside([&] {
    world->ifindex_ = ::if_nametoindex("up0");
    // The first packet of a socket is judged, those measured are live.
    r = world->client_.open();
    if (r && !(world->client_.ask(name_number(1), 1) && world->client_.echo()))
      r = std::unexpected(Error::of("no answer over the network"));
  });
  if (!r) return std::unexpected(std::move(r.error()).context(name));
  world->check_counts();
  return world;
}

DnsWorld::~DnsWorld() {
  ::ring_buffer__free(events_);
  if (io_ != nullptr) ::munmap(io_, sizeof(dns_bench_io));
  dns_bench_bpf::destroy(wrappers_);
  if (backend_) {
    if (auto r = backend_->detach(); !r) std::fprintf(stderr, "%s\n", r.error().message.c_str());
  }
}

Result<void> DnsWorld::fill(int applies) {
  enforce::BpfOptions options{.cgroup_path = place_->cgroup(), .bpffs_dir = bpffs_};
  options.max_learned = size_ + kRoomForMore;
  auto backend = enforce::open_bpf_backend(options);
  if (!backend) return std::unexpected(backend.error());
  backend_ = std::move(*backend);

  enforce::RuleSet rules;
  rules.enforce = true;
  rules.rule_names = {{"bench", "names"}};
  const net::PortRange port{kPort, kPort};
  rules.lists = {{{.protocol = net::Protocol::Tcp, .ports = port},
                  {.protocol = net::Protocol::Udp, .ports = port}},
                 {{.protocol = net::Protocol::Udp, .ports = {kEchoPort, kEchoPort}}}};
  rules.prefixes = {{net::Prefix::host(net::IpAddress::v4(kServer)), 1}};
  rules.names.reserve(size_);
  for (std::uint32_t k = 1; k <= size_; ++k)
    rules.names.push_back({.name_id = k, .list = 0, .pattern = pattern_number(k)});
  rules.dns.resolvers = {net::IpAddress::v4(kResolver)};
  rules.dns.filter = enforce::RuleSet::Dns::Filter::Enforce;
  std::vector<double> times;
  for (int i = 0; i < applies && !interrupted(); ++i) {
    ++rules.generation;
    const auto begin = Clock::now();
    if (auto r = backend_->apply(rules); !r) return r;
    times.push_back(milliseconds_since(begin));
    // Before a second generation is there as well.
    if (i > 0) continue;
    std::vector<enforce::LearnedAddress> addresses(size_);
    const BootTime tomorrow = SystemClock().now() + std::chrono::hours(24);
    for (std::uint32_t k = 1; k <= size_; ++k)
      addresses[k - 1] = {
          .address = net::IpAddress::v4(public_address(k)), .name_id = k, .expires = tomorrow};
    const auto start = Clock::now();
    if (auto r = backend_->learn(addresses); !r) return r;
    learn_ns_ = milliseconds_since(start) * 1e6 / size_;
    auto maps = map_memory(bpffs_);
    if (!maps) return std::unexpected(maps.error());
    maps_ = std::move(*maps);
  }
  apply_ms_ = median(times);
  generation_ = rules.generation;
  return backend_->attach();
}

Result<void> DnsWorld::find_programs() {
  const std::string base = bpffs_ + "/v" + std::to_string(EGRESSD_ABI_VERSION);
  const std::pair<Program, const char*> names[] = {{Program::DnsOut, "egressd_dns_out"},
                                                   {Program::DnsIn, "egressd_dns_in"},
                                                   {Program::Egress, "egressd_egress"},
                                                   {Program::Ingress, "egressd_ingress"}};
  for (const auto& [which, name] : names) {
    auto link = open_pin(base + "/links/" + name);
    if (!link) return std::unexpected(link.error());
    bpf_link_info info{};
    __u32 length = sizeof(info);
    if (::bpf_obj_get_info_by_fd(link->get(), &info, &length) != 0)
      return std::unexpected(Error::from_errno("read link info"));
    programs_[static_cast<std::size_t>(which)] = UniqueFd(::bpf_prog_get_fd_by_id(info.prog_id));
    if (!programs_[static_cast<std::size_t>(which)])
      return std::unexpected(Error::from_errno(std::string("open program ") + name));
  }
  for (auto& [fd, name] :
       {std::pair{&counts_, "egressd_dstats"}, std::pair{&verdicts_, "egressd_counts"}}) {
    auto pin = open_pin(base + "/maps/" + name);
    if (!pin) return std::unexpected(pin.error());
    *fd = std::move(*pin);
  }
  const auto active = open_pin(base + "/maps/egressd_active");
  const auto config = open_pin(base + "/maps/egressd_dconfig");
  if (!active) return std::unexpected(active.error());
  if (!config) return std::unexpected(config.error());
  const __u32 zero = 0;
  __u32 slot = 0;
  egressd_dns_config dns{};
  if (::bpf_map_lookup_elem(active->get(), &zero, &slot) != 0 ||
      ::bpf_map_lookup_elem(config->get(), &slot, &dns) != 0)
    return std::unexpected(Error::from_errno("read map egressd_dconfig"));
  key_ = {dns.key[0], dns.key[1]};
  return {};
}

Result<void> DnsWorld::load_wrappers() {
  wrappers_ = dns_bench_bpf::open();
  if (wrappers_ == nullptr) return std::unexpected(Error::from_errno("open the wrappers"));
  const std::string base = bpffs_ + "/v" + std::to_string(EGRESSD_ABI_VERSION) + "/maps/";
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, wrappers_->obj) {
    const std::string name = ::bpf_map__name(map);
    if (!name.starts_with("egressd_")) continue;
    auto pin = open_pin(base + name);
    if (!pin) return std::unexpected(pin.error());
    if (::bpf_map__reuse_fd(map, pin->get()) != 0)
      return std::unexpected(Error::from_errno("use map " + name));
  }
  if (dns_bench_bpf::load(wrappers_) != 0)
    return std::unexpected(Error::from_errno("load the wrappers"));
  programs_[static_cast<std::size_t>(Program::EmptyOut)] =
      UniqueFd(::dup(::bpf_program__fd(wrappers_->progs.bench_empty_out)));
  programs_[static_cast<std::size_t>(Program::EmptyIn)] =
      UniqueFd(::dup(::bpf_program__fd(wrappers_->progs.bench_empty_in)));

  const std::tuple<bpf_map*, Program, Program> chains[] = {
      {wrappers_->maps.bench_out, Program::EmptyOut, Program::Egress},
      {wrappers_->maps.bench_in, Program::EmptyIn, Program::DnsIn}};
  for (const auto& [chain, first, second] : chains) {
    __u32 at = 0;
    for (const Program program : {first, second}) {
      const int fd = programs_[static_cast<std::size_t>(program)].get();
      if (::bpf_map_update_elem(::bpf_map__fd(chain), &at, &fd, BPF_ANY) != 0)
        return std::unexpected(Error::from_errno("put a program behind a wrapper"));
      ++at;
    }
  }
  for (const Program program : {Program::EmptyOut, Program::EmptyIn}) {
    const auto which = static_cast<std::size_t>(program);
    const UniqueFd cgroup(::open(place_->cgroup().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    empty_links_[which] = UniqueFd(::bpf_link_create(
        programs_[which].get(), cgroup.get(),
        program == Program::EmptyOut ? BPF_CGROUP_INET_EGRESS : BPF_CGROUP_INET_INGRESS, nullptr));
    if (!empty_links_[which]) return std::unexpected(Error::from_errno("attach an empty program"));
  }
  void* io = ::mmap(nullptr, sizeof(dns_bench_io), PROT_READ | PROT_WRITE, MAP_SHARED,
                    ::bpf_map__fd(wrappers_->maps.bench_io), 0);
  if (io == MAP_FAILED) return std::unexpected(Error::from_errno("map bench_io"));
  io_ = static_cast<dns_bench_io*>(io);
  events_ = ::ring_buffer__new(backend_->dns_events_fd(), forget_event, nullptr, nullptr);
  if (events_ == nullptr) return std::unexpected(Error::from_errno("open the event ring buffer"));
  return {};
}

std::uint64_t DnsWorld::question_hash(const std::string& name) const {
  test::DnsMessage wire;
  wire.name(name);
  std::vector<std::uint8_t>& bytes = wire.bytes();
  bytes.resize(bytes.size() + sizeof(__u64));
  const __u64 key[2] = {key_[0], key_[1]};
  dns_sip state;
  dns_sip_init(&state, key, 0);
  for (std::size_t at = 0; bytes[at] != 0; at += bytes[at] + 1u) {
    for (std::size_t done = 0; done < bytes[at] + 1u; done += sizeof(__u64)) {
      const std::size_t left = bytes[at] + 1u - done;
      __u64 word = 0;
      std::memcpy(&word, &bytes[at + done], std::min(left, sizeof(word)));
      dns_sip_word(&state, dns_fold(word));
    }
  }
  return dns_sip_end(&state, 0);
}

double DnsWorld::run(const Probe& probe, const Frame& frame, std::uint32_t repeat) {
  int program = programs_[static_cast<std::size_t>(probe.program)].get();
  if (probe.through == Probe::Through::Flow) {
    io_->next = probe.program == Program::Egress ? 1 : 0;
    io_->live = {};
    io_->live.daddr = mapped(kServer);
    io_->live.dport = htons(kPort);
    io_->live.proto = probe.protocol;
    io_->live.generation = generation_;
    io_->live.reason = EGRESSD_ALLOW_FQDN_RULE;
    program = ::bpf_program__fd(wrappers_->progs.bench_live);
  } else if (probe.through == Probe::Through::Question) {
    io_->next = probe.program == Program::DnsIn ? 1 : 0;
    io_->steps = probe.steps;
    io_->question = {};
    io_->question.name_hash = question_hash(name_number(probe.name));
    io_->question.id = htons(probe.id);
    io_->question.qtype = 1;
    io_->asked = {};
    io_->asked.name_ids[0] = probe.name;
    io_->asked.generation = generation_;
    program = ::bpf_program__fd(wrappers_->progs.bench_answer);
  }
  __sk_buff context{};
  context.ifindex = ifindex_;
  LIBBPF_OPTS(bpf_test_run_opts, options);
  options.data_in = frame.data();
  options.data_size_in = static_cast<__u32>(frame.size());
  options.ctx_in = &context;
  options.ctx_size_in = sizeof(context);
  options.repeat = static_cast<int>(repeat);
  if (::bpf_prog_test_run_opts(program, &options) != 0 || options.retval != probe.verdict)
    ++failures_;
  if (probe.outcome < wanted_.size()) wanted_[probe.outcome] += repeat;
  return options.duration;
}

DnsWorld::RunTimes DnsWorld::timed(const std::function<void()>& work) {
  struct Total {
    double ns = 0;
    double runs = 0;
  };
  const auto read = [&] {
    std::array<Total, std::tuple_size_v<RunTimes>> all;
    for (std::size_t i = 0; i < all.size(); ++i) {
      bpf_prog_info info{};
      __u32 length = sizeof(info);
      if (::bpf_obj_get_info_by_fd(programs_[i].get(), &info, &length) != 0) ++failures_;
      all[i] = {static_cast<double>(info.run_time_ns), static_cast<double>(info.run_cnt)};
    }
    return all;
  };
  const auto before = read();
  {
    const UniqueFd stats(::bpf_enable_stats(BPF_STATS_RUN_TIME));
    if (!stats) ++failures_;
    work();
  }
  const auto after = read();
  RunTimes means{};
  for (std::size_t i = 0; i < means.size(); ++i)
    means[i] = (after[i].ns - before[i].ns) / (after[i].runs - before[i].runs);
  return means;
}

DnsWorld::RunTimes DnsWorld::ask(std::span<const std::string> names) {
  std::uint16_t id = 0;
  const RunTimes means = timed([&] {
    for (const std::string& name : names) failures_ += client_.ask(name, ++id) ? 0 : 1;
  });
  wanted_[EGRESSD_DNS_ASKED] += names.size();
  wanted_[EGRESSD_DNS_LEARNED] += names.size();
  return means;
}

DnsWorld::RunTimes DnsWorld::echo(std::uint32_t count) {
  return timed([&] {
    for (std::uint32_t i = 0; i < count; ++i) failures_ += client_.echo() ? 0 : 1;
  });
}

std::vector<std::uint64_t> DnsWorld::counts() const {
  // By outcome; then, as one figure, verdicts on packets: a live flow causes none.
  std::vector<std::uint64_t> all(EGRESSD_DNS_OUTCOME_MAX + 1);
  std::vector<std::uint64_t> per_cpu(static_cast<std::size_t>(::libbpf_num_possible_cpus()));
  const auto sum = [&](int fd, __u32 at) {
    std::uint64_t total = 0;
    if (::bpf_map_lookup_elem(fd, &at, per_cpu.data()) != 0) return total;
    for (const std::uint64_t n : per_cpu) total += n;
    return total;
  };
  for (__u32 i = 0; i < EGRESSD_DNS_OUTCOME_MAX; ++i) all[i] = sum(counts_.get(), i);
  for (__u32 i = 0; i < EGRESSD_REASON_MAX; ++i) {
    if (i != EGRESSD_DENY_DNS_NAME) all.back() += sum(verdicts_.get(), i);
  }
  return all;
}

void DnsWorld::check_counts() {
  const std::vector<std::uint64_t> now = counts();
  for (std::size_t i = 0; i < now.size(); ++i) {
    const bool of_an_address =
        i >= EGRESSD_DNS_ADDR_NEW && i < EGRESSD_DNS_ADDR_GUARDED;  // as many as records, any way
    if (!counted_.empty() && !of_an_address && now[i] - counted_[i] != wanted_[i]) {
      ++failures_;
      std::fprintf(stderr, "dns%u: outcome %zu counted %llu times, not %llu\n", size_, i,
                   static_cast<unsigned long long>(now[i] - counted_[i]),
                   static_cast<unsigned long long>(wanted_[i]));
    }
  }
  counted_ = now;
  wanted_.assign(now.size(), 0);
}

void DnsWorld::drain_events() { ::ring_buffer__consume(events_); }

}  // namespace egressd::bench
