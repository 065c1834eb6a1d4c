#include "daemon/dns_proxy.h"

#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <utility>

#include "base/unique_fd.h"
#include "dns/exchange.h"
#include "enforce/cgroup.h"

namespace egressd::daemon {
namespace {

constexpr std::uint16_t kDnsPort = 53;
constexpr std::chrono::seconds kMaxRetryAfter{60};

// A server on this machine can have its address bound.
bool is_local(const net::IpAddress& address) {
  const UniqueFd fd(::socket(address.is_v4() ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_storage at{};
  const socklen_t size = dns::to_sockaddr(address, 0, at);
  return fd && ::bind(fd.get(), reinterpret_cast<sockaddr*>(&at), size) == 0;
}

}  // namespace

DnsProxy::DnsProxy(EventLoop& loop, dns::Forwarder::Callbacks callbacks, std::string cgroup_path,
                   std::string cgroup2_mount)
    : loop_(loop),
      callbacks_(std::move(callbacks)),
      cgroup_path_(std::move(cgroup_path)),
      cgroup2_mount_(std::move(cgroup2_mount)) {
  callbacks_.identify = [this](dns::Forwarder::Client& client) { identify(client); };
}

void DnsProxy::raise_limits() {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  files.rlim_cur = std::max(files.rlim_cur, std::min<rlim_t>(files.rlim_max, 8192));
  (void)::setrlimit(RLIMIT_NOFILE, &files);  // the forwarder's bounds follow what there is
}

enforce::RuleSet::Dns::Forwarder DnsProxy::own_questions() {
  return {.mark = kOwnQuestionMark, .uid = ::geteuid()};
}

DnsProxy::~DnsProxy() { loop_.cancel(retry_); }

Result<void> DnsProxy::follow(const std::vector<net::IpAddress>& servers) {
  loop_.cancel(std::exchange(retry_, 0));
  if (is_active() && servers == servers_) {
    error_.clear();
    return {};
  }
  auto r = start(servers);
  error_ = r ? "" : r.error().message;
  if (r) {
    retry_after_ = std::chrono::seconds(1);
  } else {
    retry_ = loop_.after(retry_after_, [this, servers] {
      retry_ = 0;
      (void)follow(servers);
    });
    retry_after_ = std::min(2 * retry_after_, kMaxRetryAfter);
  }
  return r;
}

Result<void> DnsProxy::start(const std::vector<net::IpAddress>& servers) {
  if (!owners_) {
    auto owners = SocketOwners::open();
    if (!owners) return std::unexpected(std::move(owners.error()));
    owners_ = std::move(*owners);
  }
  dns::Forwarder::Options options;
  options.mark = kOwnQuestionMark;
  for (const net::IpAddress& server : servers)
    options.servers.push_back({server, kDnsPort, is_local(server)});
  auto forwarder = dns::Forwarder::create(loop_, std::move(options), callbacks_);
  if (!forwarder) return std::unexpected(std::move(forwarder.error()));
  const auto what = redirection(**forwarder);
  if (!what) return std::unexpected(what.error());
  // What is in force stays so until the new one is.
  std::unique_ptr<nft::Redirect> opened;
  if (!redirect_) {
    auto r = nft::Redirect::open("egressd-dns");
    if (!r) return std::unexpected(std::move(r.error()));
    opened = std::move(*r);
  }
  if (auto r = (opened ? opened : redirect_)->set(*what); !r) return r;
  if (opened) redirect_ = std::move(opened);
  // Questions under way in a forwarder of before are asked again by who asked.
  forwarder_ = std::move(*forwarder);
  servers_ = servers;
  return {};
}

void DnsProxy::end() {
  loop_.cancel(std::exchange(retry_, 0));
  retry_after_ = std::chrono::seconds(1);
  redirect_.reset();  // first: nobody is sent to a closed port
  forwarder_.reset();
  servers_.clear();
  error_.clear();
}

Result<nft::Redirect::What> DnsProxy::redirection(const dns::Forwarder& forwarder) const {
  nft::Redirect::What what;
  const auto own = own_questions();
  what.mark = own.mark;
  what.uid = own.uid;
  for (const dns::Forwarder::Port& port : forwarder.ports())
    what.ways.push_back({port.server, port.udp, port.tcp});
  std::error_code ec;
  const auto below = std::filesystem::relative(cgroup_path_, cgroup2_mount_, ec);
  if (ec || below.empty() || *below.begin() == "..")
    return std::unexpected(Error::of(cgroup_path_ + " is not below " + cgroup2_mount_));
  if (below == ".") return what;  // the whole machine
  const auto id = enforce::cgroup_id(cgroup_path_);
  if (!id) return std::unexpected(id.error());
  what.cgroup = {static_cast<std::uint32_t>(std::distance(below.begin(), below.end())), *id};
  return what;
}

void DnsProxy::identify(dns::Forwarder::Client& client) {
  SocketOwners::Flow flow{client.protocol, client.address, client.server, client.port, kDnsPort};
  auto owner = owners_->find(flow);
  if (!owner) {
    client.key = 0;  // all of whom nothing is known, together
    return;
  }
  client.uid = owner->uid;
  client.cgroup_id = owner->cgroup_id;
  client.key = (owner->cgroup_id << 32 | owner->uid) + 1;
}

}  // namespace egressd::daemon
