#include "nft/rule.h"

#include <arpa/inet.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/xt_bpf.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>

#include <cstdio>
#include <cstdlib>
#include <utility>

namespace egressd::nft {
namespace {

constexpr std::uint32_t kLoopbackIfindex = 1;  // in every network namespace
constexpr std::uint8_t kTcpSyn = 0x02;
constexpr std::uint8_t kTcpRst = 0x04;
constexpr std::uint8_t kTcpAck = 0x10;

// Registers of a key: the first part in NFT_REG_1 (16 bytes), the next ones in those of four bytes
// right behind it.
std::uint32_t behind_address(bool v4) { return v4 ? NFT_REG32_01 : NFT_REG32_04; }

nftnl_expr* add(nftnl_rule* rule, const char* name) {
  nftnl_expr* expr = ::nftnl_expr_alloc(name);
  ::nftnl_rule_add_expr(rule, expr);
  return expr;
}

void payload(nftnl_rule* rule, std::uint32_t base, std::uint32_t offset, std::uint32_t length,
             std::uint32_t reg) {
  nftnl_expr* e = add(rule, "payload");
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_DREG, reg);
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_BASE, base);
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_OFFSET, offset);
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_LEN, length);
}

void meta(nftnl_rule* rule, std::uint32_t key, std::uint32_t reg) {
  nftnl_expr* e = add(rule, "meta");
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_META_KEY, key);
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_META_DREG, reg);
}

template <typename T>
void compare(nftnl_rule* rule, std::uint32_t op, const T& value, std::size_t length = sizeof(T)) {
  nftnl_expr* e = add(rule, "cmp");
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_CMP_SREG, NFT_REG_1);
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_CMP_OP, op);
  ::nftnl_expr_set(e, NFTNL_EXPR_CMP_DATA, &value, static_cast<std::uint32_t>(length));
}

template <typename T>
void mask(nftnl_rule* rule, const T& bits) {
  const T zero{};
  nftnl_expr* e = add(rule, "bitwise");
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_SREG, NFT_REG_1);
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_DREG, NFT_REG_1);
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_OP, NFT_BITWISE_BOOL);
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_LEN, sizeof(T));
  ::nftnl_expr_set(e, NFTNL_EXPR_BITWISE_MASK, &bits, sizeof(T));
  ::nftnl_expr_set(e, NFTNL_EXPR_BITWISE_XOR, &zero, sizeof(T));
}

}  // namespace

void Rule::Free::operator()(nftnl_rule* rule) const { ::nftnl_rule_free(rule); }

Rule::Rule() : rule_(::nftnl_rule_alloc()) {}
Rule::~Rule() = default;
Rule::Rule(Rule&&) noexcept = default;
Rule& Rule::operator=(Rule&&) noexcept = default;

void Rule::say(std::string_view words) {
  if (!text_.empty()) text_ += ' ';
  text_ += words;
}

// meta nfproto ipv4|ipv6
void Rule::need(Family family) {
  if (family_ == family) return;
  family_ = family;
  const std::uint8_t number = family == Family::V4 ? NFPROTO_IPV4 : NFPROTO_IPV6;
  meta(rule_.get(), NFT_META_NFPROTO, NFT_REG_1);
  compare(rule_.get(), NFT_CMP_EQ, number);
}

// meta l4proto tcp
void Rule::need_tcp() {
  if (std::exchange(tcp_, true)) return;
  meta(rule_.get(), NFT_META_L4PROTO, NFT_REG_1);
  compare(rule_.get(), NFT_CMP_EQ, static_cast<std::uint8_t>(IPPROTO_TCP));
}

void Rule::load_address(bool v4, bool source, std::uint32_t reg) {
  need(v4 ? Family::V4 : Family::V6);
  if (v4)
    payload(rule_.get(), NFT_PAYLOAD_NETWORK_HEADER, source ? 12 : 16, 4, reg);
  else
    payload(rule_.get(), NFT_PAYLOAD_NETWORK_HEADER, source ? 8 : 24, 16, reg);
}

void Rule::look_up(std::string_view set, std::uint32_t reg, bool inverted) {
  nftnl_expr* e = add(rule_.get(), "lookup");
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_LOOKUP_SREG, reg);
  ::nftnl_expr_set_str(e, NFTNL_EXPR_LOOKUP_SET, std::string(set).c_str());
  if (inverted) ::nftnl_expr_set_u32(e, NFTNL_EXPR_LOOKUP_FLAGS, NFT_LOOKUP_F_INV);
}

// oif "lo"
Rule&& Rule::oif_loopback() && {
  say("oif \"lo\"");
  meta(rule_.get(), NFT_META_OIF, NFT_REG_1);
  compare(rule_.get(), NFT_CMP_EQ, kLoopbackIfindex);
  return std::move(*this);
}

// iif != 0: nothing came in by an interface whose number is 0
Rule&& Rule::from_outside() && {
  say("iif != 0");
  meta(rule_.get(), NFT_META_IIF, NFT_REG_1);
  compare(rule_.get(), NFT_CMP_NEQ, std::uint32_t{0});
  return std::move(*this);
}

// iifname @SET
Rule&& Rule::came_in_by(std::string_view set) && {
  say("iifname @" + std::string(set));
  meta(rule_.get(), NFT_META_IIFNAME, NFT_REG_1);
  look_up(set, NFT_REG_1);
  return std::move(*this);
}

// fib saddr type local
Rule&& Rule::source_is_local(bool yes) && {
  say(yes ? "fib saddr type local" : "fib saddr type != local");
  nftnl_expr* e = add(rule_.get(), "fib");
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_FIB_DREG, NFT_REG_1);
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_FIB_FLAGS, NFTA_FIB_F_SADDR);
  compare(rule_.get(), yes ? NFT_CMP_EQ : NFT_CMP_NEQ, std::uint32_t{RTN_LOCAL});
  return std::move(*this);
}

// fib daddr type TYPE
Rule&& Rule::destination_is(std::uint32_t type) && {
  say(std::string("fib daddr type ") + (type == RTN_LOCAL       ? "local"
                                        : type == RTN_BROADCAST ? "broadcast"
                                                                : "multicast"));
  nftnl_expr* e = add(rule_.get(), "fib");
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_FIB_DREG, NFT_REG_1);
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_FIB_FLAGS, NFTA_FIB_F_DADDR);
  compare(rule_.get(), NFT_CMP_EQ, type);
  return std::move(*this);
}

// fib saddr . iif oif exists
Rule&& Rule::source_is_that_way() && {
  say("fib saddr . iif oif exists");
  nftnl_expr* e = add(rule_.get(), "fib");
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_FIB_DREG, NFT_REG_1);
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_FIB_RESULT, NFT_FIB_RESULT_OIF);
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_FIB_FLAGS,
                       NFTA_FIB_F_SADDR | NFTA_FIB_F_IIF | NFTA_FIB_F_PRESENT);
  compare(rule_.get(), NFT_CMP_EQ, std::uint32_t{1});
  return std::move(*this);
}

// ip daddr @SET
Rule&& Rule::address_in(bool v4, bool source, std::string_view set) && {
  say(std::string(v4 ? "ip " : "ip6 ") + (source ? "saddr @" : "daddr @") + std::string(set));
  load_address(v4, source, NFT_REG_1);
  look_up(set, NFT_REG_1);
  return std::move(*this);
}

// ip daddr ADDRESS
Rule&& Rule::to_prefix4(std::uint32_t host_order) && {
  char text[INET_ADDRSTRLEN] = {};
  const std::uint32_t address = htonl(host_order);
  ::inet_ntop(AF_INET, &address, text, sizeof(text));
  say(std::string("ip daddr ") + text);
  load_address(true, false, NFT_REG_1);
  compare(rule_.get(), NFT_CMP_EQ, address);
  return std::move(*this);
}

// ip6 daddr ADDRESS/LENGTH
Rule&& Rule::to_prefix6(std::string_view address, std::uint32_t bytes) && {
  say("ip6 daddr " + std::string(address) + "/" + std::to_string(bytes * 8));
  in6_addr value{};
  ::inet_pton(AF_INET6, std::string(address).c_str(), &value);
  need(Family::V6);
  payload(rule_.get(), NFT_PAYLOAD_NETWORK_HEADER, 24, bytes, NFT_REG_1);
  compare(rule_.get(), NFT_CMP_EQ, value, bytes);
  return std::move(*this);
}

// meta l4proto PROTOCOL
Rule&& Rule::protocol(net::Protocol protocol) && {
  const auto number = static_cast<std::uint8_t>(protocol);
  say("meta l4proto " + net::to_string(protocol));
  meta(rule_.get(), NFT_META_L4PROTO, NFT_REG_1);
  compare(rule_.get(), NFT_CMP_EQ, number);
  tcp_ = protocol == net::Protocol::Tcp;
  return std::move(*this);
}

// meta l4proto @SET
Rule&& Rule::protocol_in(std::string_view set, bool inverted) && {
  say(std::string("meta l4proto ") + (inverted ? "!= @" : "@") + std::string(set));
  meta(rule_.get(), NFT_META_L4PROTO, NFT_REG_1);
  look_up(set, NFT_REG_1, inverted);
  return std::move(*this);
}

// th dport FIRST-LAST
Rule&& Rule::port(std::uint16_t first, std::uint16_t last) && {
  say("th dport " + std::to_string(first) + (first == last ? "" : "-" + std::to_string(last)));
  payload(rule_.get(), NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, NFT_REG_1);
  const std::uint16_t from = htons(first);
  const std::uint16_t to = htons(last);
  if (first == last) {
    compare(rule_.get(), NFT_CMP_EQ, from);
  } else {
    compare(rule_.get(), NFT_CMP_GTE, from);
    compare(rule_.get(), NFT_CMP_LTE, to);
  }
  return std::move(*this);
}

// th dport @SET
Rule&& Rule::port_in(std::string_view set) && {
  say("th dport @" + std::string(set));
  payload(rule_.get(), NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, NFT_REG_1);
  look_up(set, NFT_REG_1);
  return std::move(*this);
}

// ip daddr . meta l4proto . th dport @SET
Rule&& Rule::flow_in(bool v4, std::string_view set) && {
  say(std::string(v4 ? "ip" : "ip6") + " daddr . meta l4proto . th dport @" + std::string(set));
  const std::uint32_t next = behind_address(v4);
  load_address(v4, false, NFT_REG_1);
  meta(rule_.get(), NFT_META_L4PROTO, next);
  payload(rule_.get(), NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, next + 1);
  look_up(set, NFT_REG_1);
  return std::move(*this);
}

// ip daddr . meta l4proto . th sport @SET
Rule&& Rule::source_flow_in(bool v4, std::string_view set) && {
  say(std::string(v4 ? "ip" : "ip6") + " daddr . meta l4proto . th sport @" + std::string(set));
  const std::uint32_t next = behind_address(v4);
  load_address(v4, false, NFT_REG_1);
  meta(rule_.get(), NFT_META_L4PROTO, next);
  payload(rule_.get(), NFT_PAYLOAD_TRANSPORT_HEADER, 0, 2, next + 1);
  look_up(set, NFT_REG_1);
  return std::move(*this);
}

// ip hdrlength != 5
Rule&& Rule::ip_options() && {
  say("ip hdrlength != 5");
  need(Family::V4);
  payload(rule_.get(), NFT_PAYLOAD_NETWORK_HEADER, 0, 1, NFT_REG_1);
  mask(rule_.get(), std::uint8_t{0x0f});
  compare(rule_.get(), NFT_CMP_NEQ, std::uint8_t{5});
  return std::move(*this);
}

// ip frag-off & 0x3fff != 0x0
Rule&& Rule::ip_fragment() && {
  say("ip frag-off & 0x3fff != 0x0");
  need(Family::V4);
  payload(rule_.get(), NFT_PAYLOAD_NETWORK_HEADER, 6, 2, NFT_REG_1);
  mask(rule_.get(), htons(0x3fff));
  compare(rule_.get(), NFT_CMP_NEQ, std::uint16_t{0});
  return std::move(*this);
}

// exthdr TYPE exists
Rule&& Rule::extension(std::uint8_t type) && {
  say(std::string("exthdr ") + (type == IPPROTO_ROUTING ? "rt" : "frag") + " exists");
  need(Family::V6);
  nftnl_expr* e = add(rule_.get(), "exthdr");
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_EXTHDR_DREG, NFT_REG_1);
  ::nftnl_expr_set_u8(e, NFTNL_EXPR_EXTHDR_TYPE, type);
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_EXTHDR_OFFSET, 0);
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_EXTHDR_LEN, 1);
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_EXTHDR_FLAGS, NFT_EXTHDR_F_PRESENT);
  compare(rule_.get(), NFT_CMP_EQ, std::uint32_t{1});
  return std::move(*this);
}

// ct direction reply
Rule&& Rule::reply_direction() && {
  constexpr std::uint8_t kReply = 1;  // IP_CT_DIR_REPLY
  say("ct direction reply");
  nftnl_expr* e = add(rule_.get(), "ct");
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_CT_KEY, NFT_CT_DIRECTION);
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_CT_DREG, NFT_REG_1);
  compare(rule_.get(), NFT_CMP_EQ, kReply);
  return std::move(*this);
}

// tcp flags & (syn | ack) == syn
Rule&& Rule::opening() && {
  say("tcp flags & (syn | ack) == syn");
  need_tcp();
  payload(rule_.get(), NFT_PAYLOAD_TRANSPORT_HEADER, 13, 1, NFT_REG_1);
  mask(rule_.get(), static_cast<std::uint8_t>(kTcpSyn | kTcpAck));
  compare(rule_.get(), NFT_CMP_EQ, kTcpSyn);
  return std::move(*this);
}

// tcp flags & (syn | ack) == syn | ack
Rule&& Rule::accepting() && {
  constexpr std::uint8_t kBoth = kTcpSyn | kTcpAck;
  say("tcp flags & (syn | ack) == syn | ack");
  need_tcp();
  payload(rule_.get(), NFT_PAYLOAD_TRANSPORT_HEADER, 13, 1, NFT_REG_1);
  mask(rule_.get(), kBoth);
  compare(rule_.get(), NFT_CMP_EQ, kBoth);
  return std::move(*this);
}

// tcp flags & rst == rst
Rule&& Rule::reset() && {
  say("tcp flags & rst == rst");
  need_tcp();
  payload(rule_.get(), NFT_PAYLOAD_TRANSPORT_HEADER, 13, 1, NFT_REG_1);
  mask(rule_.get(), kTcpRst);
  compare(rule_.get(), NFT_CMP_EQ, kTcpRst);
  return std::move(*this);
}

// ct status dnat
Rule&& Rule::redirected() && {
  say("ct status dnat");
  nftnl_expr* e = add(rule_.get(), "ct");
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_CT_KEY, NFT_CT_STATUS);
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_CT_DREG, NFT_REG_1);
  mask(rule_.get(), std::uint32_t{IPS_DST_NAT});
  compare(rule_.get(), NFT_CMP_NEQ, std::uint32_t{0});
  return std::move(*this);
}

void Rule::connection_state(std::uint32_t bit) {
  nftnl_expr* e = add(rule_.get(), "ct");
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_CT_KEY, NFT_CT_STATE);
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_CT_DREG, NFT_REG_1);
  mask(rule_.get(), bit);
  compare(rule_.get(), NFT_CMP_NEQ, std::uint32_t{0});
}

// ct state established
Rule&& Rule::established() && {
  say("ct state established");
  connection_state(NF_CT_STATE_BIT(IP_CT_ESTABLISHED));
  return std::move(*this);
}

// ct state related
Rule&& Rule::related() && {
  say("ct state related");
  connection_state(NF_CT_STATE_BIT(IP_CT_RELATED));
  return std::move(*this);
}

// xt match "bpf"
Rule&& Rule::program(int fd) && {
  say("xt match \"bpf\"");
  nftnl_expr* e = add(rule_.get(), "match");
  ::nftnl_expr_set_str(e, NFTNL_EXPR_MT_NAME, "bpf");
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_MT_REV, 1);
  // The expression frees it.
  auto* info = static_cast<xt_bpf_info_v1*>(std::calloc(1, sizeof(xt_bpf_info_v1)));
  if (info == nullptr) return std::move(*this);  // the kernel refuses a match without
  info->mode = XT_BPF_MODE_FD_ELF;
  info->fd = fd;
  ::nftnl_expr_set(e, NFTNL_EXPR_MT_INFO, info, sizeof(*info));
  return std::move(*this);
}

// meta skuid != 4294967295
Rule&& Rule::has_user() && {
  say("meta skuid != 4294967295");
  meta(rule_.get(), NFT_META_SKUID, NFT_REG_1);
  compare(rule_.get(), NFT_CMP_NEQ, std::uint32_t{0xffffffff});
  return std::move(*this);
}

// meta skuid UID
Rule&& Rule::user(std::uint32_t uid) && {
  say("meta skuid " + std::to_string(uid));
  meta(rule_.get(), NFT_META_SKUID, NFT_REG_1);
  compare(rule_.get(), NFT_CMP_EQ, uid);
  return std::move(*this);
}

// meta mark MARK
Rule&& Rule::mark(std::uint32_t mark) && {
  say("meta mark " + std::to_string(mark));
  meta(rule_.get(), NFT_META_MARK, NFT_REG_1);
  compare(rule_.get(), NFT_CMP_EQ, mark);
  return std::move(*this);
}

// meta nfproto @SET
Rule&& Rule::family_in(std::string_view set) && {
  say("meta nfproto @" + std::string(set));
  meta(rule_.get(), NFT_META_NFPROTO, NFT_REG_1);
  look_up(set, NFT_REG_1);
  return std::move(*this);
}

// socket cgroupv2 level LEVEL ID
Rule&& Rule::cgroup(std::uint32_t level, std::uint64_t id) && {
  say("socket cgroupv2 level " + std::to_string(level) + " " + std::to_string(id));
  nftnl_expr* e = add(rule_.get(), "socket");
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_SOCKET_KEY, NFT_SOCKET_CGROUPV2);
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_SOCKET_DREG, NFT_REG_1);
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_SOCKET_LEVEL, level);
  compare(rule_.get(), NFT_CMP_EQ, id);
  return std::move(*this);
}

// counter name "NAME"
Rule&& Rule::counter(std::string_view name) && {
  say("counter name \"" + std::string(name) + "\"");
  nftnl_expr* e = add(rule_.get(), "objref");
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_OBJREF_IMM_TYPE, NFT_OBJECT_COUNTER);
  ::nftnl_expr_set_str(e, NFTNL_EXPR_OBJREF_IMM_NAME, std::string(name).c_str());
  return std::move(*this);
}

// log prefix "PREFIX" group GROUP snaplen SNAPLEN
Rule&& Rule::log(std::string_view prefix, std::uint16_t group, std::uint32_t snaplen) && {
  say("log prefix \"" + std::string(prefix) + "\" group " + std::to_string(group) + " snaplen " +
      std::to_string(snaplen));
  nftnl_expr* e = add(rule_.get(), "log");
  ::nftnl_expr_set_str(e, NFTNL_EXPR_LOG_PREFIX, std::string(prefix).c_str());
  ::nftnl_expr_set_u16(e, NFTNL_EXPR_LOG_GROUP, group);
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_LOG_SNAPLEN, snaplen);
  return std::move(*this);
}

// ip daddr vmap @MAP
Rule&& Rule::to_chain_of(bool v4, std::string_view map) && {
  say(std::string(v4 ? "ip" : "ip6") + " daddr vmap @" + std::string(map));
  load_address(v4, false, NFT_REG_1);
  nftnl_expr* e = add(rule_.get(), "lookup");
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_LOOKUP_SREG, NFT_REG_1);
  ::nftnl_expr_set_str(e, NFTNL_EXPR_LOOKUP_SET, std::string(map).c_str());
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_LOOKUP_DREG, NFT_REG_VERDICT);
  return std::move(*this);
}

void Rule::verdict(std::int32_t code, std::string_view chain) {
  nftnl_expr* e = add(rule_.get(), "immediate");
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_VERDICT, static_cast<std::uint32_t>(code));
  if (!chain.empty()) ::nftnl_expr_set_str(e, NFTNL_EXPR_IMM_CHAIN, std::string(chain).c_str());
}

Rule&& Rule::accept() && {
  say("accept");
  verdict(NF_ACCEPT, "");
  return std::move(*this);
}

Rule&& Rule::drop() && {
  say("drop");
  verdict(NF_DROP, "");
  return std::move(*this);
}

// return
Rule&& Rule::back() && {
  say("return");
  verdict(NFT_RETURN, "");
  return std::move(*this);
}

Rule&& Rule::jump(std::string_view chain) && {
  say("jump " + std::string(chain));
  verdict(NFT_JUMP, chain);
  return std::move(*this);
}

// goto CHAIN
Rule&& Rule::go_to(std::string_view chain) && {
  say("goto " + std::string(chain));
  verdict(NFT_GOTO, chain);
  return std::move(*this);
}

// meta l4proto tcp reject with tcp reset
Rule&& Rule::reject_tcp_reset() && {
  need_tcp();
  say("reject with tcp reset");
  nftnl_expr* e = add(rule_.get(), "reject");
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_REJECT_TYPE, NFT_REJECT_TCP_RST);
  ::nftnl_expr_set_u8(e, NFTNL_EXPR_REJECT_CODE, 0);
  return std::move(*this);
}

// reject with icmpx admin-prohibited
Rule&& Rule::reject_prohibited() && {
  say("reject with icmpx admin-prohibited");
  nftnl_expr* e = add(rule_.get(), "reject");
  ::nftnl_expr_set_u32(e, NFTNL_EXPR_REJECT_TYPE, NFT_REJECT_ICMPX_UNREACH);
  ::nftnl_expr_set_u8(e, NFTNL_EXPR_REJECT_CODE, NFT_REJECT_ICMPX_ADMIN_PROHIBITED);
  return std::move(*this);
}

}  // namespace egressd::nft
