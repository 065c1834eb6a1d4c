#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "audit/datagram.h"
#include "audit/sink.h"

namespace egressd::audit {

// systemd's journal, in its native protocol: one datagram a record, MESSAGE for a person and every
// key of schema 1 as a field (cgroup_id is EGRESSD_CGROUP_ID; a list is as many fields).
//
// Not by sd_journal_sendv(), which waits while journald does not read. Here what the socket does
// not take at once is lost, and noted when it does again. journald may come and go: each datagram
// finds its socket anew.
class JournalSink final : public Sink {
 public:
  static constexpr const char* kSocket = "/run/systemd/journal/socket";
  // For `journalctl MESSAGE_ID=…`: never change them.
  static constexpr std::string_view kRecordId = "fc72bf3cdba84c05850a0bea2195f778";
  static constexpr std::string_view kGapId = "d6ba78802d8940e087f758e01fdd803f";
  static constexpr std::string_view kNoticeId = "47e4897630044ad91ac50648b8a1120f";
  // Names of one address there are fields for; the rest goes without.
  static constexpr std::size_t kMaxList = 32;

  // Fails if nobody listens at `path`.
  static Result<std::unique_ptr<JournalSink>> open(std::string path = kSocket);
  ~JournalSink() override { flush(); }
  JournalSink(const JournalSink&) = delete;
  JournalSink& operator=(const JournalSink&) = delete;

  Result<void> write(const Record& record) override;
  Result<void> write(const Notice& notice) override;
  void flush() override;
  Result<void> reopen() override { return {}; }
  [[nodiscard]] std::uint64_t lost() const override { return losses_.total(); }
  [[nodiscard]] std::string name() const override { return "journal " + path_; }

 private:
  JournalSink(std::string path, Datagram socket)
      : path_(std::move(path)), socket_(std::move(socket)) {}
  Result<void> write_entry(const std::string& datagram, std::uint64_t records);

  std::string path_;
  Datagram socket_;
  Losses losses_;
};

}  // namespace egressd::audit
