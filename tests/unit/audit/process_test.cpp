#include "audit/process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>

#include "base/clock.h"

namespace egressd::audit {
namespace {

std::string read_exe(const std::string& proc_root, const TaskIdentity& task) {
  return read_program(proc_root, task).exe;
}

std::uint64_t now_ns() { return static_cast<std::uint64_t>(SystemClock().now().count()); }

// A running copy of /bin/sleep under a name of its own.
class Child {
 public:
  explicit Child(const std::string& name, std::string argv0 = {}) {
    path_ = std::filesystem::temp_directory_path() /
            ("egressd-process-test-" + std::to_string(::getpid()));
    std::filesystem::create_directory(path_);
    exe_ = path_ / name;
    std::filesystem::copy_file("/bin/sleep", exe_);
    if (argv0.empty()) argv0 = exe_;
    std::array<int, 2> pipe{};
    EXPECT_EQ(::pipe2(pipe.data(), O_CLOEXEC), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::execl(exe_.c_str(), argv0.c_str(), "60", nullptr);
      ::_exit(127);
    }
    ::close(pipe[1]);
    char byte = 0;
    EXPECT_EQ(::read(pipe[0], &byte, 1), 0);  // closed by exec
    ::close(pipe[0]);
  }
  ~Child() {
    end();
    std::filesystem::remove_all(path_);
  }
  void end() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }
  [[nodiscard]] std::uint32_t pid() const { return static_cast<std::uint32_t>(pid_); }
  [[nodiscard]] const std::filesystem::path& exe() const { return exe_; }

 private:
  pid_t pid_ = 0;
  std::filesystem::path path_;
  std::filesystem::path exe_;
};

TEST(ReadExe, NamesTheProgramOfALiveProcess) {
  const Child child("dialer");
  EXPECT_EQ(read_exe("/proc", {child.pid(), child.pid(), "dialer", now_ns()}), child.exe());
}

TEST(ReadExe, StripsDeletedOnlyWhenItIs) {
  const Child child("dialer");
  std::filesystem::remove(child.exe());
  EXPECT_EQ(read_exe("/proc", {child.pid(), child.pid(), "dialer", now_ns()}), child.exe());
  const Child odd("x (deleted)");
  EXPECT_EQ(read_exe("/proc", {odd.pid(), odd.pid(), "x (deleted)", now_ns()}), odd.exe());
}

TEST(ReadExe, CommWithParenthesesAndSpacesDoesNotShiftTheStartTime) {
  const Child child(") R 1 ) (x");
  EXPECT_EQ(read_exe("/proc", {child.pid(), child.pid(), ") R 1 ) (x", now_ns()}), child.exe());
}

TEST(ReadExe, RefusesAProcessYoungerThanTheEvent) {
  const auto before = now_ns() - 1'000'000'000;
  const Child child("dialer");
  EXPECT_EQ(read_exe("/proc", {child.pid(), child.pid(), "dialer", before}), "");
}

TEST(ReadExe, RefusesAThreadOfAnotherName) {
  const Child child("dialer");
  EXPECT_EQ(read_exe("/proc", {child.pid(), child.pid(), "bash", now_ns()}), "");
}

TEST(ReadExe, ThreadThatIsGoneIsTrustedOnlyIfItActedAtTheTime) {
  const Child child("dialer");
  const std::uint32_t gone = 0x7ffffff0;
  EXPECT_EQ(read_exe("/proc", {child.pid(), gone, "worker", now_ns(), true}), child.exe());
  EXPECT_EQ(read_exe("/proc", {child.pid(), gone, "worker", now_ns(), false}), "");
}

TEST(ReadCmdline, HasSpacesBetweenTheArguments) {
  const Child child("dialer");
  EXPECT_EQ(read_program("/proc", {child.pid(), child.pid(), "dialer", now_ns()}).cmdline,
            child.exe().string() + " 60");
}

TEST(ReadCmdline, IsAsSureAsTheExe) {
  const Child child("dialer");
  EXPECT_EQ(read_program("/proc", {child.pid(), child.pid(), "bash", now_ns()}).cmdline, "");
}

TEST(ReadCmdline, IsCutBetweenCharactersAndMarked) {
  const auto cmdline = [](const std::string& argv0) {
    const Child child("dialer", argv0);
    return read_program("/proc", {child.pid(), child.pid(), "dialer", now_ns()}).cmdline;
  };
  const std::string fits(kMaxCmdline - 4, 'x');
  EXPECT_EQ(cmdline(fits), fits + " 60");  // with the NUL behind them kMaxCmdline bytes
  EXPECT_EQ(cmdline(fits + "x"), fits + "x 60…");
  // The last byte that fits is the first of two.
  const std::string odd(kMaxCmdline - 1, 'x');
  EXPECT_EQ(cmdline(odd + "éé"), odd + "…");
}

TEST(ReadExe, GoneProcessHasNone) {
  Child child("dialer");
  const auto pid = child.pid();
  child.end();
  EXPECT_EQ(read_program("/proc", {pid, pid, "dialer", now_ns()}).cmdline, "");
  EXPECT_EQ(read_exe("/proc", {pid, pid, "dialer", now_ns()}), "");
  EXPECT_EQ(read_exe("/proc", {0, 0, "", now_ns()}), "");
  EXPECT_EQ(read_exe("/nonexistent", {pid, pid, "dialer", now_ns()}), "");
}

}  // namespace
}  // namespace egressd::audit
