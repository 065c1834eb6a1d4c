#include <spdlog/spdlog.h>

#include <filesystem>
#include <utility>

#include "daemon/daemon_impl.h"
#include "daemon/last_good.h"
#include "enforce/cgroup.h"

// What an agent has to do with the boot table (enforce/boot_table.h), and the policy it is made of.
namespace egressd::daemon {

// The policy file is of no use: with the last policy that was in force, if it came from there.
Result<DaemonImpl::PolicyFile> DaemonImpl::last_good_instead_of(Result<PolicyFile> file) {
  const std::string path = last_good_path(options_.state_dir);
  auto last = LastGood::load(path);
  if (!last) {
    spdlog::error("{}", last.error().message);
    return file;
  }
  if (!*last || (*last)->policy_path != options_.policy_path) return file;
  auto kept = parse(std::move((*last)->text), options_.policy_path);
  if (!kept) {
    spdlog::error("the last good policy, {}, is of no use either: {}", path, kept.error().message);
    return file;
  }
  reload_error_ = "the policy file cannot be used; in force is the last good policy, as kept in " +
                  path + ": mend the file, it is read at once: " + file.error().message;
  spdlog::error("{}", reload_error_);
  return kept;
}

void DaemonImpl::keep_last_good() {
  // On trial is not good yet.
  if (trial_ || !attached_ || !policy_text_) return;
  const auto mount = enforce::find_cgroup2_mount();
  std::error_code ec;
  const LastGood last{
      .policy_path = options_.policy_path,
      .enforce = compiled_.rules.enforce,
      .whole_host = mount && std::filesystem::equivalent(*mount, options_.cgroup_path, ec) && !ec,
      .resolvers = servers_.dns.addresses,
      .text = *policy_text_};
  const std::string text = last.to_text();
  const std::string sum = fingerprint(text);
  if (sum == last_good_written_) {
    last_good_error_.clear();
    return;
  }
  if (auto r = write_file_atomically(last_good_path(options_.state_dir), text); !r) {
    const bool again = !last_good_error_.empty();
    last_good_error_ =
        "the policy is in force, but is not kept for the next boot, which closes the machine with "
        "an older one or none: mend the disk, it is tried again: " +
        r.error().message;
    if (!again) spdlog::error("{}", last_good_error_);
    return;
  }
  last_good_error_.clear();
  last_good_written_ = sum;
}

// Before the process gives up its rights: it may open no such socket afterwards.
void DaemonImpl::look_for_boot_table() {
  auto table = enforce::BootTable::open();
  if (!table) {
    spdlog::warn("whether a boot table is in force is not known: {}", table.error().message);
    return;
  }
  const auto state_dir = table->state_dir();
  if (!state_dir) {
    spdlog::warn("whether a boot table is in force is not known: {}", state_dir.error().message);
    return;
  }
  // That of another agent's machine is not ours, as for `egressctl exec`.
  if (!*state_dir || **state_dir != options_.state_dir) return;
  spdlog::info("table inet egressd_boot closes this machine until the policy is in force");
  boot_table_ = std::move(*table);
}

// Whoever opened the boot table finds the policy open for the same time.
void DaemonImpl::carry_boot_opening() {
  if (!boot_table_) return;
  const auto opening = boot_table_->opening(clock_.now());
  if (!opening || !*opening) return;
  if (auto r = enforce::open_glass(options_.bpffs_dir, **opening); !r)
    spdlog::warn(
        "the boot table was opened by break-glass; the policy is enforced nevertheless: {}",
        r.error().message);
}

void DaemonImpl::end_boot_table() {
  if (!boot_table_) return;
  const auto removed = boot_table_->remove();
  if (!removed) {
    spdlog::error(
        "table inet egressd_boot refuses what the policy may allow; remove it with "
        "`egressd boot --off`: {}",
        removed.error().message);
    return;
  }
  if (*removed) spdlog::info("took over from table inet egressd_boot, which is removed");
  boot_table_.reset();
}

}  // namespace egressd::daemon
