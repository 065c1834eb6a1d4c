#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <limits>
#include <ostream>

#include "cli/ask.h"
#include "cli/live_commands.h"
#include "cli/top_screen.h"

namespace egressd::cli {
namespace {

using audit::printable;
using std::chrono::milliseconds;
using Steady = std::chrono::steady_clock;

// Read between two looks at the keyboard and the clock.
constexpr int kLinesAtOnce = 1000;

class Top {
 public:
  Top(const TopOptions& options, control::Client client, TerminalSignals signals, Streams io)
      : options_(options),
        client_(std::move(client)),
        signals_(std::move(signals)),
        io_(io),
        table_(options.by) {
    if (!options.daemon.json && !options.once && ::isatty(STDOUT_FILENO) == 1)
      screen_.emplace(io.out);
  }

  // The exit code; if `ended_by` is set, the signal to die of instead.
  int run(int& ended_by) {
    next_ = started_ + options_.once.value_or(options_.interval);
    if (screen_) show();
    for (;;) {
      const bool drained = read();
      if (const auto code = look_at_signals(ended_by)) return *code;
      if (!error_.empty()) {
        if (!screen_) refresh();
        return gone();
      }
      if (Steady::now() >= next_) {
        refresh();
        if (options_.once && io_.out) return kOk;
        next_ = refreshed_ + options_.interval;
      }
      if (hung_up_ || !io_.out) return kFailed;  // nobody sees it any more
      if (drained) wait();
    }
  }

 private:
  // False: there is more to read.
  bool read() {
    for (int i = 0; i < kLinesAtOnce && error_.empty(); ++i) {
      const auto line = client_.read_line(milliseconds(0));
      if (!line && line.error().code == ETIMEDOUT) return true;
      if (!line || !*line) {
        error_ = line ? "the daemon has gone" : line.error().message;
        return true;
      }
      const auto live = read_live_line(**line);
      if (!live) {
        error_ = "the daemon sent a line that is no JSON object";
        error_code_ = kFailed;
        return true;
      }
      table_.add_lost(live->lost);
      if (live->record && options_.filter.matches(*live->record)) table_.add(*live->record);
      if (!live->record && !live->dropped) event_ = live->event;
    }
    return false;
  }

  std::optional<int> look_at_signals(int& ended_by) {
    for (int signal = signals_.next(); signal != 0; signal = signals_.next()) {
      if (signal == SIGWINCH) {
        if (screen_) show();
      } else if (signal == SIGCONT) {
        // Also after a SIGSTOP nobody could answer: the shell may have changed the terminal.
        if (screen_) {
          screen_->enter();
          show();
        }
      } else if (signal == SIGTSTP) {
        if (screen_) screen_->leave();
        ::raise(SIGSTOP);
      } else if (signal == SIGINT) {
        // What was counted so far is wanted.
        if (!screen_) refresh();
        return kOk;
      } else {
        ended_by = signal;
        return kFailed;
      }
    }
    if (screen_)
      for (char key = screen_->key(); key != '\0'; key = screen_->key())
        if (key == 'q' || key == 'Q') return kOk;
    return std::nullopt;
  }

  void wait() {
    const auto left = std::chrono::ceil<milliseconds>(next_ - Steady::now()).count();
    std::array<pollfd, 3> fds{
        {{.fd = client_.fd(), .events = POLLIN, .revents = 0},
         {.fd = signals_.fd(), .events = POLLIN, .revents = 0},
         {.fd = screen_ ? screen_->keys_fd() : -1, .events = POLLIN, .revents = 0}}};
    if (::poll(fds.data(), fds.size(), static_cast<int>(std::max<milliseconds::rep>(left, 0))) > 0)
      hung_up_ = (fds[2].revents & (POLLHUP | POLLERR)) != 0;
  }

  void refresh() {
    const auto now = Steady::now();
    table_.end_interval(now - refreshed_);
    refreshed_ = now;
    show();
  }

  void show() {
    const auto running = Steady::now() - started_;
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(running);
    const auto limit =
        options_.limit == 0 ? std::numeric_limits<std::size_t>::max() : options_.limit;
    if (options_.daemon.json) {
      io_.out << top_json(table_, running, limit) << std::endl;
    } else if (screen_) {
      const auto size = screen_->size();
      auto lines = top_text(table_, seconds, std::min(limit, size.rows), size.columns, event_);
      screen_->draw(lines);
    } else {
      if (shown_) io_.out << '\n';
      for (const auto& line : top_text(table_, seconds, limit, std::string::npos, event_))
        io_.out << line << '\n';
      io_.out.flush();
    }
    shown_ = true;
  }

  int gone() {
    screen_.reset();
    io_.err << "egressctl: " << printable(error_) << '\n';
    return error_code_;
  }

  const TopOptions& options_;
  control::Client client_;
  TerminalSignals signals_;
  Streams io_;
  TopTable table_;
  std::optional<TopScreen> screen_;
  std::string event_;  // the latest that was no record
  std::string error_;  // why there will be no more lines
  int error_code_ = kNoDaemon;
  bool shown_ = false;
  bool hung_up_ = false;
  Steady::time_point started_ = Steady::now();
  Steady::time_point refreshed_ = started_;
  Steady::time_point next_ = started_;
};

}  // namespace

int top(const TopOptions& options, Streams io) {
  auto answer = ask(options.daemon.socket, "watch");
  if (!answer) return report(answer.error(), options.daemon, io);
  auto signals = TerminalSignals::create();
  if (!signals) {
    io.err << "egressctl: " << printable(signals.error().message) << '\n';
    return kFailed;
  }
  int ended_by = 0;
  const int code = Top(options, std::move(answer->client), std::move(*signals), io).run(ended_by);
  // The terminal is as it was, the signals are unblocked.
  if (ended_by != 0) ::raise(ended_by);
  return code;
}

}  // namespace egressd::cli
