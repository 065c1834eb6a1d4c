#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "net/endpoint.h"

struct nftnl_rule;

namespace egressd::nft {

// One rule, built statement by statement, left to right as nft writes it; text() is what nft would
// show. What a match takes for granted (`ip daddr`: that it is IPv4) is put in front of it, once.
//
//   Rule().oif_loopback().ip_saddr_in("local4").ip_daddr_in("local4").counter("loopback").accept();
class Rule {
 public:
  Rule();
  ~Rule();
  Rule(Rule&&) noexcept;
  Rule& operator=(Rule&&) noexcept;
  Rule(const Rule&) = delete;
  Rule& operator=(const Rule&) = delete;

  // matches
  Rule&& oif_loopback() &&;
  Rule&& from_outside() &&;                    // it came in by an interface: forwarded
  Rule&& came_in_by(std::string_view set) &&;  // iifname @…
  // Of this host, or not: fib saddr type local, fib saddr type != local
  Rule&& source_is_local(bool yes) &&;
  // Where its source is to be reached, it came from: fib saddr . iif oif exists. Not at output.
  Rule&& source_is_that_way() &&;
  // fib daddr type TYPE: RTN_LOCAL, RTN_BROADCAST, RTN_MULTICAST
  Rule&& destination_is(std::uint32_t type) &&;
  Rule&& address_in(bool v4, bool source, std::string_view set) &&;
  Rule&& to_prefix4(std::uint32_t host_order) &&;  // ip daddr ADDRESS
  // ip6 daddr ADDRESS/LENGTH; the length in bytes
  Rule&& to_prefix6(std::string_view address, std::uint32_t bytes) &&;
  Rule&& protocol(net::Protocol protocol) &&;  // meta l4proto …
  Rule&& protocol_in(std::string_view set, bool inverted = false) &&;
  Rule&& port(std::uint16_t first, std::uint16_t last) &&;  // th dport …
  Rule&& port_in(std::string_view set) &&;
  Rule&& flow_in(bool v4, std::string_view set) &&;         // daddr . l4proto . dport @…
  Rule&& source_flow_in(bool v4, std::string_view set) &&;  // daddr . l4proto . sport @…
  Rule&& ip_options() &&;                                   // ip hdrlength != 5
  Rule&& ip_fragment() &&;                                  // ip frag-off & 0x3fff != 0x0
  Rule&& extension(std::uint8_t type) &&;                   // exthdr rt exists, exthdr frag exists
  Rule&& reply_direction() &&;                              // ct direction reply
  Rule&& opening() &&;                                      // tcp flags & (syn | ack) == syn
  Rule&& accepting() &&;                                    // tcp flags & (syn | ack) == syn | ack
  Rule&& reset() &&;                                        // tcp flags & rst == rst
  Rule&& redirected() &&;                                   // ct status dnat
  Rule&& established() &&;                                  // ct state established
  Rule&& related() &&;                                      // ct state related
  // What this program of type socket_filter returns not 0 for: xt match "bpf". The rule keeps the
  // program; nft shows it, but cannot read it back.
  Rule&& program(int fd) &&;
  // Of a process, not of the kernel itself: only those sockets have a user.
  Rule&& has_user() &&;                                     // meta skuid != 4294967295
  Rule&& user(std::uint32_t uid) &&;                        // meta skuid UID
  Rule&& mark(std::uint32_t mark) &&;                       // meta mark MARK
  Rule&& family_in(std::string_view set) &&;                // meta nfproto @…
  Rule&& cgroup(std::uint32_t level, std::uint64_t id) &&;  // socket cgroupv2 level N ID

  // statements
  Rule&& counter(std::string_view name) &&;
  // prefix: at most 126 bytes. snaplen: bytes of the packet that are handed over.
  Rule&& log(std::string_view prefix, std::uint16_t group, std::uint32_t snaplen) &&;

  // verdicts
  Rule&& to_chain_of(bool v4, std::string_view map) &&;  // ip daddr vmap @…
  Rule&& accept() &&;
  Rule&& drop() &&;
  Rule&& back() &&;  // return
  Rule&& jump(std::string_view chain) &&;
  Rule&& go_to(std::string_view chain) &&;
  Rule&& reject_tcp_reset() &&;
  Rule&& reject_prohibited() &&;  // ICMP or ICMPv6, administratively prohibited

  [[nodiscard]] const std::string& text() const { return text_; }
  [[nodiscard]] nftnl_rule* get() const { return rule_.get(); }

 private:
  struct Free {
    void operator()(nftnl_rule* rule) const;
  };
  enum class Family : std::uint8_t { None, V4, V6 };

  void say(std::string_view words);
  void need(Family family);
  void need_tcp();
  void connection_state(std::uint32_t bit);
  void load_address(bool v4, bool source, std::uint32_t reg);
  void look_up(std::string_view set, std::uint32_t reg, bool inverted = false);
  void verdict(std::int32_t code, std::string_view chain);

  std::unique_ptr<nftnl_rule, Free> rule_;
  std::string text_;
  Family family_ = Family::None;
  bool tcp_ = false;
};

}  // namespace egressd::nft
