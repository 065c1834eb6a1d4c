#include "enforce/break_glass.h"

#include <bpf/bpf.h>

#include <algorithm>
#include <vector>

#include "enforce/pins.h"

namespace egressd::enforce {
namespace {

Result<std::vector<UniqueFd>> pinned(const std::string& bpffs_dir) {
  auto maps = maps_of_other_versions(bpffs_dir, "", "egressd_open");
  if (maps.empty())
    return std::unexpected(Error::of("nothing of egressd is pinned in " + bpffs_dir +
                                     ": nothing is enforced from there, or --bpffs is another"));
  return maps;
}

Result<void> write(const std::vector<UniqueFd>& maps, const egressd_open& value) {
  const __u32 zero = 0;
  for (const UniqueFd& map : maps)
    if (::bpf_map_update_elem(map.get(), &zero, &value, BPF_ANY) != 0)
      return std::unexpected(Error::from_errno("write map egressd_open"));
  return {};
}

}  // namespace

egressd_open to_value(const Opening& opening) {
  egressd_open value{};
  value.until_ns = static_cast<__u64>(opening.until.count());
  value.since_ns = static_cast<__u64>(opening.since.count());
  value.uid = opening.uid;
  std::size_t size = std::min(opening.reason.size(), kMaxOpenReason);
  // Not in the middle of a character (RFC 3629): bytes 10xxxxxx continue one.
  while (size < opening.reason.size() && size > 0 &&
         (static_cast<unsigned char>(opening.reason[size]) & 0xc0) == 0x80)
    --size;
  std::copy_n(opening.reason.begin(), size, value.reason);
  return value;
}

Opening Opening::from(const egressd_open& value) {
  return {.since = BootTime(static_cast<std::int64_t>(value.since_ns)),
          .until = BootTime(static_cast<std::int64_t>(value.until_ns)),
          .uid = value.uid,
          .reason = std::string(std::begin(value.reason), std::ranges::find(value.reason, 0))};
}

Result<void> open_glass(const std::string& bpffs_dir, const Opening& opening) {
  const auto maps = pinned(bpffs_dir);
  if (!maps) return std::unexpected(maps.error());
  return write(*maps, to_value(opening));
}

Result<std::optional<Opening>> find_opening(const std::string& bpffs_dir, BootTime now) {
  const auto maps = pinned(bpffs_dir);
  if (!maps) return std::unexpected(maps.error());
  const __u32 zero = 0;
  for (const UniqueFd& map : *maps) {
    egressd_open value{};
    if (::bpf_map_lookup_elem(map.get(), &zero, &value) != 0)
      return std::unexpected(Error::from_errno("read map egressd_open"));
    if (Opening opening = Opening::from(value); opening.is_open(now)) return opening;
  }
  return std::nullopt;
}

Result<std::optional<Opening>> close_glass(const std::string& bpffs_dir, BootTime now) {
  auto open = find_opening(bpffs_dir, now);
  if (!open) return open;
  const auto maps = pinned(bpffs_dir);
  if (!maps) return std::unexpected(maps.error());
  if (!*open) return open;
  // What it was stays to be read: the agent puts it on record.
  Opening closed = **open;
  closed.until = now;
  if (auto r = write(*maps, to_value(closed)); !r) return std::unexpected(r.error());
  return open;
}

}  // namespace egressd::enforce
