#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "audit/format.h"
#include "audit/sink.h"
#include "base/unique_fd.h"

namespace egressd::audit {

// When a file is put aside for the next: FILE becomes FILE.1, that FILE.2 and so on.
struct Rotation {
  std::uint64_t max_size = 0;  // bytes a file has at most, unless one line is longer; 0 = never
  unsigned keep = 5;           // old files, at least 1; the oldest one gives way
};

// One JSON object a line, to a file or to standard output. A line goes out in one write(), so
// that several writers to one O_APPEND file never mix theirs. Pipes and sockets are written
// without blocking: a reader that falls behind loses lines. After a loss, the first line that
// works is preceded by a gap. A line the disk ended in is taken back.
class JsonLinesSink final : public Sink {
 public:
  struct Options {
    std::shared_ptr<const Format> format = std::make_shared<JsonFormat>();
    Rotation rotation;
  };
  // Created 0640 (less the umask), appended to. Refuses what is neither file, pipe nor device, and
  // to rotate what is no file.
  static Result<std::unique_ptr<JsonLinesSink>> open_file(const std::string& path, Options options);
  static Result<std::unique_ptr<JsonLinesSink>> open_file(const std::string& path) {
    return open_file(path, Options());
  }
  // An inherited descriptor, usually 1: stays the caller's, its flags are not touched.
  static Result<std::unique_ptr<JsonLinesSink>> open_descriptor(
      int fd, std::shared_ptr<const Format> format = std::make_shared<JsonFormat>());
  ~JsonLinesSink() override { flush(); }
  JsonLinesSink(const JsonLinesSink&) = delete;
  JsonLinesSink& operator=(const JsonLinesSink&) = delete;

  Result<void> write(const Record& record) override;
  Result<void> write(const Notice& notice) override;
  void flush() override;
  Result<void> reopen() override;
  [[nodiscard]] std::uint64_t lost() const override { return losses_.total(); }
  [[nodiscard]] std::string name() const override;

 private:
  enum class Kind { File, Device, Pipe, Socket };
  JsonLinesSink(std::string path, UniqueFd fd, Kind kind, Options options)
      : path_(std::move(path)), fd_(std::move(fd)), kind_(kind), options_(std::move(options)) {}
  static Result<Kind> kind_of(int fd, const std::string& name);
  Result<void> write_line(std::string line, std::uint64_t records);
  // All of it or, to a file, nothing. What a pipe or a socket did not take of a line it has begun
  // is kept and goes first the next time.
  bool put(std::string_view bytes);
  // Bytes written before the first failure; errno is left as it was then.
  std::size_t write_some(std::string_view bytes);
  // Takes the last `done` bytes off the end again, if nobody has written behind them.
  bool take_back(std::size_t done);
  // Makes room for `more` bytes.
  Result<void> rotate_for(std::size_t more);
  Result<void> rotate();

  std::string path_;  // empty: an inherited descriptor
  UniqueFd fd_;
  Kind kind_;
  Options options_;
  std::string rest_;              // of a line that has been begun
  std::uint64_t next_look_ = 0;   // size at which to see whether to rotate
  std::uint64_t written_ = 0;     // to the file since it was opened, and what was there before
  bool rotation_failed_ = false;  // reported already
  Losses losses_;
};

}  // namespace egressd::audit
