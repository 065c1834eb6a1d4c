#include "tests/bpf/dns_kernel.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>

#include "dns_test_bpf.skel.h"

namespace egressd::test {
namespace {

constexpr std::uint16_t kNoIp = 0x88b5;  // IEEE 802 local experimental: the kernel looks no further

void check(int result, const char* what) {
  if (result < 0) {
    throw std::runtime_error(std::string(what) + ": " + std::strerror(-result));
  }
}

std::uint64_t per_cpu_sum(int fd, std::uint32_t key) {
  std::vector<std::uint64_t> values(static_cast<std::size_t>(libbpf_num_possible_cpus()));
  if (bpf_map_lookup_elem(fd, &key, values.data()) != 0) {
    return 0;
  }
  std::uint64_t sum = 0;
  for (const auto v : values) {
    sum += v;
  }
  return sum;
}

template <typename Key>
void delete_all(int fd) {
  Key key{};
  while (bpf_map_get_next_key(fd, nullptr, &key) == 0 && bpf_map_delete_elem(fd, &key) == 0) {
  }
}

}  // namespace

std::unique_ptr<DnsKernel> DnsKernel::load(std::string* why, std::uint32_t max_learned) {
  if (::geteuid() != 0) {
    *why = "needs root to load BPF programs";
    return nullptr;
  }
  libbpf_set_strict_mode(LIBBPF_STRICT_ALL);
  std::unique_ptr<DnsKernel> k(new DnsKernel);
  k->skel_ = dns_test_bpf__open();
  if (k->skel_ != nullptr && max_learned != 0) {
    bpf_map__set_max_entries(k->skel_->maps.egressd_learned, max_learned);
    bpf_map__set_max_entries(k->skel_->maps.egressd_dplaces, max_learned);
  }
  if (k->skel_ == nullptr || dns_test_bpf__load(k->skel_) != 0) {
    throw std::runtime_error(std::string("load the DNS programs: ") + std::strerror(errno));
  }
  void* io = ::mmap(nullptr, sizeof(dns_test_io), PROT_READ | PROT_WRITE, MAP_SHARED,
                    bpf_map__fd(k->skel_->maps.dns_test_io), 0);
  if (io == MAP_FAILED) {
    throw std::runtime_error("map dns_test_io");
  }
  k->io_ = static_cast<dns_test_io*>(io);
  return k;
}

DnsKernel::~DnsKernel() {
  if (io_ != nullptr) {
    ::munmap(io_, sizeof(dns_test_io));
  }
  dns_test_bpf__destroy(skel_);
}

egressd_dns_config DnsKernel::usual_config() const {
  return {.key = {key_[0], key_[1]},
          .enabled = 1,
          .filter = EGRESSD_DNS_FILTER_ENFORCE,
          .flags = 0,
          .min_ttl_s = 60,
          .max_ttl_s = 86400,
          .grace_s = 300,
          .answer_within_s = 30,
          .name_quota = 0};
}

void DnsKernel::set_policy(std::span<const enforce::NamePattern> patterns,
                           egressd_dns_config config, std::uint32_t slot,
                           std::uint32_t generation) {
  const auto table = enforce::build_name_table(patterns, {config.key[0], config.key[1]});
  if (!table) {
    throw std::runtime_error(table.error().message);
  }
  LIBBPF_OPTS(bpf_map_create_opts, hash, .map_flags = BPF_F_NO_PREALLOC);
  LIBBPF_OPTS(bpf_map_create_opts, array, .map_flags = BPF_F_INNER_MAP);
  const int nodes =
      bpf_map_create(BPF_MAP_TYPE_HASH, nullptr, sizeof(egressd_dns_node_key),
                     sizeof(egressd_dns_node), static_cast<__u32>(table->nodes.size()) + 1, &hash);
  check(nodes, "create nodes");
  for (const auto& n : table->nodes) {
    check(bpf_map_update_elem(nodes, &n.key, &n.node, BPF_NOEXIST), "add node");
  }
  const int globs =
      bpf_map_create(BPF_MAP_TYPE_ARRAY, nullptr, sizeof(__u32), sizeof(egressd_dns_glob),
                     static_cast<__u32>(table->globs.size()) + 1, &array);
  check(globs, "create globs");
  for (std::uint32_t i = 0; i < table->globs.size(); ++i) {
    check(bpf_map_update_elem(globs, &i, &table->globs[i], BPF_ANY), "add glob");
  }
  check(bpf_map_update_elem(bpf_map__fd(skel_->maps.egressd_dnodes), &slot, &nodes, BPF_ANY),
        "set nodes");
  check(bpf_map_update_elem(bpf_map__fd(skel_->maps.egressd_dglobs), &slot, &globs, BPF_ANY),
        "set globs");
  ::close(nodes);
  ::close(globs);
  check(bpf_map_update_elem(bpf_map__fd(skel_->maps.egressd_dconfig), &slot, &config, BPF_ANY),
        "set config");
  egressd_config policy{};
  policy.generation = generation;
  check(bpf_map_update_elem(bpf_map__fd(skel_->maps.egressd_config), &slot, &policy, BPF_ANY),
        "set generation");
  const __u32 zero = 0;
  check(bpf_map_update_elem(bpf_map__fd(skel_->maps.egressd_active), &zero, &slot, BPF_ANY),
        "switch slot");
}

void DnsKernel::trust_server(const egressd_addr& address, std::uint32_t links,
                             std::uint32_t slots) {
  const egressd_dns_server server{.links = links, .slots = slots};
  check(bpf_map_update_elem(bpf_map__fd(skel_->maps.egressd_dserver), &address, &server, BPF_ANY),
        "trust server");
}

void DnsKernel::trust_link(std::uint32_t netns, std::uint32_t ifindex, std::uint32_t links) {
  const egressd_dns_link link{.netns = netns, .ifindex = ifindex};
  check(bpf_map_update_elem(bpf_map__fd(skel_->maps.egressd_dlinks), &link, &links, BPF_ANY),
        "trust link");
}

void DnsKernel::trust_nobody() {
  delete_all<egressd_addr>(bpf_map__fd(skel_->maps.egressd_dserver));
  delete_all<egressd_dns_link>(bpf_map__fd(skel_->maps.egressd_dlinks));
}

int DnsKernel::run(int program, std::span<const std::uint8_t> data, std::uint16_t ether_type,
                   std::uint32_t* verdict) {
  frame_.assign(14, 0);
  frame_[12] = static_cast<std::uint8_t>(ether_type >> 8);
  frame_[13] = static_cast<std::uint8_t>(ether_type & 0xff);
  frame_.insert(frame_.end(), data.begin(), data.end());
  LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame_.data(),
              .data_size_in = static_cast<__u32>(frame_.size()));
  __sk_buff context{};
  if (ifindex_ != 0 || gso_size_ != 0) {
    context.ifindex = ifindex_;
    context.gso_size = gso_size_;
    opts.ctx_in = &context;
    opts.ctx_size_in = sizeof(context);
  }
  const int result = bpf_prog_test_run_opts(program, &opts);
  *verdict = opts.retval;
  return result;
}

bool DnsKernel::judge(std::span<const std::uint8_t> message) {
  std::uint32_t verdict = 0;
  io_->length = 0;
  return run(bpf_program__fd(skel_->progs.dns_test_judge), message, kNoIp, &verdict) == 0 &&
         verdict == 1;
}

bool DnsKernel::answer(std::span<const std::uint8_t> message) {
  std::uint32_t verdict = 0;
  io_->length = 0;
  if (message.size() > 3000) {
    io_->length = static_cast<__u32>(message.size());
    std::memcpy(io_->message, message.data(), std::min(message.size(), sizeof(io_->message)));
    message = message.first(64);
  }
  return run(bpf_program__fd(skel_->progs.dns_test_answer), message, kNoIp, &verdict) == 0 &&
         verdict == 1;
}

int DnsKernel::out(std::span<const std::uint8_t> packet) {
  std::uint32_t verdict = 0;
  const std::uint16_t type = packet[0] >> 4 == 4 ? 0x0800 : 0x86dd;
  check(run(bpf_program__fd(skel_->progs.dns_test_out), packet, type, &verdict), "run out");
  return static_cast<int>(verdict);
}

int DnsKernel::in(std::span<const std::uint8_t> packet) {
  std::uint32_t verdict = 0;
  const std::uint16_t type = packet[0] >> 4 == 4 ? 0x0800 : 0x86dd;
  check(run(bpf_program__fd(skel_->progs.dns_test_in), packet, type, &verdict), "run in");
  return static_cast<int>(verdict);
}

bool DnsKernel::grant(std::span<const egressd_grant_request> requests) {
  std::uint32_t verdict = 0;
  return run(bpf_program__fd(skel_->progs.egressd_grant),
             {reinterpret_cast<const std::uint8_t*>(requests.data()), requests.size_bytes()}, kNoIp,
             &verdict) == 0 &&
         verdict == 1;
}

bool DnsKernel::grant_from_thread(const DnsKernel& kernel,
                                  std::span<const egressd_grant_request> requests) {
  std::vector<std::uint8_t> frame(14 + requests.size_bytes());
  frame[12] = kNoIp >> 8;
  frame[13] = kNoIp & 0xff;
  std::memcpy(frame.data() + 14, requests.data(), requests.size_bytes());
  LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame.data(),
              .data_size_in = static_cast<__u32>(frame.size()));
  return bpf_prog_test_run_opts(bpf_program__fd(kernel.skel_->progs.egressd_grant), &opts) == 0 &&
         opts.retval == 1;
}

std::uint64_t DnsKernel::count(std::uint32_t outcome) const {
  return per_cpu_sum(bpf_map__fd(skel_->maps.egressd_dstats), outcome);
}

std::uint64_t DnsKernel::reason_count(std::uint32_t reason) const {
  return per_cpu_sum(bpf_map__fd(skel_->maps.egressd_counts), reason);
}

std::map<std::array<std::uint8_t, 16>, egressd_learned> DnsKernel::learned() const {
  std::map<std::array<std::uint8_t, 16>, egressd_learned> all;
  const int fd = bpf_map__fd(skel_->maps.egressd_learned);
  std::array<std::uint8_t, 16> key{};
  std::array<std::uint8_t, 16> next{};
  const void* from = nullptr;
  while (bpf_map_get_next_key(fd, from, next.data()) == 0) {
    egressd_learned value{};
    if (bpf_map_lookup_elem_flags(fd, next.data(), &value, BPF_F_LOCK) == 0) {
      all.emplace(next, value);
    }
    key = next;
    from = key.data();
  }
  return all;
}

void DnsKernel::forget() {
  const int fd = bpf_map__fd(skel_->maps.egressd_learned);
  for (const auto& [address, value] : learned()) {
    bpf_map_delete_elem(fd, address.data());
  }
  const int usage = bpf_map__fd(skel_->maps.egressd_dusage);
  for (__u32 id = 0; bpf_map_get_next_key(usage, nullptr, &id) == 0;)
    bpf_map_delete_elem(usage, &id);
  const __u32 zero = 0;
  const std::vector<std::byte> hand(bpf_map__value_size(skel_->maps.egressd_dhand));
  bpf_map_update_elem(bpf_map__fd(skel_->maps.egressd_dhand), &zero, hand.data(), BPF_ANY);
}

void DnsKernel::take_learned(
    std::vector<std::pair<std::array<std::uint8_t, 16>, egressd_learned>>& learned) const {
  constexpr __u32 kBatch = 512;
  std::array<std::uint8_t, 16> keys[kBatch];
  static egressd_learned values[kBatch];
  LIBBPF_OPTS(bpf_map_batch_opts, opts, .elem_flags = BPF_F_LOCK);
  learned.clear();
  __u32 at = 0;
  bool more = false;
  int result = 0;
  while (result == 0) {
    __u32 count = kBatch;
    result =
        bpf_map_lookup_and_delete_batch(bpf_map__fd(skel_->maps.egressd_learned),
                                        more ? &at : nullptr, &at, keys, values, &count, &opts);
    if (result != 0 && result != -ENOENT) {
      check(result, "take learned addresses");
    }
    for (__u32 i = 0; i < count; ++i) {
      learned.emplace_back(keys[i], values[i]);
    }
    more = true;
  }
}

void DnsKernel::forget_questions() {
  delete_all<egressd_dns_asked_key>(bpf_map__fd(skel_->maps.egressd_dasked));
}

void DnsKernel::new_stream() {
  const std::vector<std::uint8_t> nothing(bpf_map__value_size(skel_->maps.dns_test_stream));
  const __u32 zero = 0;
  check(
      bpf_map_update_elem(bpf_map__fd(skel_->maps.dns_test_stream), &zero, nothing.data(), BPF_ANY),
      "reset stream");
  io_->stream = 0;
  io_->stream_busy = 0;
}

std::vector<std::vector<std::uint8_t>> DnsKernel::events() {
  std::vector<std::vector<std::uint8_t>> all;
  ring_buffer* ring = ring_buffer__new(
      bpf_map__fd(skel_->maps.egressd_devents),
      [](void* to, void* data, std::size_t size) {
        const auto* bytes = static_cast<const std::uint8_t*>(data);
        static_cast<std::vector<std::vector<std::uint8_t>>*>(to)->emplace_back(bytes, bytes + size);
        return 0;
      },
      &all, nullptr);
  if (ring != nullptr) {
    ring_buffer__consume(ring);
    ring_buffer__free(ring);
  }
  return all;
}

std::vector<std::pair<std::string, std::uint32_t>> DnsKernel::verified_instructions() const {
  std::vector<std::pair<std::string, std::uint32_t>> all;
  bpf_program* p = nullptr;
  while ((p = bpf_object__next_program(skel_->obj, p)) != nullptr) {
    bpf_prog_info info{};
    __u32 size = sizeof(info);
    if (bpf_obj_get_info_by_fd(bpf_program__fd(p), &info, &size) == 0) {
      all.emplace_back(bpf_program__name(p), info.verified_insns);
    }
  }
  return all;
}

}  // namespace egressd::test
