#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <ostream>
#include <string_view>

#include "audit/record.h"
#include "cli/commands.h"
#include "cli/table.h"
#include "enforce/boot_table.h"
#include "enforce/break_glass.h"

namespace egressd::cli {
namespace {

using audit::printable;
using enforce::Opening;
using nlohmann::ordered_json;

int refused(const Error& error, Streams io) {
  io.err << "egressctl: " << printable(error.message) << '\n';
  return kFailed;
}

// Who is behind sudo, or ourselves.
std::uint32_t operator_uid() {
  const char* sudo = ::getenv("SUDO_UID");
  std::uint32_t uid = ::getuid();
  if (sudo != nullptr) {
    const std::string_view text = sudo;
    std::uint32_t behind = 0;
    const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), behind);
    if (ec == std::errc{} && end == text.data() + text.size()) uid = behind;
  }
  return uid;
}

ordered_json to_json(const Opening& opening, BootTime now) {
  using std::chrono::duration_cast;
  using std::chrono::seconds;
  return {{"closes_in_seconds", duration_cast<seconds>(opening.until - now).count()},
          {"opened_seconds_ago", duration_cast<seconds>(now - opening.since).count()},
          {"uid", opening.uid},
          {"reason", opening.reason}};
}

// What of the pinned policy and the boot table could not be changed; false: nothing failed. That
// nothing is pinned is no failure where a boot table was changed instead.
template <class Policy, class Table>
bool say_failures(const Result<Policy>& policy, const Result<Table>& table, bool table_changed,
                  Streams io) {
  // An error of the system has its number: then there is something.
  const bool policy_failed = !policy && (policy.error().code != 0 || !table_changed);
  if (policy_failed) (void)refused(policy.error(), io);
  if (!table)
    io.err << "egressctl: table inet egressd_boot, if it is there, is as it was: "
           << printable(table.error().message) << '\n';
  return policy_failed || !table;
}

std::string dump(const ordered_json& j) {
  return j.dump(-1, ' ', true, ordered_json::error_handler_t::replace);
}

}  // namespace

int open(const std::string& bpffs_dir, std::chrono::seconds duration, const std::string& reason,
         bool json, Streams io) {
  const BootTime now = SystemClock().now();
  const Opening opening{
      .since = now, .until = now + duration, .uid = operator_uid(), .reason = reason};
  // At boot there may be nothing but the table that closes the machine until an agent comes.
  const auto table = enforce::open_boot_glass(opening, now);
  const auto policy = enforce::open_glass(bpffs_dir, opening);
  if (say_failures(policy, table, table.value_or(false), io)) {
    if (policy || table.value_or(false))
      io.err << "egressctl: only " << (policy ? "the policy" : "table inet egressd_boot")
             << " is open for " << format_seconds(duration.count()) << '\n';
    return kFailed;
  }
  if (json) {
    io.out << dump({{"open", to_json(opening, now)}}) << '\n';
    return kOk;
  }
  io.out << "OPEN: egressd refuses nothing for " << format_seconds(duration.count())
         << "; what it would have refused is recorded. `egressctl close` ends it sooner.\n";
  return kOk;
}

int close(const std::string& bpffs_dir, bool json, Streams io) {
  const BootTime now = SystemClock().now();
  const auto table = enforce::close_boot_glass(now);
  auto was = enforce::close_glass(bpffs_dir, now);
  const bool table_closed = table && table->has_value();
  if (say_failures(was, table, table_closed, io)) return kFailed;
  if (table_closed && !(was && *was)) was = *table;
  if (json) {
    io.out << dump({{"was_open", was->has_value() ? to_json(**was, now) : ordered_json()}}) << '\n';
    return kOk;
  }
  if (*was) {
    // Just now is a second ago.
    const auto ago = std::max(std::chrono::duration_cast<std::chrono::seconds>(now - (*was)->since),
                              std::chrono::seconds(1));
    io.out << "closed: the policy is enforced again; it was opened " << format_seconds(ago.count())
           << " ago by uid " << (*was)->uid << " (" << printable((*was)->reason) << ")\n";
  } else {
    io.out << "it was not open; the policy is enforced\n";
  }
  return kOk;
}

}  // namespace egressd::cli
