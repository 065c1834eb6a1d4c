#include "name_servers.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "base/unique_fd.h"

namespace egressd::dns {
namespace {

constexpr const char* kKnot = "/usr/sbin/knotd";
constexpr const char* kUnbound = "/usr/sbin/unbound";

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in sa{};
  sa.sin_family = AF_INET;
  sa.sin_port = htons(port);
  sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return sa;
}

// A port free for TCP and UDP at this moment; 0 if none was found.
std::uint16_t free_port() {
  for (int i = 0; i < 50; ++i) {
    const UniqueFd tcp(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const UniqueFd udp(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in sa = loopback(0);
    socklen_t size = sizeof(sa);
    if (::bind(tcp.get(), reinterpret_cast<sockaddr*>(&sa), size) != 0) continue;
    if (::getsockname(tcp.get(), reinterpret_cast<sockaddr*>(&sa), &size) != 0) continue;
    if (::bind(udp.get(), reinterpret_cast<sockaddr*>(&sa), size) == 0) return ntohs(sa.sin_port);
  }
  return 0;
}

}  // namespace

NameServer::NameServer() {
  char path[] = "/tmp/egressd-dns-XXXXXX";
  if (::mkdtemp(path) != nullptr) directory_ = path;  // start() says so
}

NameServer::~NameServer() {
  stop();
  std::error_code ignored;
  if (!directory_.empty()) std::filesystem::remove_all(directory_, ignored);
}

std::string NameServer::log() const {
  std::ostringstream text;
  text << std::ifstream(directory_ + "/log").rdbuf();
  return text.str();
}

Result<void> NameServer::start() {
  if (directory_.empty()) return std::unexpected(Error::of("no directory for the name server"));
  if (port_ != 0) return launch();
  Result<void> result;
  for (int i = 0; i < 5; ++i) {  // somebody else may take the port first
    port_ = free_port();
    result = launch();
    if (result) break;
  }
  return result;
}

Result<void> NameServer::launch() {
  const std::string configuration = directory_ + "/server.conf";
  write_configuration(configuration);
  std::vector<std::string> words = command(configuration);
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  const std::string log_path = directory_ + "/log";
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ < 0) return std::unexpected(Error::from_errno("fork"));
  if (pid_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // a crashed test leaves no server behind
    if (::getppid() != parent) ::_exit(1);
    const int fd = ::open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    ::dup2(fd, STDOUT_FILENO);
    ::dup2(fd, STDERR_FILENO);
    ::close_range(3, ~0U, 0);
    ::execv(arguments[0], arguments.data());
    ::_exit(127);
  }
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (std::chrono::steady_clock::now() < end) {
    if (::waitpid(pid_, nullptr, WNOHANG) == pid_) {
      pid_ = -1;
      return std::unexpected(Error::of("name server ended at once: " + log()));
    }
    const UniqueFd probe(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const sockaddr_in sa = loopback(port_);
    if (::connect(probe.get(), reinterpret_cast<const sockaddr*>(&sa), sizeof(sa)) == 0) return {};
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  stop();
  return std::unexpected(Error::of("name server does not listen: " + log()));
}

void NameServer::stop() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGTERM);
  for (int i = 0; i < 500; ++i) {
    if (::waitpid(pid_, nullptr, WNOHANG) == pid_) {
      pid_ = -1;
      return;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

bool KnotServer::is_installed() { return ::access(kKnot, X_OK) == 0; }

KnotServer::KnotServer(const std::string& zone_records) {
  std::ofstream(directory() + "/test.zone")
      << "$ORIGIN test.\n$TTL 300\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\n"
      << "ns A 127.0.0.1\n"
      << zone_records;
}

void KnotServer::write_configuration(const std::string& path) const {
  std::ofstream(path) << "server:\n  rundir: " << directory() << "\n  listen: 127.0.0.1@" << port()
                      << "\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n"
                      << "log:\n  - target: stderr\n    any: warning\n"
                      << "database:\n  storage: " << directory() << "\n"
                      << "template:\n  - id: default\n    storage: " << directory()
                      << "\n    zonefile-sync: -1\n    journal-content: none\n"
                      << "zone:\n  - domain: test\n    file: test.zone\n"
                      << "  - domain: broken.test\n    file: missing.zone\n";
}

std::vector<std::string> KnotServer::command(const std::string& path) const {
  return {kKnot, "-c", path};
}

bool UnboundServer::is_installed() { return ::access(kUnbound, X_OK) == 0; }

void UnboundServer::write_configuration(const std::string& path) const {
  std::ofstream(path) << "server:\n  interface: 127.0.0.1\n  port: " << port()
                      << "\n  directory: \"" << directory() << "\"\n  chroot: \"\"\n"
                      << "  username: \"\"\n  pidfile: \"\"\n  use-syslog: no\n"
                      << "  do-daemonize: no\n  num-threads: 1\n  module-config: \"iterator\"\n"
                      << "  do-not-query-localhost: no\n  do-ip6: no\n"
                      << "  local-zone: \"test.\" nodefault\n"
                      << "remote-control:\n  control-enable: no\n"
                      << "stub-zone:\n  name: \"test.\"\n  stub-addr: 127.0.0.1@" << upstream_port_
                      << "\n";
}

std::vector<std::string> UnboundServer::command(const std::string& path) const {
  return {kUnbound, "-c", path};
}

}  // namespace egressd::dns
