#include "audit/journal_sink.h"

#include <algorithm>
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

std::string entry(const Notice& notice) {
  return entry(notice.event == Notice::Event::Gap ? JournalSink::kGapId : JournalSink::kNoticeId,
               notice.event == Notice::Event::DnsQuestion ? kNotice : kWarning, notice.to_text(),
               notice.to_json());
}

}  // namespace

Result<std::unique_ptr<JournalSink>> JournalSink::open(std::string path) {
  auto socket = Datagram::to_path(path);
  if (!socket) return std::unexpected(std::move(socket.error()));
  // An empty datagram is no entry: journald drops it.
  if (!socket->send({}) && errno != EAGAIN)
    return std::unexpected(
        Error::from_errno("no journald listens on " + path + " (leave out --audit-journal)"));
  return std::unique_ptr<JournalSink>(new JournalSink(std::move(path), std::move(*socket)));
}

Result<void> JournalSink::write(const Record& record) { return write_entry(entry(record), 1); }

Result<void> JournalSink::write(const Notice& notice) {
  return write_entry(entry(notice), notice.weight());
}

Result<void> JournalSink::write_entry(const std::string& datagram, std::uint64_t records) {
  flush();
  // Behind a gap that is not noted yet nothing is written, or it would seem to be later.
  if (!losses_.pending() && socket_.send(datagram)) return {};
  auto first = losses_.once(Error::from_errno("write to " + name()));
  losses_.add(records);
  return first;
}

void JournalSink::flush() {
  if (losses_.pending() && socket_.send(entry(losses_.gap()))) losses_.noted();
}

}  // namespace egressd::audit
