#include "cli/top_screen.h"

#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <ostream>

namespace egressd::cli {

Result<TerminalSignals> TerminalSignals::create() {
  sigset_t set, before;
  ::sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT, SIGWINCH})
    ::sigaddset(&set, signal);
  if (::sigprocmask(SIG_BLOCK, &set, &before) != 0)
    return std::unexpected(Error::from_errno("sigprocmask"));
  UniqueFd fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) {
    auto error = Error::from_errno("signalfd");
    ::sigprocmask(SIG_SETMASK, &before, nullptr);
    return std::unexpected(std::move(error));
  }
  return TerminalSignals(std::move(fd), before);
}

TerminalSignals::TerminalSignals(TerminalSignals&& other) noexcept
    : fd_(std::move(other.fd_)), before_(other.before_) {}

TerminalSignals::~TerminalSignals() {
  if (fd_) ::sigprocmask(SIG_SETMASK, &before_, nullptr);
}

int TerminalSignals::next() {
  signalfd_siginfo info{};
  const auto n = ::read(fd_.get(), &info, sizeof(info));
  return n == static_cast<ssize_t>(sizeof(info)) ? static_cast<int>(info.ssi_signo) : 0;
}

TopScreen::TopScreen(std::ostream& out) : out_(out) { enter(); }

TopScreen::~TopScreen() { leave(); }

TopScreen::Size TopScreen::size() const {
  winsize size{};
  // Serial lines and some containers do not know theirs.
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_row == 0 || size.ws_col == 0)
    return {.rows = 24, .columns = 80};
  return {.rows = size.ws_row, .columns = size.ws_col};
}

void TopScreen::enter() {
  termios now{};
  // In the background tcsetattr() would stop us.
  if (!before_ && ::tcgetpgrp(STDIN_FILENO) == ::getpgrp() &&
      ::tcgetattr(STDIN_FILENO, &now) == 0) {
    termios keys = now;
    keys.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    keys.c_cc[VMIN] = 0;
    keys.c_cc[VTIME] = 0;
    if (::tcsetattr(STDIN_FILENO, TCSADRAIN, &keys) == 0) before_ = now;
  }
  // Alternate screen, no cursor.
  out_ << "\x1b[?1049h\x1b[?25l\x1b[2J" << std::flush;
  shown_ = true;
}

void TopScreen::leave() {
  if (!shown_) return;
  shown_ = false;
  out_ << "\x1b[?25h\x1b[?1049l" << std::flush;
  if (before_) ::tcsetattr(STDIN_FILENO, TCSADRAIN, &*before_);
  before_.reset();
}

void TopScreen::draw(const std::vector<std::string>& lines) {
  if (!shown_) return;
  const auto rows = std::min(lines.size(), size().rows);
  // Overwritten in place. Each line is erased first: behind one as wide as the terminal the cursor
  // is still on its last character.
  std::string text = "\x1b[H";
  for (std::size_t i = 0; i < rows; ++i) {
    if (i > 0) text += "\r\n";
    text += "\x1b[K" + lines[i];
  }
  // And what was below them.
  if (rows < size().rows) text += "\r\n\x1b[J";
  out_ << text << std::flush;
}

char TopScreen::key() {
  std::array<char, 1> key{};
  return before_ && ::read(STDIN_FILENO, key.data(), key.size()) == 1 ? key[0] : '\0';
}

}  // namespace egressd::cli
