#include "audit/journal_sink.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

namespace egressd::audit {
namespace {

using nlohmann::json;

// Of syslog: what passed is of less weight than what did not.
constexpr std::string_view kWarning = "4";
constexpr std::string_view kNotice = "5";

// NAME=value, or, where the value has a line end, NAME, its length and the value.
void add(std::string& entry, std::string_view name, std::string_view value) {
  entry += name;
  if (value.find('\n') == std::string_view::npos) {
    entry += '=';
  } else {
    entry += '\n';
    auto length = static_cast<std::uint64_t>(value.size());
    for (int byte = 0; byte < 8; ++byte, length >>= 8)  // little endian
      entry += static_cast<char>(length & 0xff);
  }
  entry += value;
  entry += '\n';
}

std::string field_name(std::string_view key) {
  std::string name = "EGRESSD_";
  for (const char c : key) name += c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  return name;
}

std::string text_of(const json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

std::string entry(std::string_view id, std::string_view priority, std::string_view message,
                  const std::string& line) {
  std::string out;
  add(out, "MESSAGE", message);
  add(out, "MESSAGE_ID", id);
  add(out, "PRIORITY", priority);
  add(out, "SYSLOG_IDENTIFIER", "egressd");
  const json keys = json::parse(line);
  for (const auto& [key, value] : keys.items()) {
    if (!value.is_array()) {
      add(out, field_name(key), text_of(value));
      continue;
    }
    for (std::size_t i = 0; i < std::min(value.size(), JournalSink::kMaxList); ++i)
      add(out, field_name(key), text_of(value[i]));
  }
  return out;
}

std::string entry(const Record& record) {
  return entry(JournalSink::kRecordId, record.denied ? kWarning : kNotice, record.to_text(),
               record.to_json());
}

std::string entry(const Gap& gap) {
  return entry(JournalSink::kGapId, kWarning,
               std::to_string(gap.count) + " records of refused connections are missing (" +
                   printable(gap.cause) + ")",
               gap.to_json());
}

}  // namespace

Result<std::unique_ptr<JournalSink>> JournalSink::open(std::string path) {
  if (path.size() >= sizeof(sockaddr_un::sun_path))
    return std::unexpected(Error::of(path + " is too long for the path of a socket"));
  UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return std::unexpected(Error::from_errno("socket for the journal"));
  auto sink = std::unique_ptr<JournalSink>(new JournalSink(std::move(path), std::move(fd)));
  // An empty datagram is no entry: journald drops it.
  if (!sink->send({}) && errno != EAGAIN)
    return std::unexpected(Error::from_errno("no journald listens on " + sink->path_ +
                                             " (leave out --audit-journal)"));
  return sink;
}

bool JournalSink::send(const std::string& datagram) {
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  std::memcpy(to.sun_path, path_.c_str(), path_.size() + 1);
  while (true) {
    const auto n =
        ::sendto(fd_.get(), datagram.data(), datagram.size(), MSG_DONTWAIT | MSG_NOSIGNAL,
                 reinterpret_cast<sockaddr*>(&to), sizeof(to));
    if (n >= 0) return true;
    if (errno != EINTR) return false;
  }
}

Result<void> JournalSink::write(const Record& record) { return write_entry(entry(record), 1); }

Result<void> JournalSink::write(const Gap& gap) { return write_entry(entry(gap), gap.count); }

Result<void> JournalSink::write_entry(const std::string& datagram, std::uint64_t records) {
  flush();
  // Behind a gap that is not noted yet nothing is written, or it would seem to be later.
  if (!losses_.pending() && send(datagram)) return {};
  auto first = losses_.once(Error::from_errno("write to " + name()));
  losses_.add(records);
  return first;
}

void JournalSink::flush() {
  if (losses_.pending() && send(entry(losses_.gap()))) losses_.noted();
}

}  // namespace egressd::audit
