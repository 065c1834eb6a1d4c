#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "base/unique_fd.h"
#include "dns/resolver.h"

namespace egressd::dns {
namespace {

constexpr std::size_t kMaxBytes = 64 * 1024;
constexpr std::size_t kMaxServers = 3;  // MAXNS of resolv.h

constexpr std::string_view kBlank = " \t\r\v\f";

// Cuts the next word off `rest`; empty at the end of the line.
std::string_view next_word(std::string_view& rest) {
  rest.remove_prefix(std::min(rest.find_first_not_of(kBlank), rest.size()));
  const std::string_view word = rest.substr(0, rest.find_first_of(kBlank));
  rest.remove_prefix(word.size());
  return word;
}

std::string canonical(std::string_view name) {
  if (name.ends_with('.')) name.remove_suffix(1);
  std::string result(name);
  for (char& c : result)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return result;
}

void parse_line(std::string_view line, ResolvConf& conf) {
  line = line.substr(0, line.find_first_of("#;"));
  // A keyword counts only in the first column, as in libc.
  if (line.empty() || kBlank.contains(line.front())) return;
  const std::string_view keyword = next_word(line);
  if (keyword == "nameserver") {
    if (conf.servers.size() == kMaxServers) return;
    // A zone (fe80::1%eth0) does not parse: an IpAddress cannot say which link it means.
    if (const auto address = net::IpAddress::parse(next_word(line)))
      conf.servers.push_back(*address);
  } else if (keyword == "search" || keyword == "domain") {
    // The last line of either keyword wins.
    std::vector<std::string> names;
    for (auto word = next_word(line); !word.empty(); word = next_word(line)) {
      if (std::string name = canonical(word); !name.empty()) names.push_back(std::move(name));
      if (keyword == "domain") break;
    }
    conf.search = std::move(names);
  }
}

}  // namespace

Result<ResolvConf> read_resolv_conf(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return std::unexpected(Error::from_errno("open " + path));
  std::string text;
  std::array<char, 4096> buffer{};
  while (true) {
    const ssize_t n = ::read(fd.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return std::unexpected(Error::from_errno("read " + path));
    if (n == 0) break;
    text.append(buffer.data(), static_cast<std::size_t>(n));
    if (text.size() > kMaxBytes)
      return std::unexpected(
          Error::of(path + ": larger than " + std::to_string(kMaxBytes / 1024) + " KiB"));
  }

  ResolvConf conf;
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    parse_line(line, conf);
  }
  return conf;
}

}  // namespace egressd::dns
