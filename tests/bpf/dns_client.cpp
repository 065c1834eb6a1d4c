// The workload of tests/netns/dns_*.sh: resolves names and uses each address at once.
//
//   dns_client MODE FIRST COUNT FORMAT [SERVER|ADDRESS]
//     FORMAT is a printf format of one number; names are FORMAT for FIRST .. FIRST + COUNT - 1
//     tcp4 tcp6   getaddrinfo, then connect to port 443 of every address
//     raw         query to SERVER, receive, send a datagram to each address: no libc in between
//     mixed       raw, with letters in either case; SERVER must send them back as they were
//     edns        raw, with EDNS and a buffer of 4096 bytes
//     vc          getaddrinfo with every query over TCP, then connect
//     forbidden   the name must not resolve, and connect to port 443 of ADDRESS must say EPERM, or
//                 with EGRESSD_BACKEND=nft ECONNREFUSED
//   EGRESSD_CLIENT_PACE_MS: wait so long after each name. SIGTERM: the name under way is the last.
//   Prints: names N connections C refused R failed F. Exit status 0 if F is 0, and R is 0, or with
//   `forbidden` two for each name.
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <resolv.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <thread>
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

enum class Form { Plain, Mixed, Edns };

// Behind the name at `at`; 0 if it runs past the end.
std::size_t skip_name(std::span<const std::uint8_t> m, std::size_t at) {
  while (at < m.size() && m[at] != 0 && m[at] < 0xc0) {
    at += m[at] + 1U;
  }
  at += at < m.size() && m[at] >= 0xc0 ? 2 : 1;
  return at <= m.size() ? at : 0;
}

// IPv4 addresses of the answer section, network order.
std::vector<std::uint32_t> addresses_of(std::span<const std::uint8_t> m) {
  std::vector<std::uint32_t> all;
  std::size_t at = m.size() < 12 ? 0 : skip_name(m, 12);
  if (at == 0) {
    return all;
  }
  at += 4;
  for (int left = m[6] << 8 | m[7]; left > 0; --left) {
    at = skip_name(m, at);
    if (at == 0 || at + 10 > m.size()) {
      break;
    }
    const std::size_t size = static_cast<std::size_t>(m[at + 8]) << 8 | m[at + 9];
    if (m[at + 1] == 1 && size == 4 && at + 14 <= m.size()) {
      std::uint32_t address = 0;
      std::memcpy(&address, m.data() + at + 10, 4);
      all.push_back(address);
    }
    at += 10 + size;
  }
  return all;
}

void raw(const char* name, const char* server, int number, Form form) {
  const int fd = ::socket(AF_INET, SOCK_DGRAM, 0);
  const int other = ::socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(53);
  ::inet_pton(AF_INET, server, &to.sin_addr);
  const std::uint8_t additional = form == Form::Edns ? 1 : 0;
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
                              additional};
  std::string rest = name;
  if (form == Form::Mixed) {
    unsigned bits = static_cast<unsigned>(number) * 2654435761U | 1U;
    for (char& c : rest) {
      if (c >= 'a' && c <= 'z' && (bits & 1U) != 0) {
        c = static_cast<char>(c - 'a' + 'A');
      }
      bits = bits >> 1U | bits << 31U;
    }
  }
  while (!rest.empty()) {
    const auto dot = rest.find('.');
    const auto label = rest.substr(0, dot);
    m.push_back(static_cast<std::uint8_t>(label.size()));
    m.insert(m.end(), label.begin(), label.end());
    rest = dot == std::string::npos ? "" : rest.substr(dot + 1);
  }
  const std::vector<std::uint8_t> end{0, 0, 1, 0, 1};  // root, type A, class IN
  m.insert(m.end(), end.begin(), end.end());
  const std::size_t question = m.size();
  if (form == Form::Edns) {
    const std::vector<std::uint8_t> edns{0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0};
    m.insert(m.end(), edns.begin(), edns.end());
  }
  std::vector<std::uint8_t> answer(65536);
  pollfd wait{.fd = fd, .events = POLLIN, .revents = 0};
  if (::sendto(fd, m.data(), m.size(), 0, reinterpret_cast<sockaddr*>(&to), sizeof(to)) < 0) {
    count(errno, name);
  } else if (::poll(&wait, 1, 2000) != 1) {
    count(ETIMEDOUT, name);
  } else {
    answer.resize(static_cast<std::size_t>(
        std::max<ssize_t>(::recv(fd, answer.data(), answer.size(), 0), 0)));
    const auto addresses = addresses_of(answer);
    const bool same = answer.size() >= question &&
                      std::memcmp(answer.data() + 12, m.data() + 12, question - 12) == 0;
    if (addresses.empty() || (form == Form::Mixed && !same)) {
      count(ENOENT, name);
    }
    for (const auto address : addresses) {
      to.sin_addr.s_addr = address;
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

void forbidden(const char* name, const char* address) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  if (::getaddrinfo(name, "443", &hints, &list) == 0) {
    ::freeaddrinfo(list);
    count(EEXIST, name);
  } else {
    ++refused;
  }
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(443);
  ::inet_pton(AF_INET, address, &to.sin_addr);
  ++connections;
  int error = ::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof(to)) == 0 ? EISCONN : errno;
  const char* backend = std::getenv("EGRESSD_BACKEND");
  if (backend != nullptr && std::string(backend) == "nft") {
    pollfd wait{fd, POLLOUT, 0};
    socklen_t size = sizeof(error);
    if (error == EINPROGRESS && ::poll(&wait, 1, 2000) == 1)
      ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error == ECONNREFUSED) error = EPERM;
  }
  count(error, address);
  ::close(fd);
}

std::atomic<bool> last = false;

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) {
    std::fputs(
        "usage: dns_client tcp4|tcp6|raw|mixed|edns|vc|forbidden FIRST COUNT FORMAT [SERVER]\n",
        stderr);
    return 2;
  }
  const std::string mode = argv[1];
  const int first = std::atoi(argv[2]);
  const int many = std::atoi(argv[3]);
  const std::string format = argv[4];
  const auto mark = format.find("%d");
  const bool plain = mode == "tcp4" || mode == "tcp6" || mode == "vc";
  if (mark == std::string::npos || (!plain && argc < 6)) {
    std::fputs("dns_client: the format needs a %d, this mode an address\n", stderr);
    return 2;
  }
  if (mode == "vc") {
    const char* options = std::getenv("RES_OPTIONS");
    ::setenv("RES_OPTIONS", (std::string(options != nullptr ? options : "") + " use-vc").c_str(),
             1);
  }
  const char* pace = std::getenv("EGRESSD_CLIENT_PACE_MS");
  const auto pause = std::chrono::milliseconds(pace != nullptr ? std::atoi(pace) : 0);
  struct sigaction stop{};
  stop.sa_handler = [](int /*signal*/) { last = true; };
  stop.sa_flags = SA_RESTART;
  ::sigaction(SIGTERM, &stop, nullptr);
  int done = 0;
  for (int i = first; i < first + many && !last; ++i, ++done) {
    const std::string name = format.substr(0, mark) + std::to_string(i) + format.substr(mark + 2);
    if (plain) {
      connect_all(name.c_str(), mode == "tcp6" ? AF_INET6 : AF_INET);
    } else if (mode == "forbidden") {
      forbidden(name.c_str(), argv[5]);
    } else {
      raw(name.c_str(), argv[5], i,
          mode == "mixed"  ? Form::Mixed
          : mode == "edns" ? Form::Edns
                           : Form::Plain);
    }
    if (pause.count() > 0) {
      std::this_thread::sleep_for(pause);
    }
  }
  std::printf("names %d connections %d refused %d failed %d\n", done, connections, refused, broken);
  return broken == 0 && refused == (mode == "forbidden" ? 2 * done : 0) ? 0 : 1;
}
