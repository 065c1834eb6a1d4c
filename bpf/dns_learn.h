/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Writing grants: address -> (name, end). The only writer of egressd_learned; the agent comes in
 * through the program egressd_grant, so that no update is lost between CPUs and the agent.
 */
#ifndef EGRESSD_DNS_LEARN_H
#define EGRESSD_DNS_LEARN_H

#include <linux/in6.h>
#include <bpf/bpf_endian.h>
#include "dns_maps.h"

#define DNS_ADDR_PUBLIC	 0
#define DNS_ADDR_PRIVATE 1 /* learned only for names that may */
#define DNS_ADDR_NEVER	 2 /* a network rule is the way to these */

/* a.b.c.d/bits as one comparison; constants are folded at compile time. */
#define DNS_IN4(ip, a, b, c, d, bits)                                                              \
	((ip) >> (32 - (bits)) ==                                                                  \
	 ((__u32)(a) << 24 | (__u32)(b) << 16 | (__u32)(c) << 8 | (d)) >> (32 - (bits)))

/*
 * What DNS must not be able to point at: rebinding turns a name somebody else controls into a way
 * to the metadata service or the inside. ip in host order.
 */
static __always_inline int dns_guard4(__u32 ip)
{
	if (DNS_IN4(ip, 10, 0, 0, 0, 8) || DNS_IN4(ip, 172, 16, 0, 0, 12) ||
	    DNS_IN4(ip, 192, 168, 0, 0, 16) || DNS_IN4(ip, 100, 64, 0, 0, 10))
		return DNS_ADDR_PRIVATE;
	if (DNS_IN4(ip, 0, 0, 0, 0, 8) || DNS_IN4(ip, 127, 0, 0, 0, 8) ||
	    DNS_IN4(ip, 169, 254, 0, 0, 16) || DNS_IN4(ip, 192, 0, 0, 0, 24) ||
	    DNS_IN4(ip, 224, 0, 0, 0, 3) || ip == 0xa83f8110 /* 168.63.129.16 */)
		return DNS_ADDR_NEVER;
	return DNS_ADDR_PUBLIC;
}

/* hi, lo: the address as two 64-bit numbers. Not global unicast, or an IPv4 address in disguise. */
static __always_inline int dns_guard6(__u64 hi, __u64 lo)
{
	if (hi >> 57 == 0xfc >> 1) /* fc00::/7 unique local */
		return DNS_ADDR_PRIVATE;
	if (hi >> 61 != 1) /* outside 2000::/3: ::/8, 64:ff9b::/96, fe80::/10, ff00::/8 ... */
		return DNS_ADDR_NEVER;
	if (hi >> 48 == 0x2002 || hi >> 32 == 0x20010000) /* 6to4, Teredo carry IPv4 addresses */
		return DNS_ADDR_NEVER;
	return DNS_ADDR_PUBLIC;
}

static __always_inline void dns_usage(__u32 name_id, __s64 by)
{
	__u64 *n = bpf_map_lookup_elem(&egressd_dusage, &name_id);
	__u64 one = 1;

	if (n)
		__sync_fetch_and_add(n, by);
	else if (by > 0)
		bpf_map_update_elem(&egressd_dusage, &name_id, &one, BPF_NOEXIST);
}

/*
 * Adds name_id to the address in s->addr, or moves its end, never closer. quota 0 = none. Returns
 * the EGRESSD_DNS_ADDR_* outcome.
 *
 * Slots: the name's own, else a free or ended one, else the one to end soonest gives way. An entry
 * that the sweep has just unlinked is marked dead: it is looked up once more.
 */
__weak __noinline int dns_grant(__u32 dir, __u32 name_id, __u64 expires, __u64 now, __u32 quota)
{
	struct dns_scratch *s = dns_work(dir);
	struct egressd_learned *v;
	const __u64 *used;
	__u32 i, turn;
	int full = 0;

	if (!s || !name_id)
		return EGRESSD_DNS_ADDR_FULL;
	if (quota) {
		used = bpf_map_lookup_elem(&egressd_dusage, &name_id);
		full = used && *used >= quota;
	}
	for (turn = 0; turn < 3; turn++) {
		__u64 slot, soonest;
		__u32 same, old = 0;
		int dead;

		v = bpf_map_lookup_elem(&egressd_learned, &s->addr);
		if (!v) {
			if (full)
				return EGRESSD_DNS_ADDR_QUOTA;
			s->fresh.grants[0].expires_ns = expires;
			s->fresh.grants[0].name_id = name_id;
			if (!bpf_map_update_elem(&egressd_learned, &s->addr, &s->fresh,
						 BPF_NOEXIST)) {
				dns_usage(name_id, 1);
				return EGRESSD_DNS_ADDR_NEW;
			}
			continue; /* another CPU was first, or no room */
		}
		DNS_MEM(s->hits) = 0;
		DNS_MEM(s->hit) = 0;
		DNS_MEM(s->soonest) = ~0ULL;
		bpf_spin_lock(&v->lock);
		dead = v->dead;
		for (i = 0; i < EGRESSD_MAX_GRANTS; i++) {
			const struct egressd_grant *g = &v->grants[i];
			__u64 ends = g->name_id && g->expires_ns > now ? g->expires_ns : 0;

			if (g->name_id == name_id) {
				DNS_MEM(s->hits) = 1;
				DNS_MEM(s->hit) = i;
				break;
			}
			if (ends < DNS_MEM(s->soonest)) {
				DNS_MEM(s->soonest) = ends;
				DNS_MEM(s->hit) = i;
			}
		}
		slot = DNS_BOUND(DNS_MEM(s->hit), EGRESSD_MAX_GRANTS - 1);
		same = DNS_MEM(s->hits);
		soonest = DNS_MEM(s->soonest);
		if (!dead && same) {
			if (v->grants[slot].expires_ns < expires)
				v->grants[slot].expires_ns = expires;
		} else if (!dead && !full) {
			/* Readers have no lock: at no moment is the old name valid until `expires`.
			 */
			old = v->grants[slot].name_id;
			*(volatile __u64 *)&v->grants[slot].expires_ns = 0;
			*(volatile __u32 *)&v->grants[slot].name_id = name_id;
			*(volatile __u64 *)&v->grants[slot].expires_ns = expires;
		}
		bpf_spin_unlock(&v->lock);
		if (dead)
			continue;
		if (same)
			return EGRESSD_DNS_ADDR_EXTENDED;
		if (full)
			return EGRESSD_DNS_ADDR_QUOTA;
		dns_usage(name_id, 1);
		if (old)
			dns_usage(old, -1);
		return soonest ? EGRESSD_DNS_ADDR_EVICTED : EGRESSD_DNS_ADDR_NEW;
	}
	return EGRESSD_DNS_ADDR_FULL;
}

/*
 * Frees the address in s->addr if every grant ended before `before`, else its ended slots. A grant
 * that a DNS answer adds while the entry is being unlinked is put back. Returns slots freed.
 */
__weak __noinline int dns_sweep(__u32 dir, __u64 before)
{
	struct dns_scratch *s = dns_work(dir);
	struct egressd_learned *v;
	__u32 i, live = 0, freed = 0;
	__u64 now = bpf_ktime_get_boot_ns();
	struct egressd_grant g;

	if (!s)
		return 0;
	v = bpf_map_lookup_elem(&egressd_learned, &s->addr);
	if (!v)
		return 0;
	for (i = 0; i < EGRESSD_MAX_GRANTS; i++) {
		g.name_id = 0;
		bpf_spin_lock(&v->lock);
		if (v->grants[i].name_id && v->grants[i].expires_ns < before) {
			g.name_id = v->grants[i].name_id;
			v->grants[i].expires_ns = 0;
			v->grants[i].name_id = 0;
		} else if (v->grants[i].name_id) {
			live = 1;
		}
		bpf_spin_unlock(&v->lock);
		if (g.name_id) {
			dns_usage(g.name_id, -1);
			freed++;
		}
	}
	if (live)
		return freed;
	bpf_map_delete_elem(&egressd_learned, &s->addr);
	bpf_spin_lock(&v->lock);
	v->dead = 1; /* whoever writes after this looks it up again; what came before is below */
	bpf_spin_unlock(&v->lock);
	for (i = 0; i < EGRESSD_MAX_GRANTS; i++) {
		bpf_spin_lock(&v->lock);
		g.name_id = v->grants[i].name_id;
		g.expires_ns = v->grants[i].expires_ns;
		bpf_spin_unlock(&v->lock);
		if (g.name_id) {
			dns_usage(g.name_id, -1);
			dns_grant(dir, g.name_id, g.expires_ns, now, 0);
		}
	}
	return freed;
}

#endif /* EGRESSD_DNS_LEARN_H */
