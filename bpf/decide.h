/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The one decision: may something go to this address, protocol and port? Reached from every hook.
 *
 * Precedence, first that applies wins:
 *   1. no generation in force                        EGRESSD_DENY_NO_POLICY
 *   2. asked before routing (connect, sendmsg): loopback, or an own address of the host from the
 *      host's namespace. A packet passes as local only by where it goes, see egressd_is_local().
 *                                                    EGRESSD_ALLOW_LOOPBACK
 *      link housekeeping that never leaves the link: DHCP broadcast, ICMPv6 to ff02::/16
 *                                                    EGRESSD_ALLOW_KERNEL
 *   3. port 53 of a trusted resolver                 EGRESSD_ALLOW_RESOLVER
 *   4. port 53 or 853 of anything else, while dns.filter is allowlist: only network rules for
 *      exactly that port count, and none is refused  EGRESSD_DENY_DNS_SERVER
 *      (filter audit: what passes by 5 or 6 is recorded as such)
 *   5. network rules of the address, in order        EGRESSD_ALLOW_NETWORK_RULE, EGRESSD_DENY_RULE
 *   6. names known to have the address: if the rules of any of them allow it, it is allowed
 *      (the connection may be to that name)          EGRESSD_ALLOW_FQDN_RULE
 *      else if those of one refuse it                EGRESSD_DENY_RULE
 *   7. nothing matched                               EGRESSD_DENY_PORT, _EXPIRED, _DEFAULT
 *
 * Then mode: a refusal by 5 or 6 follows the rule's mode, one by 4 or 7 the policy's. In audit it
 * passes and `would_deny` says why it would not have.
 *
 * And break-glass: while it is open every refusal passes    EGRESSD_ALLOW_OPEN
 */
#ifndef EGRESSD_DECIDE_H
#define EGRESSD_DECIDE_H

#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "egressd_abi.h"
#include "maps.h"

#define EGRESSD_DNS_PORT 53
#define EGRESSD_DOT_PORT 853 /* DNS over TLS and over QUIC (RFC 7858, RFC 9250) */

struct egressd_verdict {
	__u32 allow;	  /* 1: it passes */
	__u32 reason;	  /* why it passes, or why not */
	__u32 would_deny; /* why it would not have passed but for audit mode; 0 = it would */
	__u32 rule_id;	  /* EGRESSD_NO_RULE if none decided */
	__u32 name_id;	  /* name whose grant decided, 0 if none */
	__u32 generation;
};

static __always_inline void egressd_count(__u32 reason)
{
	__u64 *n = bpf_map_lookup_elem(&egressd_counts, &reason);

	if (n)
		*n += 1; /* per CPU, and cgroup programs run with migration disabled */
}

static __always_inline void egressd_stat(__u32 stat)
{
	__u64 *n = bpf_map_lookup_elem(&egressd_stats, &stat);

	if (n)
		*n += 1;
}

static __always_inline int egressd_is_v4(const struct egressd_addr *a)
{
	const __u32 *w = (const void *)a->addr;

	return w[0] == 0 && w[1] == 0 && w[2] == bpf_htonl(0xffff);
}

/* True while break-glass is open: nothing may be refused. */
static __always_inline int egressd_opened(void)
{
	const struct egressd_open *open;
	__u32 zero = 0;

	open = bpf_map_lookup_elem(&egressd_open, &zero);
	return open && open->until_ns && bpf_ktime_get_boot_ns() < open->until_ns;
}

/*
 * The last word on a refusal. What passes here must not be remembered in a socket: it is judged
 * anew with each packet, so that it ends with the opening.
 */
static __always_inline void egressd_break_glass(struct egressd_verdict *v)
{
	if (v->allow || !egressd_opened())
		return;
	v->allow = 1;
	v->would_deny = v->reason;
	v->reason = EGRESSD_ALLOW_OPEN;
}

/* 127.0.0.0/8, ::1, and the unspecified address, which connect() takes for loopback. */
static __always_inline int egressd_is_loopback(const struct egressd_addr *a)
{
	const __u32 *w = (const void *)a->addr;

	if (w[0] || w[1])
		return 0;
	if (w[2] == bpf_htonl(0xffff))
		return a->addr[12] == 127 || w[3] == 0;
	return w[2] == 0 && (w[3] == bpf_htonl(1) || w[3] == 0);
}

/* With `proto` of egressd_match(): allow entries count only if they name exactly this port. */
#define EGRESSD_NARROW 0x100

/*
 * Walks one rule list. Returns 0 if nothing matches, else 1 + index into egressd_rules.
 * A global function with scalar arguments: verified once, whoever calls it.
 */
__weak __noinline __u32 egressd_match(__u32 slot, __u32 start, __u32 count, __u32 proto, __u32 port)
{
	__u32 narrow = proto & EGRESSD_NARROW;

	void *rules = bpf_map_lookup_elem(&egressd_rules, &slot);
	__u32 i;

	if (!rules)
		return 0;
	proto &= ~EGRESSD_NARROW;
	for (i = 0; i < EGRESSD_MAX_LIST; i++) {
		__u32 index = start + i;
		const struct egressd_rule *r;

		if (i >= count)
			break;
		r = bpf_map_lookup_elem(rules, &index);
		if (!r)
			break;
		if (r->proto && r->proto != proto)
			continue;
		if (port < r->port_first || port > r->port_last)
			continue;
		if (narrow && r->action == EGRESSD_ACTION_ALLOW && r->port_first != r->port_last)
			continue;
		return index + 1;
	}
	return 0;
}

/* Fills the verdict from the rule that matched. */
static __always_inline void egressd_take_rule(struct egressd_verdict *v, __u32 slot, __u32 match,
					      __u32 allow_reason)
{
	void *rules = bpf_map_lookup_elem(&egressd_rules, &slot);
	const struct egressd_rule *r;
	__u32 index = match - 1;

	v->allow = 0;
	v->reason = EGRESSD_DENY_INTERNAL;
	if (!rules)
		return;
	r = bpf_map_lookup_elem(rules, &index);
	if (!r)
		return;
	v->rule_id = r->rule_id;
	if (r->action == EGRESSD_ACTION_ALLOW) {
		v->allow = 1;
		v->reason = allow_reason;
		/* As if the rule were not there: that is what auditing an allow rule shows. */
		v->would_deny = r->mode == EGRESSD_MODE_AUDIT ? EGRESSD_DENY_DEFAULT : 0;
		return;
	}
	v->reason = EGRESSD_DENY_RULE;
	if (r->mode == EGRESSD_MODE_AUDIT) {
		v->allow = 1;
		v->would_deny = EGRESSD_DENY_RULE;
		v->reason = EGRESSD_ALLOW_AUDIT;
	}
}

/* The rules of the narrowest prefix that holds the address, or NULL. */
static __always_inline const struct egressd_list *
egressd_network_list(const struct egressd_config *cfg, __u32 slot, const struct egressd_addr *a)
{
	const struct egressd_list *list;
	void *map;

	if (cfg->host_count) {
		map = bpf_map_lookup_elem(&egressd_hosts, &slot);
		if (map) {
			list = bpf_map_lookup_elem(map, a);
			if (list)
				return list;
		}
	}
	if (egressd_is_v4(a)) {
		struct egressd_lpm4_key key = {.prefix_len = 32};

		if (!cfg->lpm4_count)
			return NULL;
		__builtin_memcpy(key.addr, a->addr + 12, 4);
		map = bpf_map_lookup_elem(&egressd_lpm4, &slot);
		return map ? bpf_map_lookup_elem(map, &key) : NULL;
	} else {
		struct egressd_lpm6_key key;

		if (!cfg->lpm6_count)
			return NULL;
		/*
		 * Not by an initialiser: clang would copy from .rodata, and Linux 5.10 refuses the
		 * BTF of a section that has no variable.
		 */
		key.prefix_len = 128;
		__builtin_memcpy(key.addr, a->addr, 16);
		map = bpf_map_lookup_elem(&egressd_lpm6, &slot);
		return map ? bpf_map_lookup_elem(map, &key) : NULL;
	}
}

/* Whether a look-up's result is still the element of that address; see struct egressd_learned. */
static __always_inline int egressd_still(const struct egressd_learned *v,
					 const struct egressd_addr *a)
{
	const volatile __u64 *x = (const void *)v->addr.addr;
	const __u64 *y = (const void *)a->addr;

	return x[0] == y[0] && x[1] == y[1];
}

/* The rules one name stands for in this generation, NULL if it has none. */
static __always_inline const struct egressd_list *egressd_name_list(__u32 slot, __u32 name_id)
{
	const struct egressd_list *list;
	void *names;

	names = bpf_map_lookup_elem(&egressd_names, &slot);
	if (!names)
		return NULL;
	list = bpf_map_lookup_elem(names, &name_id);
	return list && list->count ? list : NULL;
}

static __always_inline int egressd_rule_allows(__u32 slot, __u32 match)
{
	void *rules = bpf_map_lookup_elem(&egressd_rules, &slot);
	const struct egressd_rule *r;
	__u32 index = match - 1;

	if (!rules)
		return 0;
	r = bpf_map_lookup_elem(rules, &index);
	return r && r->action == EGRESSD_ACTION_ALLOW;
}

/*
 * What a host says to its own link before it has an address or a router: to 255.255.255.255 and
 * ff02::/16, which no router passes on (RFC 919, RFC 4291 2.7).
 */
static __always_inline int egressd_is_housekeeping(const struct egressd_addr *a, __u32 proto,
						   __u32 port)
{
	const __u32 *w = (const void *)a->addr;

	if (egressd_is_v4(a))
		return proto == IPPROTO_UDP && port == 67 && w[3] == 0xffffffff;
	if (a->addr[0] != 0xff || a->addr[1] != 0x02)
		return 0;
	return proto == IPPROTO_ICMP || (proto == IPPROTO_UDP && port == 547);
}

/* Where the question comes from: in front of routing, or from a packet on its way. */
#define EGRESSD_BEFORE_ROUTING 1
#define EGRESSD_ON_THE_WAY     0

/*
 * port in host order, 0 for protocols without ports; proto as on the wire. live_name is the grant
 * a live connection rests on (0 = none): its end does not count, only whether its rules still
 * allow. netns_cookie: of the asking socket, used before routing only.
 */
static __always_inline void egressd_decide(struct egressd_verdict *v, const struct egressd_addr *a,
					   __u32 proto, __u32 port, __u32 live_name, int stage,
					   __u64 netns_cookie)
{
	const struct egressd_config *cfg;
	const struct egressd_learned *learned;
	const struct egressd_list *list;
	__u32 zero = 0, slot, match = 0, refused = 0, refused_name = 0, known = 0, expired = 0;
	__u32 foreign_dns = 0;
	const __u32 *active;
	const struct egressd_dns_server *server;

	__builtin_memset(v, 0, sizeof(*v));
	v->rule_id = EGRESSD_NO_RULE;
	v->reason = EGRESSD_DENY_NO_POLICY;
	active = bpf_map_lookup_elem(&egressd_active, &zero);
	if (!active)
		return;
	slot = *(volatile const __u32 *)active & (EGRESSD_SLOTS - 1);
	cfg = bpf_map_lookup_elem(&egressd_config, &slot);
	if (!cfg || !cfg->generation)
		return;
	v->generation = cfg->generation;
	if (proto == IPPROTO_ICMPV6)
		proto = IPPROTO_ICMP; /* one name in the policy */

	if (stage == EGRESSD_BEFORE_ROUTING &&
	    (egressd_is_loopback(a) ||
	     ((!cfg->local_netns_cookie || cfg->local_netns_cookie == netns_cookie) &&
	      bpf_map_lookup_elem(&egressd_local, a)))) {
		v->allow = 1;
		v->reason = EGRESSD_ALLOW_LOOPBACK;
		return;
	}
	if (egressd_is_housekeeping(a, proto, port)) {
		v->allow = 1;
		v->reason = EGRESSD_ALLOW_KERNEL;
		return;
	}
	if (port == EGRESSD_DNS_PORT && (proto == IPPROTO_UDP || proto == IPPROTO_TCP)) {
		server = bpf_map_lookup_elem(&egressd_dserver, a);
		if (server && server->slots & (1u << slot)) {
			v->allow = 1;
			v->reason = EGRESSD_ALLOW_RESOLVER;
			return;
		}
	}

	list = egressd_network_list(cfg, slot, a);
	/* Names asked elsewhere are neither judged nor learned: only a rule that means it. */
	if ((port == EGRESSD_DNS_PORT || port == EGRESSD_DOT_PORT) && cfg->dns_filter &&
	    (proto == IPPROTO_TCP || proto == IPPROTO_UDP)) {
		foreign_dns = EGRESSD_DENY_DNS_SERVER;
		match = list ? egressd_match(slot, list->start, list->count, proto | EGRESSD_NARROW,
					     port)
			     : 0;
		if (match) {
			egressd_take_rule(v, slot, match, EGRESSD_ALLOW_NETWORK_RULE);
			return;
		}
		if (cfg->dns_filter == EGRESSD_DNS_FILTER_ENFORCE) {
			v->reason = foreign_dns;
			goto refused;
		}
	}
	if (list) {
		known = 1;
		match = egressd_match(slot, list->start, list->count, proto, port);
		if (match) {
			egressd_take_rule(v, slot, match, EGRESSD_ALLOW_NETWORK_RULE);
			v->would_deny = v->would_deny ?: foreign_dns;
			return;
		}
	}

	/* Names grant TCP and UDP only; anything else needs a network rule. */
	if (proto == IPPROTO_TCP || proto == IPPROTO_UDP) {
		if (live_name) {
			list = egressd_name_list(slot, live_name);
			match = list ? egressd_match(slot, list->start, list->count, proto, port)
				     : 0;
			if (match && egressd_rule_allows(slot, match)) {
				v->name_id = live_name;
				egressd_take_rule(v, slot, match, EGRESSD_ALLOW_FQDN_RULE);
				v->would_deny = v->would_deny ?: foreign_dns;
				return;
			}
		}
		learned = bpf_map_lookup_elem(&egressd_learned, a);
		if (learned) {
			__u64 now = bpf_ktime_get_boot_ns();
			__u32 i;

			for (i = 0; i < EGRESSD_MAX_GRANTS; i++) {
				const struct egressd_grant *g = &learned->grants[i];
				/* In this order: the end of the next name is written after it. */
				__u64 expires = *(volatile const __u64 *)&g->expires_ns;
				__u32 name_id = *(volatile const __u32 *)&g->name_id;

				if (!name_id || !egressd_still(learned, a))
					continue;
				if (expires <= now) {
					expired = 1;
					continue;
				}
				list = egressd_name_list(slot, name_id);
				if (!list)
					continue; /* a pattern of an earlier generation */
				known = 1;
				match = egressd_match(slot, list->start, list->count, proto, port);
				if (!match)
					continue;
				if (egressd_rule_allows(slot, match)) {
					v->name_id = name_id;
					egressd_take_rule(v, slot, match, EGRESSD_ALLOW_FQDN_RULE);
					v->would_deny = v->would_deny ?: foreign_dns;
					return;
				}
				refused = match;
				refused_name = name_id;
			}
			if (refused) {
				v->name_id = refused_name;
				egressd_take_rule(v, slot, refused, 0);
				return;
			}
		}
	}

	v->reason = foreign_dns ? foreign_dns
		    : known	? EGRESSD_DENY_PORT
		    : expired	? EGRESSD_DENY_EXPIRED
				: EGRESSD_DENY_DEFAULT;
refused:
	if (cfg->mode == EGRESSD_MODE_AUDIT) {
		v->allow = 1;
		v->would_deny = v->reason;
		v->reason = EGRESSD_ALLOW_AUDIT;
	}
}

/* The generation in force, 0 if none. */
static __always_inline __u32 egressd_generation(void)
{
	const struct egressd_config *cfg;
	__u32 zero = 0, slot;
	const __u32 *active;

	active = bpf_map_lookup_elem(&egressd_active, &zero);
	if (!active)
		return 0;
	slot = *(volatile const __u32 *)active & (EGRESSD_SLOTS - 1);
	cfg = bpf_map_lookup_elem(&egressd_config, &slot);
	return cfg ? cfg->generation : 0;
}

static __always_inline int egressd_same_addr(const struct egressd_addr *a,
					     const struct egressd_addr *b)
{
	const __u64 *x = (const void *)a->addr, *y = (const void *)b->addr;

	return x[0] == y[0] && x[1] == y[1];
}

/* True if the storage was written for exactly this destination. */
static __always_inline int egressd_sock_is_for(const struct egressd_sock *st,
					       const struct egressd_addr *a, __u32 proto,
					       __be16 dport)
{
	const volatile __u64 *x = (const void *)st->daddr.addr;
	const __u64 *y = (const void *)a->addr;

	return st->proto == proto && *(const volatile __be16 *)&st->dport == dport &&
	       x[0] == y[0] && x[1] == y[1];
}

/*
 * True if the storage holds a verdict of `generation` for exactly this destination. The generation
 * is read before and after: 0 while another CPU rewrites the storage.
 */
static __always_inline int egressd_sock_holds(const struct egressd_sock *st, __u32 generation,
					      const struct egressd_addr *a, __u32 proto,
					      __be16 dport)
{
	if (!generation || *(const volatile __u32 *)&st->generation != generation)
		return 0;
	if (!egressd_sock_is_for(st, a, proto, dport))
		return 0;
	return *(const volatile __u32 *)&st->generation == generation;
}

static __always_inline void egressd_remember(struct egressd_sock *st,
					     const struct egressd_verdict *v,
					     const struct egressd_addr *a, __u32 proto,
					     __be16 dport)
{
	volatile __u64 *to = (void *)st->daddr.addr;
	const __u64 *from = (const void *)a->addr;

	/* Not valid while it is being changed: another CPU may send on this socket. */
	*(volatile __u32 *)&st->generation = 0;
	asm volatile("" ::: "memory");
	st->inbound = 0;
	to[0] = from[0];
	to[1] = from[1];
	*(volatile __be16 *)&st->dport = dport;
	st->proto = proto;
	st->reason = v->reason;
	st->rule_id = v->rule_id;
	st->name_id = v->name_id;
	st->would_deny = v->would_deny;
	asm volatile("" ::: "memory");
	*(volatile __u32 *)&st->generation = v->generation;
}

/*
 * A peer may be answered for this long after its last datagram, the UDP stream timeout of
 * conntrack (nf_conntrack_udp_timeout_stream).
 */
#define EGRESSD_PEER_NS (120ULL * 1000000000)

static __always_inline int egressd_answers_peer(__u64 cookie, const struct egressd_addr *a,
						__be16 port)
{
	struct egressd_peer_key key = {.addr = *a, .cookie = cookie, .port = port};
	const __u64 *seen = bpf_map_lookup_elem(&egressd_peers, &key);

	return seen && bpf_ktime_get_boot_ns() - *seen < EGRESSD_PEER_NS;
}

#endif /* EGRESSD_DECIDE_H */
