#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "audit/sink.h"
#include "base/unique_fd.h"

namespace egressd::audit {

// One JSON object a line, to a file or to standard output. A line goes out in one write(), so
// that several writers to one O_APPEND file never mix theirs. Pipes and sockets are written
// without blocking: a reader that falls behind loses lines. After a loss, the first line that
// works is preceded by {"schema":1,"lost":N}.
class JsonLinesSink final : public Sink {
 public:
  // Created 0640 (less the umask), appended to. Refuses what is neither file, pipe nor device.
  static Result<std::unique_ptr<JsonLinesSink>> open_file(const std::string& path);
  // An inherited descriptor, usually 1: stays the caller's, its flags are not touched.
  static Result<std::unique_ptr<JsonLinesSink>> open_descriptor(int fd);

  Result<void> write(const Record& record) override;
  Result<void> reopen() override;
  [[nodiscard]] std::uint64_t lost() const override { return lost_; }

 private:
  enum class Kind { File, Pipe, Socket };
  JsonLinesSink(std::string path, UniqueFd fd, Kind kind)
      : path_(std::move(path)), fd_(std::move(fd)), kind_(kind) {}
  static Result<Kind> kind_of(int fd, const std::string& name);
  // Bytes written before the first failure; errno is left as it was then.
  std::size_t write_some(std::string_view bytes);

  std::string path_;  // empty: an inherited descriptor
  UniqueFd fd_;
  Kind kind_;
  bool torn_ = false;  // the last thing written is half a line
  std::uint64_t lost_ = 0;
  std::uint64_t lost_in_a_row_ = 0;
};

}  // namespace egressd::audit
