#include "nft/redirect.h"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <libnftnl/table.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_tuple_common.h>
#include <linux/netfilter/nf_nat.h>
#include <linux/netfilter/nf_tables.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <span>

namespace egressd::nft {
namespace {

constexpr char kRedirectChain[] = "output";
constexpr char kZoneChain[] = "own";
// Before conntrack (-200) looks for a flow it knows.
constexpr std::uint32_t kRawPriority = static_cast<std::uint32_t>(-300);
constexpr std::uint16_t kOwnZone = 53;
// Before the dstnat of others (-100), such as kube-proxy's of a service address.
constexpr std::uint32_t kPriority = static_cast<std::uint32_t>(-110);
constexpr std::uint16_t kDnsPort = 53;
constexpr std::size_t kMessageBytes = 1024;  // what one rule needs, and more
constexpr std::size_t kAnswerBytes = 1 << 16;

using Rule = std::unique_ptr<nftnl_rule, decltype([](nftnl_rule* r) { ::nftnl_rule_free(r); })>;

nftnl_expr* add(const Rule& rule, const char* name) {
  nftnl_expr* e = ::nftnl_expr_alloc(name);
  ::nftnl_rule_add_expr(rule.get(), e);
  return e;
}

void compare(const Rule& rule, const void* data, std::uint32_t size) {
  nftnl_expr* e = add(rule, "cmp");
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_CMP_SREG, NFT_REG_1);
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_CMP_OP, NFT_CMP_EQ);
  ::nftnl_expr_set(e, NFTNL_EXPR_CMP_DATA, data, size);
}

template <typename T>
void meta_is(const Rule& rule, std::uint32_t key, T value) {
  nftnl_expr* e = add(rule, "meta");
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_META_KEY, key);
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_META_DREG, NFT_REG_1);
  compare(rule, &value, sizeof(value));
}

void payload_is(const Rule& rule, std::uint32_t base, std::uint32_t offset,
                std::span<const std::uint8_t> bytes) {
  const auto size = static_cast<std::uint32_t>(bytes.size());
  nftnl_expr* e = add(rule, "payload");
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_BASE, base);
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_OFFSET, offset);
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_LEN, size);
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_DREG, NFT_REG_1);
  compare(rule, bytes.data(), size);
}

Rule new_rule(const std::string& table, const char* chain) {
  Rule rule(::nftnl_rule_alloc());
  ::nftnl_rule_set_u32(rule.get(), NFTNL_RULE_FAMILY, NFPROTO_INET);
  ::nftnl_rule_set_str(rule.get(), NFTNL_RULE_TABLE, table.c_str());
  ::nftnl_rule_set_str(rule.get(), NFTNL_RULE_CHAIN, chain);
  return rule;
}

// meta mark MARK meta skuid UID ct original zone set 53
// A client may have just the source port that a question of ours had, or the other way round:
// conntrack would take one for the other's flow and redirect, or not, as it did before.
Rule zone_rule(const std::string& table, const Redirect::What& what) {
  Rule rule = new_rule(table, kZoneChain);
  meta_is(rule, NFT_META_MARK, what.mark);
  meta_is(rule, NFT_META_SKUID, what.uid);
  nftnl_expr* e = add(rule, "immediate");
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_DREG, NFT_REG_1);
  ::nftnl_expr_set(e, NFTNL_EXPR_IMM_DATA, &kOwnZone, sizeof(kOwnZone));
  e = add(rule, "ct");
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_CT_KEY, NFT_CT_ZONE);
  ::nftnl_expr_set_u8(e, NFTNL_EXPR_CT_DIR, IP_CT_DIR_ORIGINAL);
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_CT_SREG, NFT_REG_1);
  return rule;
}

// meta mark MARK meta skuid UID return
Rule exempt_rule(const std::string& table, const Redirect::What& what) {
  Rule rule = new_rule(table, kRedirectChain);
  meta_is(rule, NFT_META_MARK, what.mark);
  meta_is(rule, NFT_META_SKUID, what.uid);
  nftnl_expr* e = add(rule, "immediate");
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_VERDICT, static_cast<std::uint32_t>(NFT_RETURN));
  return rule;
}

// ip daddr SERVER udp dport 53 socket cgroupv2 level LEVEL ID redirect to :PORT
Rule redirect_rule(const std::string& table, const Redirect::What& what, const Redirect::Way& way,
                   std::uint8_t protocol) {
  Rule rule = new_rule(table, kRedirectChain);
  const bool v4 = way.server.is_v4();
  const auto& bytes = way.server.bytes();
  meta_is(rule, NFT_META_NFPROTO, static_cast<std::uint8_t>(v4 ? NFPROTO_IPV4 : NFPROTO_IPV6));
  payload_is(rule, NFT_PAYLOAD_NETWORK_HEADER, v4 ? 16 : 24, std::span(bytes).subspan(v4 ? 12 : 0));
  meta_is(rule, NFT_META_L4PROTO, protocol);
  const std::uint8_t port[2] = {kDnsPort >> 8, kDnsPort & 0xff};
  payload_is(rule, NFT_PAYLOAD_TRANSPORT_HEADER, 2, port);
  if (what.cgroup) {
    nftnl_expr* e = add(rule, "socket");
    ::nftnl_expr_set_u32(e, NFTNL_EXPR_SOCKET_KEY, NFT_SOCKET_CGROUPV2);
    ::nftnl_expr_set_u32(e, NFTNL_EXPR_SOCKET_DREG, NFT_REG_1);
    ::nftnl_expr_set_u32(e, NFTNL_EXPR_SOCKET_LEVEL, what.cgroup->level);
    compare(rule, &what.cgroup->id, sizeof(what.cgroup->id));
  }
  const std::uint16_t to = htons(protocol == IPPROTO_UDP ? way.udp : way.tcp);
  nftnl_expr* e = add(rule, "immediate");
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_DREG, NFT_REG_1);
  ::nftnl_expr_set(e, NFTNL_EXPR_IMM_DATA, &to, sizeof(to));
  e = add(rule, "redir");
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_REDIR_REG_PROTO_MIN, NFT_REG_1);
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_REDIR_REG_PROTO_MAX, NFT_REG_1);
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_REDIR_FLAGS, NF_NAT_RANGE_PROTO_SPECIFIED);
  return rule;
}

// One transaction: all of its messages or none.
class Transaction {
 public:
  explicit Transaction(std::uint32_t& sequence) : sequence_(sequence) {
    ::nftnl_batch_begin(room(), sequence_++);
    take();
  }
  template <typename Fill>
  void add(std::uint16_t type, std::uint16_t flags, Fill fill) {
    nlmsghdr* header = ::nftnl_nlmsg_build_hdr(room(), type, NFPROTO_INET, flags, sequence_++);
    fill(header);
    take();
  }
  // The end asks for an answer: errors come before it.
  std::span<const char> finish() {
    nlmsghdr* header = ::nftnl_batch_end(room(), sequence_++);
    header->nlmsg_flags |= NLM_F_ACK;
    take();
    return buffer_;
  }

 private:
  char* room() {
    used_ = buffer_.size();
    buffer_.resize(used_ + kMessageBytes);
    return buffer_.data() + used_;
  }
  void take() {
    const auto* header = reinterpret_cast<const nlmsghdr*>(buffer_.data() + used_);
    buffer_.resize(used_ + MNL_ALIGN(header->nlmsg_len));
  }

  std::uint32_t& sequence_;
  std::vector<char> buffer_;
  std::size_t used_ = 0;
};

void put_table(Transaction& batch, const std::string& name, std::uint16_t type) {
  const std::unique_ptr<nftnl_table, decltype([](nftnl_table* t) { ::nftnl_table_free(t); })> table(
      ::nftnl_table_alloc());
  ::nftnl_table_set_str(table.get(), NFTNL_TABLE_NAME, name.c_str());
  if (type == NFT_MSG_NEWTABLE)
    ::nftnl_table_set_u32(table.get(), NFTNL_TABLE_FLAGS, NFT_TABLE_F_OWNER);
  batch.add(type, type == NFT_MSG_NEWTABLE ? NLM_F_CREATE : 0,
            [&](nlmsghdr* header) { ::nftnl_table_nlmsg_build_payload(header, table.get()); });
}

void put_chain(Transaction& batch, const std::string& table, const char* name, const char* type,
               std::uint32_t priority) {
  const std::unique_ptr<nftnl_chain, decltype([](nftnl_chain* c) { ::nftnl_chain_free(c); })> chain(
      ::nftnl_chain_alloc());
  ::nftnl_chain_set_str(chain.get(), NFTNL_CHAIN_TABLE, table.c_str());
  ::nftnl_chain_set_str(chain.get(), NFTNL_CHAIN_NAME, name);
  ::nftnl_chain_set_str(chain.get(), NFTNL_CHAIN_TYPE, type);
  ::nftnl_chain_set_u32(chain.get(), NFTNL_CHAIN_HOOKNUM, NF_INET_LOCAL_OUT);
  ::nftnl_chain_set_u32(chain.get(), NFTNL_CHAIN_PRIO, priority);
  batch.add(NFT_MSG_NEWCHAIN, NLM_F_CREATE,
            [&](nlmsghdr* header) { ::nftnl_chain_nlmsg_build_payload(header, chain.get()); });
}

void put_rule(Transaction& batch, const Rule& rule) {
  batch.add(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND,
            [&](nlmsghdr* header) { ::nftnl_rule_nlmsg_build_payload(header, rule.get()); });
}

}  // namespace

void Redirect::Close::operator()(mnl_socket* socket) const { ::mnl_socket_close(socket); }
Redirect::~Redirect() = default;

Result<std::unique_ptr<Redirect>> Redirect::open(const std::string& name) {
  mnl_socket* socket = ::mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
  if (socket == nullptr)
    return std::unexpected(Error::from_errno("open a netlink socket to netfilter"));
  std::unique_ptr<Redirect> redirect(new Redirect(socket, name + "-" + std::to_string(::getpid())));
  if (::mnl_socket_bind(socket, 0, MNL_SOCKET_AUTOPID) < 0)
    return std::unexpected(Error::from_errno("bind a netlink socket to netfilter"));
  return redirect;
}

Result<void> Redirect::set(const What& what) {
  Transaction batch(sequence_);
  if (there_) put_table(batch, table_, NFT_MSG_DELTABLE);
  put_table(batch, table_, NFT_MSG_NEWTABLE);
  put_chain(batch, table_, kZoneChain, "filter", kRawPriority);
  put_rule(batch, zone_rule(table_, what));
  put_chain(batch, table_, kRedirectChain, "nat", kPriority);
  put_rule(batch, exempt_rule(table_, what));
  for (const Way& way : what.ways)
    for (const std::uint8_t protocol : {std::uint8_t{IPPROTO_UDP}, std::uint8_t{IPPROTO_TCP}})
      put_rule(batch, redirect_rule(table_, what, way, protocol));
  const auto bytes = batch.finish();
  if (::mnl_socket_sendto(socket_.get(), bytes.data(), bytes.size()) < 0)
    return std::unexpected(Error::from_errno("nftables: redirect DNS"));

  // The kernel has answered by now.
  std::vector<char> answers(kAnswerBytes);
  int error = ENOBUFS;
  bool first = true;
  for (;;) {
    const ssize_t n =
        ::recv(::mnl_socket_get_fd(socket_.get()), answers.data(), answers.size(), MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) break;
    auto length = static_cast<int>(n);
    for (const auto* answer = reinterpret_cast<const nlmsghdr*>(answers.data());
         ::mnl_nlmsg_ok(answer, length); answer = ::mnl_nlmsg_next(answer, &length)) {
      if (answer->nlmsg_type != NLMSG_ERROR || !first) continue;
      const auto* e = static_cast<const nlmsgerr*>(::mnl_nlmsg_get_payload(answer));
      error = -e->error;
      first = error == 0;
    }
  }
  if (error != 0)
    return std::unexpected(
        Error::from_errno("nftables: redirect DNS (needs Linux 5.12 with nft_redir, nft_socket and "
                          "zones of conntrack)",
                          error));
  there_ = true;
  return {};
}

}  // namespace egressd::nft
