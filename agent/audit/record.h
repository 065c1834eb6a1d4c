#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bpf/egressd_abi.h"
#include "net/endpoint.h"
#include "net/ip_address.h"

namespace egressd::audit {

// Stable snake_case name of an enum egressd_reason ("default_deny", "port_not_allowed", …) and
// one sentence for a person. Unknown numbers give "unknown".
const char* reason_name(std::uint32_t reason);
const char* reason_text(std::uint32_t reason);

// `text` with every byte outside printable ASCII, and the backslash, as \xNN: names of programs
// and files are chosen by whoever is being watched and must not reach a terminal as they are.
std::string printable(std::string_view text);

// RFC 3339, UTC, always six digits: sorts as text.
std::string format_time(std::chrono::system_clock::time_point time);

class CgroupPaths;  // audit/cgroup_path.h
class UserNames;    // audit/user_names.h

// A denied (or would-be denied) connection, with everything known about it.
struct Record {
  static constexpr int kSchema = 1;

  std::chrono::system_clock::time_point time;  // of the first verdict it stands for
  // Verdicts it stands for: the kernel counts what repeats (same cgroup, destination, port,
  // protocol, reason) instead of reporting each.
  std::uint64_t count = 1;
  std::optional<std::chrono::system_clock::time_point> last_time;  // of the last, if count > 1
  bool denied = true;  // false: would have been, passed in audit mode
  std::string reason;  // reason_name()
  std::string hook;    // connect | sendmsg | packet
  net::IpAddress destination;
  std::uint16_t port = 0;  // host byte order
  std::optional<net::IpAddress> source;
  std::uint16_t source_port = 0;
  net::Protocol protocol = net::Protocol::Tcp;
  std::uint32_t generation = 0;
  std::string collection;  // empty if no rule decided
  std::string rule;
  std::vector<std::string> fqdns;        // names this address is known by, best guess first
  std::vector<std::string> cname_chain;  // of fqdns.front(), if DNS gave one
  std::uint32_t pid = 0;                 // thread group id, what `ps` calls PID; 0 = unknown
  std::uint32_t tid = 0;
  std::optional<std::uint32_t> uid;  // absent if the process is unknown
  std::string comm;
  std::string exe;      // empty if no longer readable
  std::string cmdline;  // arguments separated by spaces, empty if no longer readable
  std::string user;     // name of uid on this host, empty if it has none
  std::uint64_t cgroup_id = 0;
  std::string cgroup;        // path below the cgroup2 mount, empty if gone
  std::string unit;          // systemd unit, container id and pod uid the path names, empty if none
  std::string container_id;  // 64 hexadecimal digits
  std::string pod_uid;       // with dashes, as the Kubernetes API shows it
  std::uint64_t length = 0;  // packet bytes of all it stands for, 0 for connect and sendmsg
  std::uint64_t socket_cookie = 0;

  // One line of JSON without the newline; bytes that are not UTF-8 are replaced.
  [[nodiscard]] std::string to_json() const;
  // Reads back what to_json() wrote; unknown keys are ignored, nothing if it is no record.
  static std::optional<Record> from_json(std::string_view line);
  // One line for `egressctl watch`; texts pass through printable().
  [[nodiscard]] std::string to_text() const;
};

// What the event cannot say by itself.
struct RecordContext {
  std::string collection = {};  // of event.rule_id in event.generation
  std::string rule = {};
  std::vector<std::string> fqdns = {};        // of event.daddr
  std::vector<std::string> cname_chain = {};  // of fqdns.front()
  std::string cgroup2_mount = {};             // where the cgroup2 hierarchy is mounted
  std::string proc_root = "/proc";
  // Remembers paths between records; must be of the same mount. nullptr: looked up each time.
  CgroupPaths* cgroup_paths = nullptr;
  UserNames* users = nullptr;  // nullptr: records have no user
};

// Builds the record: turns boot time into wall-clock time, reads exe and cmdline while the process
// is there (and is still the one that asked: same comm's pid may be reused), finds the cgroup path
// by its id and what the path says.
Record make_record(const egressd_event& event, const RecordContext& context);

}  // namespace egressd::audit
