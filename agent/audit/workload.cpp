#include "audit/workload.h"

#include <algorithm>
#include <array>
#include <ranges>

namespace egressd::audit {
namespace {

bool is_hex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); }

bool is_container_id(std::string_view text) {
  return text.size() == 64 && std::ranges::all_of(text, is_hex);
}

// "cri-containerd-ID", "docker-ID", …, or the id alone. conmon (libpod-conmon-ID, crio-conmon-ID)
// watches over a container from outside.
std::string_view container_in(std::string_view name) {
  if (is_container_id(name)) return name;
  constexpr std::array<std::string_view, 5> kRuntimes{"cri-containerd-", "crio-", "docker-",
                                                      "libpod-", "nerdctl-"};
  for (const std::string_view runtime : kRuntimes) {
    if (name.starts_with(runtime) && is_container_id(name.substr(runtime.size())))
      return name.substr(runtime.size());
  }
  return {};
}

std::string_view without_suffix(std::string_view name, std::string_view suffix) {
  return name.ends_with(suffix) ? name.substr(0, name.size() - suffix.size()) : name;
}

// What `pod` is followed by: 8-4-4-4-12 hexadecimal digits with dashes, which a slice's name has as
// underscores (a dash there is a level of the tree), or the 32 of a static pod's hash.
std::string pod_uid_of(std::string_view text) {
  if (text.size() == 32 && std::ranges::all_of(text, is_hex)) return std::string(text);
  if (text.size() != 36) return {};
  std::string uid(text);
  for (std::size_t i = 0; i < uid.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    if (dash && uid[i] == '_') uid[i] = '-';
    if (dash ? uid[i] != '-' : !is_hex(uid[i])) return {};
  }
  return uid;
}

std::string pod_in_slice(std::string_view slice) {
  const auto stem = without_suffix(slice, ".slice");
  const auto at = stem.rfind("-pod");
  if (stem.size() == slice.size() || at == std::string_view::npos ||
      stem.substr(0, at).find("kubepods") == std::string_view::npos)
    return {};
  return pod_uid_of(stem.substr(at + 4));
}

// Unit types that have processes, other than slices.
bool is_unit(std::string_view name) {
  constexpr std::array<std::string_view, 5> kTypes{".service", ".scope", ".socket", ".mount",
                                                   ".swap"};
  return std::ranges::any_of(kTypes, [name](std::string_view type) {
    return name.size() > type.size() && name.ends_with(type);
  });
}

bool is_user_manager(std::string_view name) {
  return name.starts_with("user@") && name.ends_with(".service");
}

}  // namespace

Workload workload_of(std::string_view cgroup_path) {
  Workload found;
  bool below_kubepods = false;
  bool unit_is_final = false;
  for (const auto part : std::views::split(cgroup_path, '/')) {
    std::string_view name(part.begin(), part.end());
    if (name.empty()) continue;
    // How systemd writes a unit whose name is also that of a file of the kernel's.
    const std::string_view unit = name.starts_with('_') ? name.substr(1) : name;
    if (!unit_is_final && is_unit(unit)) {
      found.unit += (found.unit.empty() ? "" : "/") + std::string(unit);
      unit_is_final = found.unit != unit || !is_user_manager(unit);
    }

    // runc without the systemd driver takes SLICE:RUNTIME:ID for a name.
    if (const auto colon = name.find(':'); colon != std::string_view::npos) {
      if (found.pod_uid.empty()) found.pod_uid = pod_in_slice(name.substr(0, colon));
      name = name.substr(name.rfind(':') + 1);
    }
    if (name.starts_with("kubepods")) below_kubepods = true;
    if (found.pod_uid.empty()) found.pod_uid = pod_in_slice(name);
    if (found.pod_uid.empty() && below_kubepods && name.starts_with("pod"))
      found.pod_uid = pod_uid_of(name.substr(3));
    if (const auto id = container_in(without_suffix(name, ".scope")); !id.empty()) {
      found.container_id = id;
      break;
    }
  }
  return found;
}

}  // namespace egressd::audit
