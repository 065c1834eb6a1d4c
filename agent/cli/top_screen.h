#pragma once

#include <signal.h>
#include <termios.h>

#include <cstddef>
#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace egressd::cli {

// The signals that end, stop or resize a program on a terminal, as something to poll for. They are
// blocked as long as this lives.
class TerminalSignals {
 public:
  static Result<TerminalSignals> create();
  TerminalSignals(TerminalSignals&& other) noexcept;
  TerminalSignals& operator=(TerminalSignals&&) = delete;
  ~TerminalSignals();

  [[nodiscard]] int fd() const { return fd_.get(); }
  // The next one that came, 0 if there is none.
  int next();

 private:
  TerminalSignals(UniqueFd fd, const sigset_t& before) : fd_(std::move(fd)), before_(before) {}

  UniqueFd fd_;
  sigset_t before_;
};

// The alternate screen of the terminal on standard output, from here to the destructor: what was on
// the terminal is there again afterwards. If standard input is the terminal too, keys are not
// echoed and can be read at once.
class TopScreen {
 public:
  explicit TopScreen(std::ostream& out);
  TopScreen(const TopScreen&) = delete;
  TopScreen& operator=(const TopScreen&) = delete;
  ~TopScreen();

  struct Size {
    std::size_t rows, columns;
  };
  [[nodiscard]] Size size() const;

  // Replaces what is shown. Lines must be printable and fit.
  void draw(const std::vector<std::string>& lines);
  // Gives the terminal back until enter().
  void leave();
  void enter();

  // Standard input if it can be polled for keys, else -1.
  [[nodiscard]] int keys_fd() const { return before_ ? 0 : -1; }
  // The next key, 0 if there is none.
  char key();

 private:
  std::ostream& out_;
  bool shown_ = false;
  std::optional<termios> before_;
};

}  // namespace egressd::cli
