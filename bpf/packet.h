/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The bounded header walk of cgroup_skb programs, where a packet starts at its IP header and is
 * not fragmented yet. What cannot be parsed is refused by name, never guessed.
 */
#ifndef EGRESSD_PACKET_H
#define EGRESSD_PACKET_H

#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "egressd_abi.h"

#ifndef AF_INET
#define AF_INET	 2
#define AF_INET6 10
#endif

/* IPv6 extension headers walked; one more is refused. RFC 8200 4.1 lists six kinds. */
#define EGRESSD_MAX_EXT 6

struct egressd_packet {
	struct egressd_addr saddr;
	struct egressd_addr daddr;
	__be16 sport; /* 0 for protocols without ports */
	__be16 dport;
	__u8 proto;
	__u8 family;
	__u8 pad[2];
	__u32 l4; /* offset of the transport header from the IP header */
};

/* Ports of TCP, UDP, UDP-Lite, SCTP and DCCP stand in the first four bytes alike. */
static __always_inline int egressd_has_ports(__u32 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_UDPLITE ||
	       proto == IPPROTO_SCTP || proto == IPPROTO_DCCP;
}

static __always_inline __u32 egressd_parse_ports(struct __sk_buff *skb, struct egressd_packet *p)
{
	__be16 ports[2];

	p->sport = 0;
	p->dport = 0;
	if (!egressd_has_ports(p->proto))
		return 0;
	if (bpf_skb_load_bytes(skb, p->l4, ports, sizeof(ports)))
		return EGRESSD_DENY_MALFORMED;
	p->sport = ports[0];
	p->dport = ports[1];
	return 0;
}

static __always_inline __u32 egressd_parse4(struct __sk_buff *skb, struct egressd_packet *p)
{
	struct iphdr ip;
	__u32 *s = (void *)p->saddr.addr, *d = (void *)p->daddr.addr;

	if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)))
		return EGRESSD_DENY_MALFORMED;
	/*
	 * No IP options: source routes hide the real destination, and nothing that egressd lets
	 * out needs one.
	 */
	if (ip.version != 4 || ip.ihl != 5)
		return EGRESSD_DENY_MALFORMED;
	p->family = AF_INET;
	p->proto = ip.protocol;
	p->l4 = sizeof(ip);
	s[0] = 0;
	s[1] = 0;
	s[2] = bpf_htonl(0xffff);
	s[3] = ip.saddr;
	d[0] = 0;
	d[1] = 0;
	d[2] = bpf_htonl(0xffff);
	d[3] = ip.daddr;
	/* The kernel fragments after this hook: a fragment here was made by a raw socket. */
	if (ip.frag_off & bpf_htons(0x3fff))
		return EGRESSD_DENY_FRAGMENT;
	return egressd_parse_ports(skb, p);
}

static __always_inline __u32 egressd_parse6(struct __sk_buff *skb, struct egressd_packet *p)
{
	struct ipv6hdr ip;
	__u32 off = sizeof(ip), i;
	__u8 next, ext[2];

	if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)))
		return EGRESSD_DENY_MALFORMED;
	if (ip.version != 6)
		return EGRESSD_DENY_MALFORMED;
	p->family = AF_INET6;
	__builtin_memcpy(p->saddr.addr, &ip.saddr, 16);
	__builtin_memcpy(p->daddr.addr, &ip.daddr, 16);
	/* Never on a wire (RFC 4038 4.2), and would be judged as the IPv4 address it is not. */
	if (!ip.daddr.s6_addr32[0] && !ip.daddr.s6_addr32[1] &&
	    ip.daddr.s6_addr32[2] == bpf_htonl(0xffff))
		return EGRESSD_DENY_MALFORMED;
	next = ip.nexthdr;
	/*
	 * Unrolled: laid out as a loop, its head can follow a helper call, which check_cfg() of 6.1
	 * takes for a back-edge. Can go when 6.6 is the oldest kernel.
	 */
#pragma unroll
	for (i = 0; i <= EGRESSD_MAX_EXT; i++) {
		p->proto = next;
		p->l4 = off;
		if (next == IPPROTO_FRAGMENT)
			return EGRESSD_DENY_FRAGMENT;
		/* A routing header hides the real destination. */
		if (next == IPPROTO_ROUTING)
			return EGRESSD_DENY_MALFORMED;
		if (next != IPPROTO_HOPOPTS && next != IPPROTO_DSTOPTS && next != IPPROTO_AH)
			return egressd_parse_ports(skb, p);
		if (i == EGRESSD_MAX_EXT || bpf_skb_load_bytes(skb, off, ext, sizeof(ext)))
			return EGRESSD_DENY_MALFORMED;
		/* RFC 4302 2.2 counts AH in 4-byte words less 2, RFC 8200 4.3 in 8-byte less 1. */
		off += next == IPPROTO_AH ? (ext[1] + 2u) * 4 : (ext[1] + 1u) * 8;
		next = ext[0];
	}
	return EGRESSD_DENY_MALFORMED;
}

/* 0, or the reason the packet cannot be judged; fields parsed so far are valid then. */
static __always_inline __u32 egressd_parse(struct __sk_buff *skb, struct egressd_packet *p)
{
	__builtin_memset(p, 0, sizeof(*p));
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return egressd_parse4(skb, p);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return egressd_parse6(skb, p);
	return EGRESSD_DENY_MALFORMED;
}

#endif /* EGRESSD_PACKET_H */
