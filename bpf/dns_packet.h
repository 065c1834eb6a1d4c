/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* From packets to messages: UDP datagrams, where a packet belongs, and which servers are trusted.
 */
#ifndef EGRESSD_DNS_PACKET_H
#define EGRESSD_DNS_PACKET_H

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "dns_message.h"
#include "dns_stream.h"
#include "packet.h"

#define DNS_PORT       53
/* The loopback device in every network namespace: whoever may send raw packets forges there. */
#define DNS_LO_IFINDEX 1

/* One datagram at l4 (UDP header) to a trusted resolver. */
__weak __noinline int dns_out_udp(struct __sk_buff *skb, __u32 l4, __u32 slot, __u64 cookie)
{
	struct dns_scratch *s = dns_work(EGRESSD_DNS_OUT);
	__u32 turn, have = skb->len;
	__be16 udp_len;
	__u64 n, token;
	int r;

	if (!s)
		return DNS_DROP;
	for (turn = 0; turn < 2; turn++) {
		token = dns_take_token(s);
		s->len = 0;
		/* Segmentation offload: one packet, many datagrams, of which we would see one. */
		if (skb->gso_size || dns_borrowed(skb))
			return dns_refuse(skb, slot, EGRESSD_DNS_DENIED_MALFORMED, IPPROTO_UDP);
		if (bpf_skb_load_bytes(skb, l4 + 4, &udp_len, sizeof(udp_len)) ||
		    l4 + bpf_ntohs(udp_len) != have)
			return dns_refuse(skb, slot, EGRESSD_DNS_DENIED_MALFORMED, IPPROTO_UDP);
		n = have - l4 - 8;
		if (n - 1 >= EGRESSD_DNS_MSG_MAX)
			return dns_refuse(skb, slot, EGRESSD_DNS_DENIED_MALFORMED, IPPROTO_UDP);
		if (bpf_skb_load_bytes(skb, l4 + 8, s->msg, DNS_SIZE(n, EGRESSD_DNS_MSG_MAX)))
			return dns_refuse(skb, slot, EGRESSD_DNS_DENIED_MALFORMED, IPPROTO_UDP);
		s->len = n;
		r = dns_ask(skb, slot, cookie, token, IPPROTO_UDP);
		if (r != 2)
			return r;
	}
	return dns_refuse(skb, slot, EGRESSD_DNS_DENIED_RACE, IPPROTO_UDP);
}

__weak __noinline int dns_in_udp(struct __sk_buff *skb, __u32 l4, __u32 slot, __u64 cookie,
				 __u32 netns)
{
	struct dns_scratch *s = dns_work(EGRESSD_DNS_IN);
	__u32 have = skb->len, end;
	__be16 udp_len;
	__u64 n;

	if (!s)
		return 0;
	if (bpf_skb_load_bytes(skb, l4 + 4, &udp_len, sizeof(udp_len))) {
		dns_count(EGRESSD_DNS_SHORT);
		return EGRESSD_DNS_SHORT;
	}
	end = bpf_ntohs(udp_len);
	if (l4 + end > have || end < 8 + 12) {
		dns_count(EGRESSD_DNS_SHORT);
		return EGRESSD_DNS_SHORT;
	}
	n = end - 8;
	s->oversize = 0;
	if (n > EGRESSD_DNS_MSG_MAX) {
		n = EGRESSD_DNS_MSG_MAX;
		s->oversize = 1;
	}
	if (n - 1 >= EGRESSD_DNS_MSG_MAX ||
	    bpf_skb_load_bytes(skb, l4 + 8, s->msg, DNS_SIZE(n, EGRESSD_DNS_MSG_MAX))) {
		dns_count(EGRESSD_DNS_SHORT);
		return EGRESSD_DNS_SHORT;
	}
	s->len = n;
	return dns_in_message(skb, slot, cookie, netns, IPPROTO_UDP);
}

/*
 * As egressd_parse(), but does not walk IPv6 extension headers: a question behind them is refused,
 * an answer teaches nothing. 6.1 takes the walk here for an endless loop ("back-edge": clang puts
 * the helper call last in the loop, and its CFG check forbids to fall from a call into the head).
 */
static __always_inline __u32 dns_parse(struct __sk_buff *skb, struct egressd_packet *p)
{
	struct ipv6hdr ip;

	__builtin_memset(p, 0, sizeof(*p));
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return egressd_parse4(skb, p);
	if (skb->protocol != bpf_htons(ETH_P_IPV6) || bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)))
		return EGRESSD_DENY_MALFORMED;
	p->family = AF_INET6;
	__builtin_memcpy(p->saddr.addr, &ip.saddr, 16);
	__builtin_memcpy(p->daddr.addr, &ip.daddr, 16);
	p->proto = ip.nexthdr;
	p->l4 = sizeof(ip);
	if (ip.nexthdr != IPPROTO_UDP && ip.nexthdr != IPPROTO_TCP && ip.nexthdr != IPPROTO_ICMPV6)
		return EGRESSD_DENY_MALFORMED;
	return egressd_parse_ports(skb, p);
}

/*
 * Where a packet goes from here: protocol in bits 0..7, offset of its transport header above, or
 * one of these. Apart from what follows, so that its stack is free again: 6.1 allows 512 bytes for
 * all frames together and rounds each up.
 */
#define DNS_ROUTE_NONE 0	 /* nothing of ours */
#define DNS_ROUTE_ODD  (1 << 30) /* to a resolver, but what it asks cannot be seen */

__weak __noinline int dns_out_route(struct __sk_buff *skb, __u32 slot)
{
	struct dns_scratch *s = dns_work(EGRESSD_DNS_OUT);
	const struct egressd_dns_server *server;
	struct egressd_packet p;
	__u32 error;

	if (!s)
		return DNS_ROUTE_NONE;
	error = dns_parse(skb, &p);
	server = bpf_map_lookup_elem(&egressd_dserver, &p.daddr);
	if (!server || !(server->slots & 1u << (slot & 31)))
		return DNS_ROUTE_NONE; /* whether it may leave is the packet verdict's to say */
	if (!error &&
	    (p.dport != bpf_htons(DNS_PORT) || (p.proto != IPPROTO_UDP && p.proto != IPPROTO_TCP)))
		return DNS_ROUTE_NONE;
	s->event.server = p.daddr;
	s->event.netns = 0;
	if (error)
		return DNS_ROUTE_ODD | p.proto;
	return p.l4 << 8 | p.proto;
}

/* Something to port 53, or whose port cannot be told at a glance. */
static __always_inline int dns_out_packet(struct __sk_buff *skb, __u64 cookie)
{
	struct dns_scratch *s = dns_work(EGRESSD_DNS_OUT);
	const struct egressd_dns_config *cfg;
	__u32 slot, proto;
	int route;

	slot = dns_slot();
	cfg = bpf_map_lookup_elem(&egressd_dconfig, &slot);
	if (!s || !cfg || !cfg->enabled)
		return DNS_PASS;
	route = dns_out_route(skb, slot);
	if (route == DNS_ROUTE_NONE)
		return DNS_PASS;
	proto = route & 0xff;
	if (route & DNS_ROUTE_ODD) {
		return dns_refuse_unread(skb, s, slot, EGRESSD_DNS_DENIED_MALFORMED, proto);
	}
	if (proto == IPPROTO_UDP)
		return dns_out_udp(skb, (__u32)route >> 8, slot, cookie);
	return dns_out_tcp(skb, (__u32)route >> 8, slot, cookie);
}

/* As dns_out_route(), of a packet from a resolver; none unless server and link are trusted. */
__weak __noinline int dns_in_route(struct __sk_buff *skb, __u32 slot, __u32 netns)
{
	struct dns_scratch *s = dns_work(EGRESSD_DNS_IN);
	const struct egressd_dns_server *server;
	struct egressd_dns_link link;
	struct egressd_packet p;
	const __u32 *known;
	__u32 links = 0;

	if (!s || dns_parse(skb, &p) || p.sport != bpf_htons(DNS_PORT))
		return DNS_ROUTE_NONE;
	if (p.proto != IPPROTO_UDP && p.proto != IPPROTO_TCP)
		return DNS_ROUTE_NONE;
	server = bpf_map_lookup_elem(&egressd_dserver, &p.saddr);
	if (!server || !(server->slots & 1u << (slot & 31))) {
		dns_count(EGRESSD_DNS_NOT_TRUSTED_SERVER);
		return DNS_ROUTE_NONE;
	}
	link.netns = netns ? netns : dns_netns(skb);
	link.ifindex = skb->ifindex;
	known = bpf_map_lookup_elem(&egressd_dlinks, &link);
	if (known)
		links = *known;
	else if (link.ifindex != DNS_LO_IFINDEX && dns_host_owned(skb))
		links = EGRESSD_DNS_LINK_POD;
	if (!link.netns || !(links & server->links)) {
		dns_count(EGRESSD_DNS_NOT_TRUSTED_LINK);
		return DNS_ROUTE_NONE;
	}
	s->ifindex = link.ifindex;
	s->event.server = p.saddr;
	s->event.netns = link.netns;
	return p.l4 << 8 | p.proto;
}

/* Something from port 53. cookie and netns 0: the packet's own. Returns DNS_DROP or DNS_PASS. */
static __always_inline int dns_in_packet(struct __sk_buff *skb, __u64 cookie, __u32 netns)
{
	struct dns_scratch *s = dns_work(EGRESSD_DNS_IN);
	const struct egressd_dns_config *cfg;
	__u32 slot;
	int route;

	slot = dns_slot();
	cfg = bpf_map_lookup_elem(&egressd_dconfig, &slot);
	if (!s || !cfg || !cfg->enabled)
		return DNS_PASS;
	route = dns_in_route(skb, slot, netns);
	if (route == DNS_ROUTE_NONE)
		return DNS_PASS;
	if ((route & 0xff) == IPPROTO_TCP)
		return dns_in_tcp(skb, (__u32)route >> 8, slot, cookie, s->event.netns);
	dns_in_udp(skb, (__u32)route >> 8, slot, cookie, s->event.netns);
	return DNS_PASS;
}

/*
 * True if the packet is plainly no DNS: what nearly every packet is, so it must cost nothing. Reads
 * the headers in place; what is not there, or unusual, is left to the functions above.
 * port_at: 0 for the source port, 2 for the destination port.
 */
static __always_inline int dns_plainly_not(struct __sk_buff *skb, __u32 port_at)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	const __u8 *h = data;
	__u8 proto;

	if (data + 28 > end)
		return 0;
	if (h[0] == 0x45) {
		proto = h[9];
		if (*(const __be16 *)(h + 6) & bpf_htons(0x3fff))
			return 0;
		if (proto == IPPROTO_TCP || proto == IPPROTO_UDP)
			return *(const __be16 *)(h + 20 + port_at) != bpf_htons(DNS_PORT);
		return 1;
	}
	if (h[0] >> 4 != 6 || data + 48 > end)
		return 0;
	proto = h[6];
	if (proto == IPPROTO_TCP || proto == IPPROTO_UDP)
		return *(const __be16 *)(h + 40 + port_at) != bpf_htons(DNS_PORT);
	return proto == IPPROTO_ICMPV6;
}

#endif /* EGRESSD_DNS_PACKET_H */
