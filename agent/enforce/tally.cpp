#include "enforce/tally.h"

#include <bpf/bpf.h>

#include <cerrno>
#include <vector>

namespace egressd::enforce {
namespace {

constexpr __u32 kZero = 0;
constexpr __u32 kChunk = 1024;

Result<__u32> id_of(int map) {
  bpf_map_info info{};
  __u32 length = sizeof(info);
  if (::bpf_obj_get_info_by_fd(map, &info, &length) != 0)
    return std::unexpected(Error::from_errno("read map info"));
  return info.id;
}

bool is_empty(int map) {
  egressd_tally_key key{};
  return ::bpf_map_get_next_key(map, nullptr, &key) != 0;
}

}  // namespace

Result<Tally> Tally::open(int outer, int first, int second) {
  Tally tally(outer, first, second);
  __u32 id = 0;
  if (::bpf_map_lookup_elem(outer, &kZero, &id) == 0) return tally;
  if (errno != ENOENT) return std::unexpected(Error::from_errno("read map egressd_tally"));
  if (::bpf_map_update_elem(outer, &kZero, &first, BPF_ANY) != 0)
    return std::unexpected(Error::from_errno("write map egressd_tally"));
  return tally;
}

Result<int> Tally::in_use() const {
  __u32 id = 0;
  if (::bpf_map_lookup_elem(outer_, &kZero, &id) != 0)
    return std::unexpected(Error::from_errno("read map egressd_tally"));
  for (int i = 0; i < 2; ++i) {
    const auto own = id_of(maps_[i]);
    if (!own) return std::unexpected(own.error());
    if (*own == id) return i;
  }
  return std::unexpected(Error::of("map egressd_tally points to a map that is not egressd's"));
}

// Of a map no program uses. What is told goes before it is looked further.
Result<void> Tally::empty(int map, const Visit& visit) {
  std::vector<egressd_tally_key> keys(kChunk);
  std::vector<egressd_tally> values(kChunk);
  while (!is_empty(map)) {
    // From the start each time: what was there is gone.
    __u32 position = 0;
    __u32 count = kChunk;
    LIBBPF_OPTS(bpf_map_batch_opts, options);
    if (::bpf_map_lookup_batch(map, nullptr, &position, keys.data(), values.data(), &count,
                               &options) != 0 &&
        errno != ENOENT)
      return std::unexpected(Error::from_errno("read map egressd_tally"));
    for (__u32 i = 0; i < count; ++i) {
      if (values[i].count != 0) visit(values[i]);
      if (::bpf_map_delete_elem(map, &keys[i]) != 0)
        return std::unexpected(Error::from_errno("empty map egressd_tally"));
    }
    if (count == 0) return std::unexpected(Error::of("map egressd_tally cannot be read"));
  }
  return {};
}

Result<void> Tally::carry_over(int from, int to) {
  std::vector<egressd_tally_key> keys(kChunk);
  std::vector<egressd_tally> values(kChunk);
  __u32 position = 0;
  __u32 next = 0;
  for (bool first = true, more = true; more; first = false, position = next) {
    __u32 count = kChunk;
    LIBBPF_OPTS(bpf_map_batch_opts, options);
    more = ::bpf_map_lookup_batch(from, first ? nullptr : &position, &next, keys.data(),
                                  values.data(), &count, &options) == 0;
    if (!more && errno != ENOENT)
      return std::unexpected(Error::from_errno("read map egressd_tally"));
    for (__u32 i = 0; i < count; ++i) {
      if (values[i].count == 0) continue;
      egressd_tally again{};
      again.event = values[i].event;
      if (::bpf_map_update_elem(to, &keys[i], &again, BPF_ANY) != 0)
        return std::unexpected(Error::from_errno("write map egressd_tally"));
    }
  }
  return {};
}

Result<void> Tally::drain(const Visit& visit) {
  const auto current = in_use();
  if (!current) return std::unexpected(current.error());
  const int used = maps_[*current];
  const int spare = maps_[1 - *current];
  // Left by an agent that ended while it read.
  if (auto r = empty(spare, visit); !r) return r;
  if (is_empty(used)) return {};
  if (auto r = carry_over(used, spare); !r) return r;
  // Returns when no program uses the other any more (maybe_wait_bpf_programs(),
  // kernel/bpf/syscall.c).
  if (::bpf_map_update_elem(outer_, &kZero, &spare, BPF_ANY) != 0)
    return std::unexpected(Error::from_errno("write map egressd_tally"));
  return empty(used, visit);
}

}  // namespace egressd::enforce
