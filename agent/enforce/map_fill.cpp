#include "enforce/map_fill.h"

#include <bpf/bpf.h>

#include <cerrno>
#include <cstddef>
#include <vector>

namespace egressd::enforce {

Result<MapFill> read_fill(int map_fd) {
  bpf_map_info info{};
  __u32 length = sizeof(info);
  if (::bpf_obj_get_info_by_fd(map_fd, &info, &length) != 0)
    return std::unexpected(Error::from_errno("read map info"));
  MapFill fill{info.name, 0, info.max_entries};
  constexpr __u32 kChunk = 2048;
  std::vector<std::byte> keys(std::size_t{kChunk} * info.key_size);
  std::vector<std::byte> values(std::size_t{kChunk} * info.value_size);
  __u32 position = 0;
  bool first = true;
  for (bool more = true; more;) {
    __u32 count = kChunk;
    __u32 next = 0;
    LIBBPF_OPTS(bpf_map_batch_opts, options);
    const int err = ::bpf_map_lookup_batch(map_fd, first ? nullptr : &position, &next, keys.data(),
                                           values.data(), &count, &options);
    if (err != 0 && errno != ENOENT)
      return std::unexpected(Error::from_errno("read map " + fill.map));
    fill.entries += count;
    more = err == 0;
    first = false;
    position = next;
  }
  return fill;
}

}  // namespace egressd::enforce
