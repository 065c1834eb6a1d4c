#include "enforce/boot_table.h"

#include <netinet/in.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "enforce/nft_frame.h"
#include "enforce/nft_rules.h"
#include "enforce/nft_sockets.h"
#include "nft/connection.h"
#include "nft/sockets.h"

namespace egressd::enforce {
namespace {

using net::Protocol;
using nft::Rule;

// Nothing is learned while it is in force: the sets of the engine's frame stay empty.
constexpr std::uint32_t kMaxLearned = 1;
constexpr std::uint32_t kFormat = 1;

// 168.63.129.16: DHCP, what the guest agent asks (80, 32526); 169.254.169.254: instance metadata.
constexpr std::uint32_t kWireServer = 0xa83f8110;
constexpr std::uint32_t kMetadata = 0xa9fea9fe;

// One element: the format, with the state directory as its content.
nft::Set state() { return {.name = "state", .key = nft::Key::Mark}; }
// Both families while it is open, with who opened and why as content of the first.
nft::Set open_set() { return {.name = "open", .key = nft::Key::Family, .timeout = true}; }

std::vector<std::uint8_t> to_bytes(const Opening& opening) {
  const egressd_open value = to_value(opening);
  std::vector<std::uint8_t> bytes(sizeof(value));
  std::memcpy(bytes.data(), &value, sizeof(value));
  return bytes;
}
static_assert(sizeof(egressd_open) <= nft::kUserDataMax);

std::span<const std::uint8_t> bytes_of(const std::string& text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

void add_platform(nft::Batch& batch) {
  batch.add_rule(frame::kOutput, Rule()
                                     .to_prefix4(kWireServer)
                                     .protocol(Protocol::Udp)
                                     .port(67, 67)
                                     .counter("kernel")
                                     .accept());
  const auto for_root = [&](std::uint32_t address, std::uint16_t port) {
    batch.add_rule(frame::kOutput, Rule()
                                       .to_prefix4(address)
                                       .protocol(Protocol::Tcp)
                                       .port(port, port)
                                       .user(0)
                                       .counter("network_rule")
                                       .accept());
  };
  for_root(kWireServer, 80);
  for_root(kWireServer, 32526);
  for_root(kMetadata, 80);
}

// Nothing reads questions while it is in force, and whatever is asked can carry data away: where
// the policy filters names only root asks the resolvers, the agent among it, and nobody through
// here.
void add_resolvers_for_root(nft::Batch& batch, const std::vector<net::IpAddress>& resolvers) {
  constexpr std::uint16_t kDns = 53;
  for (const net::IpAddress& resolver : resolvers) {
    const auto& bytes = resolver.bytes();
    Rule rule;
    if (resolver.is_v4()) {
      std::uint32_t address = 0;
      for (std::size_t i = 12; i < bytes.size(); ++i) address = address << 8 | bytes[i];
      rule = Rule().to_prefix4(address);
    } else {
      rule = Rule().to_prefix6(resolver.to_string(), sizeof(in6_addr));
    }
    batch.add_rule(frame::kOutput, std::move(rule)
                                       .protocol_in("tcpudp")
                                       .port(kDns, kDns)
                                       .user(0)
                                       .counter("resolver")
                                       .accept());
  }
}

void add_hook_rules(nft::Batch& batch, BootTable::Besides besides,
                    const std::vector<net::IpAddress>& for_root) {
  // Nobody tells this table the host's addresses: the kernel is asked. A source of another would
  // make a question from outside of what is sent here, and its answer pass.
  batch.add_rule(frame::kOutput,
                 Rule().oif_loopback().source_is_local(true).counter("loopback").accept());
  for (const char* hook : {frame::kOutput, frame::kForward})
    batch.add_rule(hook, Rule().family_in(open_set().name).counter("audit").accept());
  if (besides == BootTable::Besides::AzurePlatform) add_platform(batch);
  add_resolvers_for_root(batch, for_root);
  batch.add_rule(frame::kOutput, Rule().jump("judge"));
  // Nor does it know which interface leads outside: what comes in and is forwarded is judged.
  batch.add_rule(frame::kForward, Rule().reply_direction().source_is_that_way().jump("answer"));
  batch.add_rule(frame::kForward, Rule().jump("rules"));
}

bool has_no_nftables(const Error& error) {
  return error.code == EPROTONOSUPPORT || error.code == EOPNOTSUPP || error.code == EINVAL;
}

}  // namespace

BootTable::BootTable(std::unique_ptr<nft::Connection> connection)
    : connection_(std::move(connection)) {}
BootTable::BootTable(BootTable&&) noexcept = default;
BootTable& BootTable::operator=(BootTable&&) noexcept = default;
BootTable::~BootTable() = default;

Result<BootTable> BootTable::open() {
  auto connection = nft::Connection::open(kName);
  if (!connection && connection.error().code == EPROTONOSUPPORT) return BootTable(nullptr);
  if (!connection) return std::unexpected(std::move(connection.error()));
  return BootTable(std::move(*connection));
}

Result<bool> BootTable::is_there() {
  if (!connection_) return false;
  const auto handle = connection_->table_handle();
  if (!handle && has_no_nftables(handle.error())) return false;
  if (!handle) return std::unexpected(handle.error());
  return handle->has_value();
}

Result<void> BootTable::load(RuleSet rules, const std::string& state_dir, Besides besides) {
  if (!connection_)
    return std::unexpected(Error::of("this kernel has no nftables: nothing can be closed at boot"));
  rules.names.clear();
  rules.generation = 0;
  auto sockets = nft::Sockets::open();
  if (!sockets) return std::unexpected(std::move(sockets.error()));
  const auto open = (*sockets)->list();
  const auto there = is_there();
  if (!there) return std::unexpected(there.error());

  std::vector<net::IpAddress> for_root;
  if (rules.dns.filter == RuleSet::Dns::Filter::Enforce) for_root.swap(rules.dns.resolvers);
  const NftRules judged(rules);
  const frame::Scope whole_host;
  nft::Batch batch(kName);
  if (*there) batch.delete_table();
  frame::add_table(batch, kMaxLearned);
  batch.add_set(state());
  batch.add_element(state(),
                    {.key = nft::KeyBytes::mark(kFormat).bytes(), .userdata = bytes_of(state_dir)});
  batch.add_set(open_set());
  // At boot there are none, and the kernel's module that would say so may be missing.
  if (open) frame::add_old_connections(batch, *open);
  for (const std::string& chain : judged.chains()) batch.add_chain({.name = chain});
  judged.add_to(batch);
  frame::add_hooks(batch, whole_host);
  add_hook_rules(batch, besides, for_root);
  return connection_->commit(batch);
}

Result<std::optional<std::string>> BootTable::state_dir() {
  const auto there = is_there();
  if (!there) return std::unexpected(there.error());
  if (!*there) return std::nullopt;
  std::string dir;
  auto r = connection_->each_element(state().name, [&](const nft::Connection::Listed& listed) {
    dir.assign(listed.userdata.begin(), listed.userdata.end());
  });
  if (!r) return std::unexpected(std::move(r.error()));
  return dir;
}

Result<bool> BootTable::remove() {
  const auto there = is_there();
  if (!there || !*there) return there;
  nft::Batch batch(kName);
  batch.delete_table();
  if (auto r = connection_->commit(batch); !r) {
    if (r.error().code == ENOENT) return false;
    return std::unexpected(std::move(r.error()));
  }
  return true;
}

Result<bool> BootTable::open_glass(const Opening& opening, BootTime now) {
  const auto there = is_there();
  if (!there || !*there) return there;
  const auto value = to_bytes(opening);
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(opening.until - now);
  nft::Batch batch(kName);
  batch.flush_set(open_set());
  for (const bool v4 : {true, false})
    batch.add_element(
        open_set(), {.key = nft::KeyBytes::family(v4).bytes(), .timeout = left, .userdata = value});
  if (auto r = connection_->commit(batch); !r) return std::unexpected(std::move(r.error()));
  return true;
}

Result<std::optional<Opening>> BootTable::opening(BootTime now) {
  const auto there = is_there();
  if (!there) return std::unexpected(there.error());
  std::optional<Opening> found;
  if (!*there) return found;
  auto r = connection_->each_element(open_set().name, [&](const nft::Connection::Listed& listed) {
    egressd_open value{};
    if (listed.userdata.size() != sizeof(value)) return;
    std::memcpy(&value, listed.userdata.data(), sizeof(value));
    value.reason[sizeof(value.reason) - 1] = 0;
    if (Opening opening = Opening::from(value); opening.is_open(now)) found = std::move(opening);
  });
  if (!r) return std::unexpected(std::move(r.error()));
  return found;
}

Result<std::optional<Opening>> BootTable::close_glass(BootTime now) {
  auto was = opening(now);
  if (!was || !*was) return was;
  nft::Batch batch(kName);
  batch.flush_set(open_set());
  if (auto r = connection_->commit(batch); !r) return std::unexpected(std::move(r.error()));
  return was;
}

Result<bool> open_boot_glass(const Opening& opening, BootTime now) {
  auto table = BootTable::open();
  if (!table) return std::unexpected(std::move(table.error()));
  return table->open_glass(opening, now);
}

Result<std::optional<Opening>> close_boot_glass(BootTime now) {
  auto table = BootTable::open();
  if (!table) return std::unexpected(std::move(table.error()));
  return table->close_glass(now);
}

Result<bool> remove_boot_table() {
  auto table = BootTable::open();
  if (!table) return std::unexpected(std::move(table.error()));
  return table->remove();
}

Result<bool> boot_table_is_there() {
  auto table = BootTable::open();
  if (!table) return std::unexpected(std::move(table.error()));
  return table->is_there();
}

Result<bool> nft_table_in_force() {
  auto connection = nft::Connection::open();
  if (!connection && connection.error().code == EPROTONOSUPPORT) return false;
  if (!connection) return std::unexpected(std::move(connection.error()));
  const auto chains = (*connection)->chains();
  if (!chains && has_no_nftables(chains.error())) return false;
  if (!chains) return std::unexpected(chains.error());
  return std::ranges::find(*chains, frame::kOutput) != chains->end();
}

}  // namespace egressd::enforce
