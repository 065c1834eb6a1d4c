#include "daemon/last_good.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>
#include <utility>

#include "base/unique_fd.h"
#include "daemon/status.h"

namespace egressd::daemon {
namespace {

constexpr std::string_view kFirstLine = "egressd last good policy 1";

// Line by line from the front; an empty name is what is missing or not as it was written.
class Lines {
 public:
  explicit Lines(std::string_view text) : left_(text) {}

  // What stands behind "NAME " in the next line.
  std::optional<std::string_view> value(std::string_view name) {
    const auto line = next();
    if (!line || !line->starts_with(name) || line->size() <= name.size() ||
        (*line)[name.size()] != ' ')
      return std::nullopt;
    return line->substr(name.size() + 1);
  }
  std::optional<std::string_view> next() {
    const auto end = left_.find('\n');
    if (end == std::string_view::npos) return std::nullopt;
    const auto line = left_.substr(0, end);
    left_.remove_prefix(end + 1);
    return line;
  }
  [[nodiscard]] std::string_view left() const { return left_; }

 private:
  std::string_view left_;
};

std::optional<bool> either(std::optional<std::string_view> value, std::string_view yes,
                           std::string_view no) {
  if (!value || (*value != yes && *value != no)) return std::nullopt;
  return *value == yes;
}

}  // namespace

std::string last_good_path(const std::string& state_dir) { return state_dir + "/last-good"; }

std::string LastGood::to_text() const {
  std::string servers;
  for (const net::IpAddress& server : resolvers)
    servers += (servers.empty() ? "" : " ") + server.to_string();
  const std::string rest = "policy " + policy_path + "\nmode " + (enforce ? "enforce" : "audit") +
                           "\nscope " + (whole_host ? "host" : "cgroup") + "\nresolvers " +
                           (servers.empty() ? "none" : servers) + "\n\n" + text;
  return std::string(kFirstLine) + "\nsum " + fingerprint(rest) + "\n" + rest;
}

Result<LastGood> LastGood::parse(std::string_view text) {
  const auto broken = [](const char* what) {
    return std::unexpected(Error::of(std::string("it is not as an agent wrote it: ") + what));
  };
  Lines lines(text);
  const auto first = lines.next();
  if (!first || *first != kFirstLine) return broken("another first line, or another version");
  const auto sum = lines.value("sum");
  if (!sum || *sum != fingerprint(lines.left())) return broken("the check sum is wrong");
  LastGood found;
  const auto path = lines.value("policy");
  const auto mode = either(lines.value("mode"), "enforce", "audit");
  const auto scope = either(lines.value("scope"), "host", "cgroup");
  auto servers = lines.value("resolvers");
  const auto end = lines.next();
  if (!path || !mode || !scope || !servers || !end || !end->empty())
    return broken("a line is missing");
  found.policy_path = *path;
  found.enforce = *mode;
  found.whole_host = *scope;
  if (*servers == "none") *servers = "";
  while (!servers->empty()) {
    const auto space = std::min(servers->find(' '), servers->size());
    auto server = net::IpAddress::parse(servers->substr(0, space));
    if (!server) return broken("a resolver is no address");
    found.resolvers.push_back(*server);
    servers->remove_prefix(std::min(space + 1, servers->size()));
  }
  found.text = lines.left();
  return found;
}

// By hand: a stream's iterator throws where the disk fails, and a machine would stay open for that.
Result<std::optional<LastGood>> LastGood::load(const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file) {
    if (errno == ENOENT) return std::nullopt;
    return std::unexpected(Error::from_errno("open " + path));
  }
  std::string text;
  std::array<char, 16384> part{};
  for (;;) {
    const ssize_t n = ::read(file.get(), part.data(), part.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return std::unexpected(Error::from_errno("read " + path));
    if (n == 0) break;
    text.append(part.data(), static_cast<std::size_t>(n));
  }
  auto found = parse(text);
  if (!found) return std::unexpected(std::move(found.error()).context(path));
  return std::move(*found);
}

}  // namespace egressd::daemon
