#include "enforce/probe.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "base/unique_fd.h"

namespace egressd::enforce {
namespace {

namespace fs = std::filesystem;

// Keeps libbpf quiet about what is asked only to see whether it fails.
class Quiet {
 public:
  Quiet() : previous_(::libbpf_set_print(nullptr)) {}
  ~Quiet() { ::libbpf_set_print(previous_); }
  Quiet(const Quiet&) = delete;
  Quiet& operator=(const Quiet&) = delete;

 private:
  libbpf_print_fn_t previous_;
};

// `return 1`: lets everything pass, and is never attached.
UniqueFd load_trivial() {
  const std::array<bpf_insn, 2> program{
      {{.code = BPF_ALU64 | BPF_MOV | BPF_K,
        .dst_reg = BPF_REG_0,
        .src_reg = 0,
        .off = 0,
        .imm = 1},
       {.code = BPF_JMP | BPF_EXIT, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0}}};
  LIBBPF_OPTS(bpf_prog_load_opts, options, .expected_attach_type = BPF_CGROUP_INET_EGRESS);
  return UniqueFd(::bpf_prog_load(BPF_PROG_TYPE_CGROUP_SKB, "egressd_probe", "GPL", program.data(),
                                  program.size(), &options));
}

// The kernel looks at the command first, then at the cgroup: there is none.
bool has_cgroup_links() {
  const UniqueFd program = load_trivial();
  if (!program) return false;
  LIBBPF_OPTS(bpf_link_create_opts, options);
  const UniqueFd link(::bpf_link_create(program.get(), -1, BPF_CGROUP_INET_EGRESS, &options));
  return !link && errno == EBADF;
}

bool has_function(const char* name, const btf* types) {
  return types != nullptr && ::btf__find_by_name_kind(types, name, BTF_KIND_FUNC) > 0;
}

struct Hook {
  const char* name;
  bpf_attach_type type;
  bool rewrites;
};
constexpr std::array kHooks{Hook{"connect4", BPF_CGROUP_INET4_CONNECT, true},
                            Hook{"connect6", BPF_CGROUP_INET6_CONNECT, true},
                            Hook{"sendmsg4", BPF_CGROUP_UDP4_SENDMSG, true},
                            Hook{"sendmsg6", BPF_CGROUP_UDP6_SENDMSG, true},
                            Hook{"egress", BPF_CGROUP_INET_EGRESS, false},
                            Hook{"ingress", BPF_CGROUP_INET_INGRESS, false},
                            Hook{"sock_ops", BPF_CGROUP_SOCK_OPS, false}};

}  // namespace

std::vector<Feature> probe_features() {
  const Quiet quiet;
  std::vector<Feature> found;
  const auto add = [&](const char* name, bool there, bool required, const char* without) {
    found.push_back({name, there, required, without});
  };
  const auto program = [](bpf_prog_type type) {
    return ::libbpf_probe_bpf_prog_type(type, nullptr) == 1;
  };
  const auto map = [](bpf_map_type type) {
    return ::libbpf_probe_bpf_map_type(type, nullptr) == 1;
  };

  btf* const types = ::btf__load_vmlinux_btf();
  add("kernel types (BTF)", types != nullptr, true,
      "the kernel was built without CONFIG_DEBUG_INFO_BTF");
  add("programs on packets of a cgroup (cgroup_skb)", program(BPF_PROG_TYPE_CGROUP_SKB), true,
      "needs CONFIG_CGROUP_BPF");
  add("programs on connect() and sendmsg() (cgroup_sock_addr)",
      program(BPF_PROG_TYPE_CGROUP_SOCK_ADDR), true, "needs CONFIG_CGROUP_BPF");
  add("programs on TCP events (sock_ops)", program(BPF_PROG_TYPE_SOCK_OPS), true,
      "needs CONFIG_CGROUP_BPF");
  add("links that keep programs on a cgroup", has_cgroup_links(), true, "needs Linux 5.7");
  add("storage in sockets (sk_storage)", map(BPF_MAP_TYPE_SK_STORAGE), true, "needs Linux 5.2");
  add("prefix maps (lpm_trie)", map(BPF_MAP_TYPE_LPM_TRIE), true, "needs Linux 4.11");
  add("maps in maps", map(BPF_MAP_TYPE_ARRAY_OF_MAPS), true, "needs Linux 4.12");
  add("ring buffers (ringbuf)", map(BPF_MAP_TYPE_RINGBUF), true, "needs Linux 5.8");
  add("the walk over open sockets (iterator bpf_sk_storage_map)",
      has_function("bpf_iter_bpf_sk_storage_map", types), false,
      "without it addresses of open connections end with their TTL; needs Linux 5.9");
  ::btf__free(types);
  return found;
}

std::optional<bool> probe_jit() {
  const Quiet quiet;
  const UniqueFd program = load_trivial();
  bpf_prog_info info{};
  __u32 length = sizeof(info);
  if (!program || ::bpf_obj_get_info_by_fd(program.get(), &info, &length) != 0) return std::nullopt;
  return info.jited_prog_len > 0;
}

Result<std::vector<OnCgroup>> programs_on(const std::string& cgroup) {
  const UniqueFd fd(::open(cgroup.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return std::unexpected(Error::from_errno("open " + cgroup));
  std::vector<OnCgroup> found;
  for (const Hook& hook : kHooks) {
    std::array<__u32, 64> ids{};  // the kernel allows no more on one hook
    __u32 count = ids.size();
    __u32 flags = 0;
    if (::bpf_prog_query(fd.get(), hook.type, 0, &flags, ids.data(), &count) != 0)
      return std::unexpected(
          Error::from_errno(std::string("ask what is on hook ") + hook.name + " of " + cgroup));
    for (__u32 i = 0; i < std::min<std::size_t>(count, ids.size()); ++i) {
      OnCgroup program;
      program.hook = hook.name;
      program.id = ids[i];
      program.rewrites = hook.rewrites;
      program.exclusive = (flags & BPF_F_ALLOW_MULTI) == 0;
      const UniqueFd program_fd(::bpf_prog_get_fd_by_id(ids[i]));
      bpf_prog_info info{};
      __u32 length = sizeof(info);
      if (program_fd && ::bpf_obj_get_info_by_fd(program_fd.get(), &info, &length) == 0)
        program.name.assign(std::begin(info.name), std::ranges::find(info.name, '\0'));
      program.ours = program.name.starts_with("egressd_");
      found.push_back(std::move(program));
    }
  }
  return found;
}

std::vector<std::string> pinned_links(const std::string& bpffs_dir) {
  std::vector<std::string> found;
  std::error_code ec;
  for (const auto& version : fs::directory_iterator(bpffs_dir, ec)) {
    if (!version.path().filename().string().starts_with('v')) continue;
    for (const auto& link : fs::directory_iterator(version.path() / "links", ec)) {
      if (std::string name = link.path().filename(); name.starts_with("egressd_"))
        found.push_back(std::move(name));
    }
  }
  std::ranges::sort(found);
  return found;
}

}  // namespace egressd::enforce
