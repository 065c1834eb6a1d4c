#include "audit/record.h"

#include <arpa/inet.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "audit/cgroup_path.h"
#include "audit/process.h"
#include "audit/user_names.h"
#include "audit/workload.h"
#include "base/clock.h"

namespace egressd::audit {
namespace {

using nlohmann::json;
using SystemTime = std::chrono::system_clock::time_point;

const char* hook_name(std::uint8_t hook) {
  switch (hook) {
    case EGRESSD_HOOK_CONNECT:
      return "connect";
    case EGRESSD_HOOK_SENDMSG:
      return "sendmsg";
    case EGRESSD_HOOK_PACKET:
      return "packet";
    default:
      return "unknown";
  }
}

std::optional<SystemTime> parse_time(const std::string& text) {
  tm utc{};
  int us = 0;
  int end = 0;
  if (std::sscanf(text.c_str(), "%4d-%2d-%2dT%2d:%2d:%2d.%6dZ%n", &utc.tm_year, &utc.tm_mon,
                  &utc.tm_mday, &utc.tm_hour, &utc.tm_min, &utc.tm_sec, &us, &end) != 7 ||
      static_cast<std::size_t>(end) != text.size())
    return std::nullopt;
  // Nanoseconds since 1970 do not fit 64 bits for all that can be written: overflow is undefined.
  if (utc.tm_year < 1970 || utc.tm_year > 2200) return std::nullopt;
  utc.tm_year -= 1900;
  utc.tm_mon -= 1;
  return SystemTime(std::chrono::seconds(::timegm(&utc)) + std::chrono::microseconds(us));
}

std::optional<net::Protocol> parse_protocol(const std::string& name,
                                            const net::IpAddress& destination) {
  using net::Protocol;
  if (name == "icmp") return destination.is_v4() ? Protocol::Icmp : Protocol::Icmpv6;
  for (const auto p : {Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Any})
    if (name == net::to_string(p)) return p;
  std::uint8_t number = 0;
  const auto [end, ec] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (ec != std::errc{} || end != name.data() + name.size()) return std::nullopt;
  return static_cast<Protocol>(number);
}

net::IpAddress to_address(const egressd_addr& address) {
  net::IpAddress::Bytes bytes{};
  std::ranges::copy(address.addr, bytes.begin());
  return net::IpAddress(bytes);
}

bool is_unset(const egressd_addr& address) {
  return std::ranges::all_of(address.addr, [](auto b) { return b == 0; });
}

// Readers of members that may be missing or, in a line that is not ours, of another type.
template <typename T>
void read(const json& object, const char* key, T& out) {
  const auto it = object.find(key);
  if (it == object.end()) return;
  if constexpr (std::is_same_v<T, std::string>) {
    if (it->is_string()) out = it->template get<std::string>();
  } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
    if (!it->is_array()) return;
    for (const auto& name : *it)
      if (name.is_string()) out.push_back(name.template get<std::string>());
  } else {
    if (!it->is_number_unsigned()) return;
    const auto value = it->template get<std::uint64_t>();
    if (value <= std::numeric_limits<T>::max()) out = static_cast<T>(value);
  }
}

std::string endpoint(const net::IpAddress& address, std::uint16_t port) {
  auto text = address.to_string();
  if (port == 0) return text;
  if (!address.is_v4()) text = "[" + text + "]";
  return text + ":" + std::to_string(port);
}

void pad(std::string& line, std::size_t column) {
  line.resize(std::max(line.size() + 1, column), ' ');
}

}  // namespace

std::string format_time(SystemTime time) {
  const auto us = std::chrono::floor<std::chrono::microseconds>(time.time_since_epoch());
  const auto s = std::chrono::floor<std::chrono::seconds>(us);
  const std::time_t seconds = s.count();
  tm utc{};
  ::gmtime_r(&seconds, &utc);
  std::array<char, 96> out{};
  std::snprintf(out.data(), out.size(), "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ", utc.tm_year + 1900,
                utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
                static_cast<int>((us - s).count()));
  return out.data();
}

std::string printable(std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f && c != '\\') {
      out.push_back(c);
    } else {
      out += "\\x";
      out.push_back(kHex[byte >> 4]);
      out.push_back(kHex[byte & 15]);
    }
  }
  return out;
}

std::string Record::to_json() const {
  nlohmann::ordered_json j;
  j["schema"] = kSchema;
  j["time"] = format_time(time);
  if (count != 1) j["count"] = count;
  if (last_time) j["last_time"] = format_time(*last_time);
  j["verdict"] = denied ? "denied" : "would_deny";
  j["reason"] = reason;
  j["hook"] = hook;
  j["destination"] = destination.to_string();
  j["port"] = port;
  j["protocol"] = net::to_string(protocol);
  if (source) {
    j["source"] = source->to_string();
    j["source_port"] = source_port;
  }
  j["generation"] = generation;
  if (!collection.empty()) j["collection"] = collection;
  if (!rule.empty()) j["rule"] = rule;
  if (!fqdns.empty()) j["fqdns"] = fqdns;
  if (!cname_chain.empty()) j["cname_chain"] = cname_chain;
  if (pid != 0) {
    j["pid"] = pid;
    j["tid"] = tid;
  }
  if (uid) j["uid"] = *uid;
  if (!user.empty()) j["user"] = user;
  if (!comm.empty()) j["comm"] = comm;
  if (!exe.empty()) j["exe"] = exe;
  if (!cmdline.empty()) j["cmdline"] = cmdline;
  if (cgroup_id != 0) j["cgroup_id"] = cgroup_id;
  if (!cgroup.empty()) j["cgroup"] = cgroup;
  if (!unit.empty()) j["unit"] = unit;
  if (!container_id.empty()) j["container_id"] = container_id;
  if (!pod_uid.empty()) j["pod_uid"] = pod_uid;
  if (length != 0) j["length"] = length;
  if (socket_cookie != 0) j["socket_cookie"] = socket_cookie;
  // ASCII only: escapes C1 controls and DEL as well, which a terminal showing the log would obey.
  return j.dump(-1, ' ', true, json::error_handler_t::replace);
}

std::optional<Record> Record::from_json(std::string_view line) {
  const json j = json::parse(line, nullptr, false);
  if (!j.is_object()) return std::nullopt;
  int schema = 0;
  read(j, "schema", schema);
  std::string time, verdict, destination, source, protocol;
  read(j, "time", time);
  read(j, "verdict", verdict);
  read(j, "destination", destination);
  read(j, "source", source);
  read(j, "protocol", protocol);

  Record r;
  const auto when = parse_time(time);
  const auto to = net::IpAddress::parse(destination);
  if (schema != kSchema || !when || !to || (verdict != "denied" && verdict != "would_deny"))
    return std::nullopt;
  const auto proto = parse_protocol(protocol, *to);
  if (!proto) return std::nullopt;
  r.time = *when;
  r.denied = verdict == "denied";
  r.destination = *to;
  r.source = net::IpAddress::parse(source);
  r.protocol = *proto;
  read(j, "reason", r.reason);
  read(j, "hook", r.hook);
  read(j, "port", r.port);
  read(j, "source_port", r.source_port);
  read(j, "generation", r.generation);
  read(j, "collection", r.collection);
  read(j, "rule", r.rule);
  read(j, "count", r.count);
  std::string last_time;
  read(j, "last_time", last_time);
  r.last_time = parse_time(last_time);
  read(j, "fqdns", r.fqdns);
  read(j, "cname_chain", r.cname_chain);
  read(j, "pid", r.pid);
  read(j, "tid", r.tid);
  if (j.contains("uid")) {
    std::uint64_t uid = std::numeric_limits<std::uint64_t>::max();
    read(j, "uid", uid);
    if (uid <= std::numeric_limits<std::uint32_t>::max()) r.uid = static_cast<std::uint32_t>(uid);
  }
  read(j, "comm", r.comm);
  read(j, "user", r.user);
  read(j, "exe", r.exe);
  read(j, "cmdline", r.cmdline);
  read(j, "cgroup_id", r.cgroup_id);
  read(j, "cgroup", r.cgroup);
  read(j, "unit", r.unit);
  read(j, "container_id", r.container_id);
  read(j, "pod_uid", r.pod_uid);
  read(j, "length", r.length);
  read(j, "socket_cookie", r.socket_cookie);
  return r;
}

std::string Record::to_text() const {
  std::string line = format_time(time);
  line += denied ? " DENIED     " : " WOULD-DENY ";
  line += printable(reason);
  pad(line, 57);
  line += net::to_string(protocol);
  pad(line, 62);
  line += endpoint(destination, port);
  if (!fqdns.empty()) line += " (" + printable(fqdns.front()) + ")";
  pad(line, 86);
  line += comm.empty() ? "?" : printable(comm);
  line += pid != 0 ? "[" + std::to_string(pid) + "]" : "[?]";
  if (uid) line += " uid=" + std::to_string(*uid);
  if (!exe.empty()) line += " exe=" + printable(exe);
  if (!cgroup.empty()) line += " cgroup=" + printable(cgroup);
  if (!rule.empty()) line += " rule=" + printable(collection) + "/" + printable(rule);
  if (hook != "connect") line += " hook=" + printable(hook);
  if (count != 1) line += " x" + std::to_string(count);
  return line;
}

Record make_record(const egressd_event& event, const RecordContext& context) {
  Record r;
  // Both clocks read together: wall-clock changes since the event count as happened before it.
  const auto now = std::chrono::system_clock::now();
  const auto ago = SystemClock().now() - std::chrono::nanoseconds(event.time_ns);
  r.time = now - std::chrono::duration_cast<std::chrono::system_clock::duration>(ago);
  r.denied = event.verdict == EGRESSD_ACTION_DENY;
  r.reason = reason_name(event.reason);
  r.hook = hook_name(event.hook);
  r.destination = to_address(event.daddr);
  r.port = ntohs(event.dport);
  if (!is_unset(event.saddr)) {
    r.source = to_address(event.saddr);
    r.source_port = ntohs(event.sport);
  }
  r.protocol = static_cast<net::Protocol>(event.proto);
  r.generation = event.generation;
  r.collection = context.collection;
  r.rule = context.rule;
  r.fqdns = context.fqdns;
  r.cname_chain = context.cname_chain;
  r.cgroup_id = event.cgroup_id;
  r.length = event.length;
  r.socket_cookie = event.socket_cookie;

  if (event.tgid != 0) {
    r.pid = event.tgid;
    r.tid = event.pid;
    r.uid = event.uid;
    r.comm.assign(std::begin(event.comm), std::ranges::find(event.comm, 0));
    if (context.users != nullptr) r.user = context.users->find(event.uid);
    auto program =
        read_program(context.proc_root, {.tgid = event.tgid,
                                         .tid = event.pid,
                                         .comm = r.comm,
                                         .seen_at_ns = event.time_ns,
                                         .seen_acting = event.hook != EGRESSD_HOOK_PACKET});
    r.exe = std::move(program.exe);
    r.cmdline = std::move(program.cmdline);
  }
  if (event.cgroup_id != 0) {
    std::optional<std::string> path;
    if (context.cgroup_paths != nullptr)
      path = context.cgroup_paths->find(event.cgroup_id);
    else if (!context.cgroup2_mount.empty())
      path = CgroupPaths(context.cgroup2_mount).find(event.cgroup_id);
    r.cgroup = path.value_or("");
    auto workload = workload_of(r.cgroup);
    r.unit = std::move(workload.unit);
    r.container_id = std::move(workload.container_id);
    r.pod_uid = std::move(workload.pod_uid);
  }
  return r;
}

}  // namespace egressd::audit
