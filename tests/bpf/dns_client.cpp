// The workload of tests/netns/dns_*.sh: resolves names and uses each address at once.
//
//   dns_client MODE FIRST COUNT FORMAT [SERVER]
//     FORMAT is a printf format of one number; names are FORMAT for FIRST .. FIRST + COUNT - 1
//     tcp4 tcp6   getaddrinfo, then connect to port 443 of every address
//     raw         query to SERVER, receive, send a datagram to the address: no libc in between
//     vc          getaddrinfo with every query over TCP, then connect
//   Prints: names N connections C refused R failed F. Exit status 0 if R and F are 0.
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <resolv.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

int connections = 0;
int refused = 0;  // by the firewall
int broken = 0;   // anything else

void count(int error, const char* name) {
  if (error == EPERM) {
    ++refused;
  } else {
    if (broken++ < 5) {
      std::fprintf(stderr, "%s: %s\n", name, std::strerror(error));
    }
  }
}

void connect_all(const char* name, int family) {
  addrinfo hints{};
  hints.ai_family = family;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* list = nullptr;
  if (const int e = ::getaddrinfo(name, "443", &hints, &list); e != 0) {
    if (broken++ < 5) {
      std::fprintf(stderr, "%s: %s\n", name, ::gai_strerror(e));
    }
    return;
  }
  for (const addrinfo* a = list; a != nullptr; a = a->ai_next) {
    const int fd = ::socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
    // No TIME_WAIT: tens of thousands of connections follow each other.
    const linger reset{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    ++connections;
    int error = 0;
    if (::connect(fd, a->ai_addr, a->ai_addrlen) != 0) {
      error = errno;
      if (error == EINPROGRESS) {
        // A lost SYN is sent again after a second: a first packet dropped counts, though it heals.
        pollfd wait{.fd = fd, .events = POLLOUT, .revents = 0};
        socklen_t size = sizeof(error);
        error = ::poll(&wait, 1, 900) == 1 ? 0 : ETIMEDOUT;
        if (error == 0) {
          ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
        }
      }
    }
    if (error != 0) {
      count(error, name);
    }
    ::close(fd);
  }
  ::freeaddrinfo(list);
}

void raw(const char* name, const char* server, int number) {
  const int fd = ::socket(AF_INET, SOCK_DGRAM, 0);
  const int other = ::socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(53);
  ::inet_pton(AF_INET, server, &to.sin_addr);
  std::vector<std::uint8_t> m{static_cast<std::uint8_t>(number >> 8),
                              static_cast<std::uint8_t>(number),
                              1,
                              0,
                              0,
                              1,
                              0,
                              0,
                              0,
                              0,
                              0,
                              0};
  std::string rest = name;
  while (!rest.empty()) {
    const auto dot = rest.find('.');
    const auto label = rest.substr(0, dot);
    m.push_back(static_cast<std::uint8_t>(label.size()));
    m.insert(m.end(), label.begin(), label.end());
    rest = dot == std::string::npos ? "" : rest.substr(dot + 1);
  }
  const std::vector<std::uint8_t> end{0, 0, 1, 0, 1};  // root, type A, class IN
  m.insert(m.end(), end.begin(), end.end());
  std::uint8_t answer[1500];
  pollfd wait{.fd = fd, .events = POLLIN, .revents = 0};
  if (::sendto(fd, m.data(), m.size(), 0, reinterpret_cast<sockaddr*>(&to), sizeof(to)) < 0) {
    count(errno, name);
  } else if (::poll(&wait, 1, 2000) != 1) {
    count(ETIMEDOUT, name);
  } else {
    const ssize_t n = ::recv(fd, answer, sizeof(answer), 0);
    if (n < 4 || answer[7] == 0) {
      count(ENOENT, name);
    } else {
      std::memcpy(&to.sin_addr, answer + n - 4, 4);
      to.sin_port = htons(443);
      ++connections;
      if (::sendto(other, "x", 1, 0, reinterpret_cast<sockaddr*>(&to), sizeof(to)) < 0) {
        count(errno, name);
      }
    }
  }
  ::close(fd);
  ::close(other);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) {
    std::fputs("usage: dns_client tcp4|tcp6|raw|vc FIRST COUNT FORMAT [SERVER]\n", stderr);
    return 2;
  }
  const std::string mode = argv[1];
  const int first = std::atoi(argv[2]);
  const int many = std::atoi(argv[3]);
  const std::string format = argv[4];
  const auto mark = format.find("%d");
  if (mark == std::string::npos || (mode == "raw" && argc < 6)) {
    std::fputs("dns_client: the format needs a %d, raw needs a server\n", stderr);
    return 2;
  }
  if (mode == "vc") {
    ::setenv("RES_OPTIONS", "use-vc", 1);
  }
  for (int i = first; i < first + many; ++i) {
    const std::string name = format.substr(0, mark) + std::to_string(i) + format.substr(mark + 2);
    if (mode == "raw") {
      raw(name.c_str(), argv[5], i);
    } else {
      connect_all(name.c_str(), mode == "tcp6" ? AF_INET6 : AF_INET);
    }
  }
  std::printf("names %d connections %d refused %d failed %d\n", many, connections, refused, broken);
  return refused == 0 && broken == 0 ? 0 : 1;
}
