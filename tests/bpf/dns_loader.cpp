// Loads all kernel programs, attaches them to a cgroup in a way that does not need this process,
// fills in a policy, prints counters on request. Stands in for the agent in tests/netns/dns_*.sh,
// where the point is that none is alive.
//
//   dns_loader attach CGROUP PINS POLICY   POLICY holds lines of: pattern TEXT ID [private]
//                                          server ADDRESS LINKS; local ADDRESS;
//                                          link NETNS IFINDEX LINKS
//   dns_loader counts PINS                 one line per counter that is not 0
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "dns_e2e_bpf.skel.h"
#include "enforce/name_table.h"

using namespace egressd;

namespace {

constexpr std::uint32_t kSlot = 1;
constexpr std::uint32_t kAddresses = 4U << 20;

bool failed(int result, const char* what) {
  if (result >= 0) {
    return false;
  }
  std::fprintf(stderr, "%s: %s\n", what, std::strerror(-result));
  return true;
}

egressd_addr parse(const std::string& text) {
  egressd_addr a{};
  if (::inet_pton(AF_INET, text.c_str(), a.addr + 12) == 1) {
    a.addr[10] = a.addr[11] = 0xff;
  } else {
    ::inet_pton(AF_INET6, text.c_str(), a.addr);
  }
  return a;
}

// An inner map of `count` entries put into its slot.
template <typename Key, typename Value>
bool set_inner(const bpf_map* outer, bpf_map_type type, __u32 flags,
               const std::vector<std::pair<Key, Value>>& entries) {
  LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = flags);
  const int fd = bpf_map_create(type, nullptr, sizeof(Key), sizeof(Value),
                                static_cast<__u32>(entries.size()) + 1, &options);
  if (failed(fd, "create inner map")) {
    return false;
  }
  for (const auto& [key, value] : entries) {
    if (failed(bpf_map_update_elem(fd, &key, &value, BPF_ANY), "fill inner map")) {
      return false;
    }
  }
  const bool ok =
      !failed(bpf_map_update_elem(bpf_map__fd(outer), &kSlot, &fd, BPF_ANY), "set inner map");
  ::close(fd);
  return ok;
}

template <typename Key, typename Value>
bool set(const bpf_map* map, const Key& key, const Value& value) {
  return !failed(bpf_map_update_elem(bpf_map__fd(map), &key, &value, BPF_ANY), bpf_map__name(map));
}

int attach(const char* cgroup_path, const std::string& pins, const char* policy) {
  libbpf_set_strict_mode(LIBBPF_STRICT_ALL);
  dns_e2e_bpf* skel = dns_e2e_bpf__open();
  // The tests ask for more names than a machine is expected to.
  if (skel == nullptr || bpf_map__set_max_entries(skel->maps.egressd_learned, kAddresses) != 0 ||
      dns_e2e_bpf__load(skel) != 0) {
    std::perror("load");
    return 1;
  }
  std::vector<enforce::NamePattern> patterns;
  std::ifstream file(policy);
  std::string line;
  std::uint32_t names = 0;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string kind;
    std::string text;
    words >> kind >> text;
    if (kind == "pattern") {
      std::uint32_t id = 0;
      std::string option;
      words >> id >> option;
      patterns.push_back({text, id, option == "private"});
      names = std::max(names, id);
    } else if (kind == "server") {
      egressd_dns_server server{.links = 0, .slots = 1U << kSlot};
      words >> server.links;
      const auto address = parse(text);
      if (!set(skel->maps.egressd_dserver, address, server)) {
        return 1;
      }
    } else if (kind == "local") {
      const __u8 one = 1;
      if (!set(skel->maps.egressd_local, parse(text), one)) {
        return 1;
      }
    } else if (kind == "link") {
      egressd_dns_link link{.netns = static_cast<__u32>(std::stoul(text)), .ifindex = 0};
      __u32 links = 0;
      words >> link.ifindex >> links;
      if (!set(skel->maps.egressd_dlinks, link, links)) {
        return 1;
      }
    }
  }
  std::random_device random;
  egressd_dns_config dns{};
  for (auto& word : dns.key) {
    word = static_cast<__u64>(random()) << 32 | random();
  }
  dns.enabled = 1;
  dns.filter = EGRESSD_DNS_FILTER_ENFORCE;
  dns.min_ttl_s = 60;
  dns.max_ttl_s = 86400;
  dns.grace_s = 300;
  dns.answer_within_s = 30;
  const auto table = enforce::build_name_table(patterns, {dns.key[0], dns.key[1]});
  if (!table) {
    std::fprintf(stderr, "%s\n", table.error().message.c_str());
    return 1;
  }
  std::vector<std::pair<egressd_dns_node_key, egressd_dns_node>> nodes;
  for (const auto& n : table->nodes) {
    nodes.emplace_back(n.key, n.node);
  }
  std::vector<std::pair<__u32, egressd_dns_glob>> globs;
  for (const auto& g : table->globs) {
    globs.emplace_back(static_cast<__u32>(globs.size()), g);
  }
  // One rule for every name: any protocol, any port.
  std::vector<std::pair<__u32, egressd_list>> lists;
  for (std::uint32_t id = 0; id <= names; ++id) {
    lists.emplace_back(id, egressd_list{.start = 0, .count = id == 0 ? 0U : 1U});
  }
  egressd_rule rule{};
  rule.port_last = 65535;
  rule.action = EGRESSD_ACTION_ALLOW;
  rule.mode = EGRESSD_MODE_ENFORCE;
  egressd_config config{};
  config.generation = 1;
  config.mode = EGRESSD_MODE_ENFORCE;
  config.name_count = names + 1;
  const __u32 zero = 0;
  const std::vector<std::pair<__u32, egressd_rule>> rules{{0, rule}};
  auto& m = skel->maps;
  if (!set_inner(m.egressd_dnodes, BPF_MAP_TYPE_HASH, BPF_F_NO_PREALLOC, nodes) ||
      !set_inner(m.egressd_dglobs, BPF_MAP_TYPE_ARRAY, BPF_F_INNER_MAP, globs) ||
      !set_inner(m.egressd_names, BPF_MAP_TYPE_ARRAY, BPF_F_INNER_MAP, lists) ||
      !set_inner(m.egressd_rules, BPF_MAP_TYPE_ARRAY, BPF_F_INNER_MAP, rules) ||
      !set(m.egressd_dconfig, kSlot, dns) || !set(m.egressd_config, kSlot, config) ||
      !set(m.egressd_active, zero, kSlot)) {
    return 1;
  }
  for (const auto& [map, name] :
       {std::pair{m.egressd_dstats, "dstats"}, std::pair{m.egressd_counts, "counts"},
        std::pair{m.egressd_learned, "learned"}}) {
    if (failed(bpf_map__pin(map, (pins + "/" + name).c_str()), name)) {
      return 1;
    }
  }
  const int cgroup = ::open(cgroup_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (cgroup < 0) {
    std::perror(cgroup_path);
    return 1;
  }
  bpf_program* p = nullptr;
  while ((p = bpf_object__next_program(skel->obj, p)) != nullptr) {
    if (std::strcmp(bpf_program__name(p), "egressd_grant") == 0) {
      continue;
    }
    // Not a link: it would be gone with this process.
    if (failed(bpf_prog_attach(bpf_program__fd(p), cgroup, bpf_program__expected_attach_type(p),
                               BPF_F_ALLOW_MULTI),
               bpf_program__name(p))) {
      return 1;
    }
  }
  std::puts("attached");
  return 0;
}

int counts(const std::string& pins) {
  for (const auto& [name, entries] : {std::pair{"dstats", EGRESSD_DNS_OUTCOME_MAX + 0},
                                      std::pair{"counts", EGRESSD_REASON_MAX + 0}}) {
    const int fd = bpf_obj_get((pins + "/" + name).c_str());
    if (failed(fd, name)) {
      return 1;
    }
    std::vector<std::uint64_t> values(static_cast<std::size_t>(libbpf_num_possible_cpus()));
    for (std::uint32_t key = 0; key < static_cast<std::uint32_t>(entries); ++key) {
      std::uint64_t sum = 0;
      if (bpf_map_lookup_elem(fd, &key, values.data()) == 0) {
        for (const auto v : values) {
          sum += v;
        }
      }
      if (sum != 0) {
        std::printf("%s %u %llu\n", name, key, static_cast<unsigned long long>(sum));
      }
    }
    ::close(fd);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string verb = argc > 1 ? argv[1] : "";
  if (verb == "attach" && argc == 5) {
    return attach(argv[2], argv[3], argv[4]);
  }
  if (verb == "counts" && argc == 3) {
    return counts(argv[2]);
  }
  std::fputs("usage: dns_loader attach CGROUP PINS POLICY | counts PINS\n", stderr);
  return 2;
}
