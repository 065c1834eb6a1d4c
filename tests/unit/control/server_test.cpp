#include "control/server.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <grp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "control/client.h"

namespace egressd::control {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

// The loop runs in the test's thread; clients are raw non-blocking sockets or threads.
class ServerTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "egressd-control-XXXXXX").string();
    dir = ::mkdtemp(pattern.data());
    ASSERT_EQ(::chmod(dir.c_str(), 0755), 0);
    path = dir / "run" / "control.sock";
    loop = std::move(*EventLoop::create());
  }
  void TearDown() override {
    server.reset();
    fs::remove_all(dir);
  }

  Result<void> start(Server::Options options = {}) {
    options.path = path;
    auto r = Server::open(*loop, options, [this](const Request& request, Responder& responder) {
      ++requests;
      if (request.command == "echo") {
        responder.send(ok_line());
        responder.send(request.arguments.at("text"));
      } else if (request.command == "watch") {
        responder.send(ok_line());
        responder.keep_open();
        watchers.add(responder);
      } else if (request.command == "list") {
        responder.send(ok_line());
        const auto total = std::stoul(request.arguments.at("n"));
        responder.stream([i = 0ul, total, this](std::string& line) mutable {
          if (i == total) return false;
          line = json{{"i", i++}, {"pad", std::string(100, 'x')}}.dump();
          produced = i;
          return true;
        });
      } else {
        responder.send(error_line("unknown command"));
      }
    });
    if (!r) return std::unexpected(r.error());
    server = std::move(*r);
    return {};
  }

  UniqueFd connect() const {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
      ADD_FAILURE() << "connect: " << std::strerror(errno);
    return fd;
  }
  static void put(const UniqueFd& fd, std::string_view bytes) {
    ASSERT_EQ(::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  void spin(std::chrono::milliseconds time = 20ms) {
    const auto end = std::chrono::steady_clock::now() + time;
    do {
      ASSERT_TRUE(loop->run_once(2ms));
    } while (std::chrono::steady_clock::now() < end);
  }
  // Everything the server says until it closes; the flag tells whether it did.
  std::string read_all(const UniqueFd& fd, bool* closed = nullptr,
                       std::chrono::milliseconds time = 2000ms) {
    std::string out;
    const auto end = std::chrono::steady_clock::now() + time;
    if (closed != nullptr) *closed = false;
    while (std::chrono::steady_clock::now() < end) {
      EXPECT_TRUE(loop->run_once(1ms));
      std::array<char, 65536> buffer{};
      const auto n = ::recv(fd.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
      if (n > 0) out.append(buffer.data(), static_cast<std::size_t>(n));
      if (n == 0 || (n < 0 && errno == ECONNRESET)) {
        if (closed != nullptr) *closed = true;
        break;
      }
    }
    return out;
  }
  static std::vector<std::string> lines(const std::string& text) {
    std::istringstream in(text);
    std::vector<std::string> out;
    for (std::string line; std::getline(in, line);) out.push_back(line);
    return out;
  }
  static std::string request(const std::string& command,
                             std::map<std::string, std::string> arguments = {}) {
    return format_request({command, std::move(arguments)}) + "\n";
  }

  fs::path dir;
  fs::path path;
  std::unique_ptr<EventLoop> loop;
  std::unique_ptr<Server> server;
  Watchers watchers;
  int requests = 0;
  unsigned long produced = 0;
};

TEST_F(ServerTest, MakesDirectory0755AndSocket0600AndRemovesItsSocket) {
  const auto before = ::umask(0);
  const auto r = start();
  ::umask(before);
  ASSERT_TRUE(r) << r.error().message;
  struct stat st{};
  ASSERT_EQ(::stat((dir / "run").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0755u);
  ASSERT_EQ(::lstat(path.c_str(), &st), 0);
  EXPECT_TRUE(S_ISSOCK(st.st_mode));
  EXPECT_EQ(st.st_mode & 07777, 0600u);
  server.reset();
  EXPECT_FALSE(fs::exists(path));
}

TEST_F(ServerTest, AnswersOneRequestAndCloses) {
  ASSERT_TRUE(start());
  const auto fd = connect();
  put(fd, request("echo", {{"text", "{\"x\":1}"}}) + request("echo", {{"text", "second"}}));
  bool closed = false;
  const auto got = lines(read_all(fd, &closed));
  EXPECT_TRUE(closed);
  EXPECT_THAT(got, testing::ElementsAre(ok_line(), "{\"x\":1}"));
  EXPECT_EQ(requests, 1);
  EXPECT_EQ(server->clients(), 0u);
}

TEST_F(ServerTest, BlockingClientGetsTheAnswer) {
  ASSERT_TRUE(start());
  std::atomic<bool> done = false;
  std::vector<std::string> got;
  std::thread client([&] {
    auto c = Client::request(path, {"list", {{"n", "20000"}}}, 5s);
    while (c) {
      auto line = c->read_line(5s);
      if (!line || !*line) break;
      got.push_back(std::move(**line));
    }
    done = true;
  });
  while (!done) ASSERT_TRUE(loop->run_once(5ms));
  client.join();
  ASSERT_EQ(got.size(), 20001u);
  for (std::size_t i = 0; i < 20000; ++i) EXPECT_EQ(json::parse(got[i + 1])["i"], i);
}

TEST_F(ServerTest, RequestInPiecesIsOneRequest) {
  ASSERT_TRUE(start());
  const auto fd = connect();
  for (const char c : request("echo", {{"text", "piecemeal"}})) {
    put(fd, {&c, 1});
    ASSERT_TRUE(loop->run_once(1ms));
  }
  EXPECT_THAT(read_all(fd), HasSubstr("piecemeal"));
}

TEST_F(ServerTest, RefusesAnotherUser) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to become another user";
  ASSERT_TRUE(start());
  // As root may have set up by mistake: only the credentials are left to say no.
  ASSERT_EQ(::chmod(path.c_str(), 0666), 0);
  const auto pid = ::fork();
  if (pid == 0) {
    if (::setgroups(0, nullptr) != 0 || ::setgid(65534) != 0 || ::setuid(65534) != 0) ::_exit(3);
    auto c = Client::request(path, {"echo", {{"text", "secret"}}}, 5s);
    if (!c) ::_exit(4);
    auto line = c->read_line(5s);
    if (!line || !*line) ::_exit(5);
    const auto answer = check_answer(**line);
    ::_exit(!answer && answer.error().message.starts_with("permission denied") ? 42 : 6);
  }
  int status = 0;
  while (::waitpid(pid, &status, WNOHANG) == 0) ASSERT_TRUE(loop->run_once(5ms));
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 42);
  EXPECT_EQ(requests, 0);
  // The permission twin: the same socket serves root.
  const auto fd = connect();
  put(fd, request("echo", {{"text", "mine"}}));
  EXPECT_THAT(read_all(fd), HasSubstr("mine"));
}

TEST_F(ServerTest, ModeOfTheSocketKeepsAnotherUserOut) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to become another user";
  ASSERT_TRUE(start());
  const auto pid = ::fork();
  if (pid == 0) {
    if (::setgroups(0, nullptr) != 0 || ::setgid(65534) != 0 || ::setuid(65534) != 0) ::_exit(3);
    const auto c = Client::request(path, {"echo", {}}, 1s);
    ::_exit(!c && c.error().code == EACCES ? 42 : 4);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(pid, &status, 0), pid);
  EXPECT_EQ(WEXITSTATUS(status), 42);
}

TEST_F(ServerTest, OversizeRequestIsRefusedWithoutBeingKept) {
  ASSERT_TRUE(start());
  std::atomic<bool> done = false;
  std::string error;
  std::thread client([&] {
    auto c = Client::request(path, {"echo", {{"text", std::string(4 << 20, 'x')}}}, 5s);
    if (c) {
      auto line = c->read_line(5s);
      if (line && *line) error = check_answer(**line).error().message;
    }
    done = true;
  });
  while (!done) ASSERT_TRUE(loop->run_once(5ms));
  client.join();
  EXPECT_EQ(error, "request is too long");
  EXPECT_EQ(requests, 0);
  EXPECT_EQ(server->clients(), 0u);
}

TEST_F(ServerTest, LargestRequestIsAccepted) {
  ASSERT_TRUE(start());
  auto line = request("echo", {{"text", ""}});
  line = request("echo", {{"text", std::string(kMaxRequestBytes - line.size(), 'x')}});
  ASSERT_EQ(line.size(), kMaxRequestBytes);
  const auto fd = connect();
  put(fd, line);
  EXPECT_THAT(read_all(fd), HasSubstr("\"ok\":true"));
  const auto refused = connect();
  line.insert(line.find("xx"), "x");
  put(refused, line);
  EXPECT_THAT(read_all(refused), HasSubstr("too long"));
}

TEST_F(ServerTest, GarbageIsAnsweredWithAnError) {
  ASSERT_TRUE(start());
  std::mt19937 random(1);
  for (int i = 0; i < 200; ++i) {
    std::string bytes(random() % 300, 0);
    for (auto& b : bytes) b = static_cast<char>(random());
    std::ranges::replace(bytes, '\n', ' ');
    const auto fd = connect();
    put(fd, bytes + "\n");
    bool closed = false;
    const auto got = lines(read_all(fd, &closed));
    EXPECT_TRUE(closed);
    ASSERT_EQ(got.size(), 1u);
    EXPECT_EQ(json::parse(got[0])["ok"], false);
  }
  EXPECT_EQ(requests, 0);
}

TEST_F(ServerTest, HalfALineIsRefused) {
  ASSERT_TRUE(start());
  const auto fd = connect();
  auto line = request("echo", {{"text", "x"}});
  line.pop_back();
  put(fd, line);
  ASSERT_EQ(::shutdown(fd.get(), SHUT_WR), 0);
  bool closed = false;
  EXPECT_THAT(read_all(fd, &closed), HasSubstr("without a newline"));
  EXPECT_TRUE(closed);
  EXPECT_EQ(requests, 0);
}

TEST_F(ServerTest, ClientThatStopsSendingStillGetsItsAnswer) {
  ASSERT_TRUE(start());
  const auto fd = connect();
  put(fd, request("list", {{"n", "5000"}}));
  ASSERT_EQ(::shutdown(fd.get(), SHUT_WR), 0);
  EXPECT_EQ(lines(read_all(fd)).size(), 5001u);
}

TEST_F(ServerTest, SilentClientIsClosedInTimeEvenIfItTrickles) {
  ASSERT_TRUE(start({.request_timeout = 60ms}));
  const auto silent = connect();
  const auto trickling = connect();
  for (int i = 0; i < 6; ++i) {
    put(trickling, "{");
    spin(5ms);
  }
  bool closed = false;
  EXPECT_THAT(read_all(silent, &closed), HasSubstr("no request in time"));
  EXPECT_TRUE(closed);
  EXPECT_THAT(read_all(trickling, &closed), HasSubstr("no request in time"));
  EXPECT_TRUE(closed);
}

TEST_F(ServerTest, ClientsBeyondTheLimitAreTurnedAwayOthersServed) {
  ASSERT_TRUE(start());
  std::vector<UniqueFd> held;
  for (std::size_t i = 0; i < Server::kMaxClients; ++i) held.push_back(connect());
  spin();
  EXPECT_EQ(server->clients(), Server::kMaxClients);
  const auto extra = connect();
  bool closed = false;
  EXPECT_THAT(read_all(extra, &closed), HasSubstr("too many clients"));
  EXPECT_TRUE(closed);
  put(held[0], request("echo", {{"text", "served"}}));
  EXPECT_THAT(read_all(held[0]), HasSubstr("served"));
  const auto next = connect();
  put(next, request("echo", {{"text", "there is room again"}}));
  EXPECT_THAT(read_all(next), HasSubstr("there is room again"));
}

TEST_F(ServerTest, WatchersGetEveryLineUntilTheyLeave) {
  ASSERT_TRUE(start());
  auto a = connect();
  auto b = connect();
  put(a, request("watch"));
  put(b, request("watch"));
  spin();
  ASSERT_EQ(watchers.size(), 2u);
  watchers.broadcast("{\"n\":1}");
  a.reset();
  spin();
  EXPECT_EQ(watchers.size(), 1u);
  watchers.broadcast("{\"n\":2}");
  EXPECT_EQ(server->clients(), 1u);
  EXPECT_THAT(lines(read_all(b, nullptr, 50ms)),
              testing::ElementsAre(ok_line(), "{\"n\":1}", "{\"n\":2}"));
}

TEST_F(ServerTest, SlowWatcherLosesCountedLinesWithinBoundedMemory) {
  ASSERT_TRUE(start());
  const auto slow = connect();
  const auto fast = connect();
  put(slow, request("watch"));
  put(fast, request("watch"));
  spin();
  constexpr std::size_t kLines = 20000;
  std::string seen_by_fast;
  for (std::size_t i = 0; i < kLines; ++i) {
    watchers.broadcast(json{{"i", i}, {"pad", std::string(80, 'x')}}.dump());
    if (i % 100 == 0) seen_by_fast += read_all(fast, nullptr, 2ms);
  }
  seen_by_fast += read_all(fast, nullptr, 100ms);
  EXPECT_EQ(lines(seen_by_fast).size(), kLines + 1) << "one slow client costs the others nothing";

  auto seen = read_all(slow, nullptr, 200ms);
  watchers.broadcast("{\"i\":\"again\"}");
  seen += read_all(slow, nullptr, 50ms);
  EXPECT_LT(seen.size(), Server::kMaxBuffered + (1u << 20)) << "buffer plus what the kernel holds";
  std::size_t received = 0, dropped = 0;
  const auto got = lines(seen);
  for (const auto& line : got) {
    const auto j = json::parse(line);
    if (j.contains("dropped"))
      dropped += j["dropped"].get<std::size_t>();
    else if (j.contains("pad"))
      ++received;
  }
  EXPECT_GT(dropped, 0u);
  EXPECT_EQ(received + dropped, kLines);
  EXPECT_EQ(got.back(), "{\"i\":\"again\"}");
}

TEST_F(ServerTest, DroppedLineIsTheLastOfAClosedWatch) {
  Responder kept;
  auto r = Server::open(*loop, {.path = path}, [&](const Request&, Responder& responder) {
    responder.keep_open();
    kept = responder;
  });
  ASSERT_TRUE(r) << r.error().message;
  const auto fd = connect();
  put(fd, request("watch"));
  spin();
  for (int i = 0; i < 20000; ++i) kept.send(json(std::string(100, 'x')).dump());
  kept.close();
  bool closed = false;
  const auto got = lines(read_all(fd, &closed));
  EXPECT_TRUE(closed);
  EXPECT_FALSE(kept.is_open());
  ASSERT_FALSE(got.empty());
  EXPECT_EQ(json::parse(got.back())["dropped"], 20000 - (got.size() - 1));
}

TEST_F(ServerTest, ListIsMadeAsItIsRead) {
  ASSERT_TRUE(start());
  const auto fd = connect();
  put(fd, request("list", {{"n", "1000000"}}));
  spin(50ms);
  EXPECT_GT(produced, 0u);
  EXPECT_LT(produced, 20000u) << "the client has read nothing yet";
}

TEST_F(ServerTest, AnswerNobodyReadsIsGivenUp) {
  ASSERT_TRUE(start({.drain_timeout = 50ms}));
  const auto fd = connect();
  put(fd, request("list", {{"n", "1000000"}}));
  spin(20ms);
  EXPECT_EQ(server->clients(), 1u);
  spin(80ms);
  EXPECT_EQ(server->clients(), 0u);
}

TEST_F(ServerTest, ResponderOfAGoneServerDoesNothing) {
  Responder kept;
  {
    auto r = Server::open(*loop, {.path = path}, [&](const Request&, Responder& responder) {
      responder.keep_open();
      kept = responder;
    });
    ASSERT_TRUE(r);
    const auto fd = connect();
    put(fd, request("watch"));
    spin();
    EXPECT_TRUE(kept.is_open());
  }
  EXPECT_FALSE(kept.is_open());
  kept.send("x");
  kept.close();
  Responder().send("x");
}

TEST_F(ServerTest, StaleSocketIsReplaced) {
  const auto pid = ::fork();
  if (pid == 0) {
    auto l = EventLoop::create();
    auto s = Server::open(**l, {.path = path}, [](const Request&, Responder&) {});
    ::_exit(s ? 42 : 1);  // as after kill -9: no destructor runs
  }
  int status = 0;
  ASSERT_EQ(::waitpid(pid, &status, 0), pid);
  ASSERT_EQ(WEXITSTATUS(status), 42);
  ASSERT_TRUE(fs::exists(path));
  const auto r = start();
  ASSERT_TRUE(r) << r.error().message;
  const auto fd = connect();
  put(fd, request("echo", {{"text", "fresh"}}));
  EXPECT_THAT(read_all(fd), HasSubstr("fresh"));
}

TEST_F(ServerTest, LiveSocketIsNotReplaced) {
  ASSERT_TRUE(start());
  const auto second = Server::open(*loop, {.path = path}, [](const Request&, Responder&) {});
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().message, HasSubstr("another daemon listens on"));
  const auto fd = connect();
  put(fd, request("echo", {{"text", "first"}}));
  EXPECT_THAT(read_all(fd), HasSubstr("first"));
}

TEST_F(ServerTest, ForeignListenerWithoutOurLockIsNotReplaced) {
  fs::create_directory(dir / "run");
  const UniqueFd other(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  ASSERT_EQ(::bind(other.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  ASSERT_EQ(::listen(other.get(), 1), 0);
  EXPECT_FALSE(start());
  EXPECT_TRUE(fs::exists(path));
}

TEST_F(ServerTest, OtherFilesInItsPlaceAreLeftAlone) {
  fs::create_directory(dir / "run");
  std::ofstream(path) << "precious";
  const auto r = start();
  ASSERT_FALSE(r);
  EXPECT_THAT(r.error().message, HasSubstr("is no socket"));
  EXPECT_EQ(fs::file_size(path), 8u);
}

TEST_F(ServerTest, DirectoryOthersCanWriteIsRefused) {
  fs::create_directory(dir / "run");
  ASSERT_EQ(::chmod((dir / "run").c_str(), 0777), 0);
  EXPECT_FALSE(start());
  ASSERT_EQ(::chmod((dir / "run").c_str(), 01777), 0);
  EXPECT_TRUE(start());
}

TEST_F(ServerTest, PathMustFitAndItsParentExist) {
  path = dir / std::string(120, 'x');
  EXPECT_FALSE(start());
  path = dir / "no" / "such" / "control.sock";
  EXPECT_FALSE(start());
}

TEST_F(ServerTest, ClientSaysWhenNobodyIsThere) {
  auto c = Client::request(path, {"status", {}}, 100ms);
  ASSERT_FALSE(c);
  EXPECT_EQ(c.error().code, ENOENT);
  ASSERT_TRUE(start());
  // Accepted by the kernel, but the loop does not run: no answer within the time.
  c = Client::request(path, {"status", {}}, 100ms);
  ASSERT_TRUE(c);
  const auto line = c->read_line(30ms);
  ASSERT_FALSE(line);
  EXPECT_EQ(line.error().code, ETIMEDOUT);
}

}  // namespace
}  // namespace egressd::control
