#include "map_memory.h"

#include <bpf/bpf.h>
#include <linux/bpf.h>

#include <algorithm>
#include <filesystem>

#include "arena.h"
#include "base/unique_fd.h"

namespace egressd::bench {

namespace fs = std::filesystem;

Result<std::vector<MapMemory>> map_memory(const std::string& bpffs) {
  const auto memlock = [](int fd) -> Result<std::uint64_t> {
    auto text = read_file("/proc/self/fdinfo/" + std::to_string(fd));
    if (!text) return std::unexpected(text.error());
    const auto at = text->find("memlock:");
    if (at == std::string::npos) return std::unexpected(Error::of("no memlock in fdinfo"));
    return std::stoull(text->substr(at + 8));
  };
  std::vector<MapMemory> all;
  std::error_code ec;
  for (const auto& version : fs::directory_iterator(bpffs, ec)) {
    std::error_code none;
    for (const auto& pin : fs::directory_iterator(version.path() / "maps", none)) {
      const UniqueFd map(::bpf_obj_get(pin.path().c_str()));
      if (!map) return std::unexpected(Error::from_errno("open " + pin.path().string()));
      bpf_map_info info{};
      __u32 length = sizeof(info);
      if (::bpf_obj_get_info_by_fd(map.get(), &info, &length) != 0)
        return std::unexpected(Error::from_errno("read map info"));
      auto own = memlock(map.get());
      if (!own) return std::unexpected(own.error());
      MapMemory entry{.name = pin.path().filename(), .bytes = *own};
      if (info.type == BPF_MAP_TYPE_ARRAY_OF_MAPS) {
        for (__u32 slot = 0; slot < info.max_entries; ++slot) {
          __u32 id = 0;
          if (::bpf_map_lookup_elem(map.get(), &slot, &id) != 0) continue;
          const UniqueFd inner(::bpf_map_get_fd_by_id(id));
          if (!inner) continue;
          auto bytes = memlock(inner.get());
          if (!bytes) return std::unexpected(bytes.error());
          entry.bytes += *bytes;
        }
      }
      all.push_back(std::move(entry));
    }
  }
  if (ec) return std::unexpected(Error{ec.value(), "read " + bpffs + ": " + ec.message()});
  std::ranges::sort(all, std::greater{}, &MapMemory::bytes);
  return all;
}

}  // namespace egressd::bench
