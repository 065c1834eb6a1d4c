#include <string>
#include <utility>

#include "daemon/last_good.h"
#include "doctor/checks.h"
#include "enforce/boot_table.h"

namespace egressd::doctor {
namespace {

constexpr const char* kOut =
    "start egressd, or open the machine: egressctl open --for 1h --reason WHY for a time, "
    "egressd boot --off until the next boot";

}  // namespace

void check_boot_table(Findings& findings, const Agent& agent) {
  auto table = enforce::BootTable::open();
  if (!table) return;
  const auto there = table->is_there();
  if (!there || !*there) return;
  if (agent.answers)
    add(findings, "boot_table", State::Degraded,
        "table inet egressd_boot still closes this machine beside the daemon: it waits for the "
        "first DNS answers, or the table is of another state directory",
        "if that lasts: egressd boot --off");
  else
    add(findings, "boot_table", State::Broken,
        "table inet egressd_boot closes this machine since it booted: no agent has come into force",
        kOut);
}

void check_last_good(Findings& findings, const Options& options) {
  const std::string path = daemon::last_good_path(options.state_dir);
  const auto last = daemon::LastGood::load(path);
  if (!last) {
    add(findings, "last_good", State::Degraded,
        last.error().message +
            ": at boot the machine would be closed but for what it cannot do without",
        "egressctl reload writes it anew");
    return;
  }
  if (!*last) return;
  add(findings, "last_good", State::Ok,
      "the last good policy, of " + (*last)->policy_path + ", is kept: " +
          (!(*last)->enforce      ? "of audit mode, which `egressd boot` closes nothing with"
           : !(*last)->whole_host ? "of a cgroup, which `egressd boot` closes nothing with"
                                  : "`egressd boot` closes the machine by its addresses"));
}

}  // namespace egressd::doctor
