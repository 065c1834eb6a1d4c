/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Writing grants: address -> (name, end). The only writer of egressd_learned; the agent comes in
 * through the program egressd_grant, so that no update is lost between CPUs and the agent.
 */
#ifndef EGRESSD_DNS_LEARN_H
#define EGRESSD_DNS_LEARN_H

#include <linux/in6.h>
#include <bpf/bpf_endian.h>
#include "decide.h"
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
 * Latest end of the grants of the address v (name_id 0), or of one name's grant; 0: none. No lock:
 * a guess.
 */
static __always_inline __u64 dns_end(struct dns_scratch *s, const struct egressd_learned *v,
				     __u32 name_id)
{
	__u32 i;

	DNS_MEM(s->latest) = 0;
	for (i = 0; i < EGRESSD_MAX_GRANTS; i++) {
		__u64 end = *(volatile const __u64 *)&v->grants[i].expires_ns;
		__u32 id = *(volatile const __u32 *)&v->grants[i].name_id;

		if (id && (!name_id || id == name_id) && end > DNS_MEM(s->latest))
			DNS_MEM(s->latest) = end;
	}
	return DNS_MEM(s->latest);
}

/*
 * Takes from the address in s->victim the grants that end before `before`: those of name_id, or all
 * (0). An address without grants is deleted: marked first, so that nobody writes to it any more,
 * and not touched after. Returns how many were taken.
 */
__weak __noinline int dns_remove(__u32 dir, __u32 name_id, __u64 before)
{
	struct dns_scratch *s = dns_work(dir);
	struct egressd_learned *v;
	struct egressd_addr *slot;
	__u32 i, place, live;

	if (!s)
		return 0;
	DNS_MEM(s->hits) = 0;
	DNS_MEM(s->hit) = 0;
	v = bpf_map_lookup_elem(&egressd_learned, &s->victim);
	if (!v)
		return 0;
	bpf_spin_lock(&v->lock);
	if (v->dead || !egressd_still(v, &s->victim)) {
		bpf_spin_unlock(&v->lock);
		return 0;
	}
	place = v->place;
	for (i = 0; i < EGRESSD_MAX_GRANTS; i++) {
		struct egressd_grant *g = &v->grants[i];
		__u32 id = g->name_id;

		s->taken[i] = 0;
		if (!id)
			continue;
		if ((name_id && id != name_id) || g->expires_ns >= before) {
			DNS_MEM(s->hits) = 1;
			continue;
		}
		s->taken[i] = id;
		*(volatile __u64 *)&g->expires_ns = 0;
		*(volatile __u32 *)&g->name_id = 0;
	}
	live = DNS_MEM(s->hits);
	if (!live)
		v->dead = 1;
	bpf_spin_unlock(&v->lock);
	for (i = 0; i < EGRESSD_MAX_GRANTS; i++) {
		if (!s->taken[i])
			continue;
		dns_usage(s->taken[i], -1);
		DNS_MEM(s->hit) = DNS_MEM(s->hit) + 1;
	}
	if (live)
		return DNS_MEM(s->hit);
	slot = bpf_map_lookup_elem(&egressd_dplaces, &place);
	if (slot && egressd_same_addr(slot, &s->victim))
		__builtin_memset(slot, 0, sizeof(*slot));
	bpf_map_delete_elem(&egressd_learned, &s->victim);
	return DNS_MEM(s->hit);
}

#define DNS_PLACE_FREE	0
#define DNS_PLACE_ENDED 1
#define DNS_PLACE_USED	2

/*
 * Moves the hand on by one and looks at that place: s->place, and in s->seen who stands there. If
 * it ends sooner than s->victim_end, it becomes the victim. name_id as for dns_end(): others are
 * passed over as used.
 */
__weak __noinline int dns_look(__u32 dir, __u32 name_id, __u64 now)
{
	struct dns_scratch *s = dns_work(dir);
	const struct egressd_learned *v;
	const struct egressd_addr *slot;
	struct dns_hand *hand;
	__u32 zero = 0, at;
	__u64 end;

	hand = bpf_map_lookup_elem(&egressd_dhand, &zero);
	if (!s || !hand)
		return DNS_PLACE_USED;
	bpf_spin_lock(&hand->lock);
	if (name_id) {
		/* Stays where there are any, and does not move the hand towards those in use. */
		at = hand->of_name < hand->used ? hand->of_name : 0;
		hand->of_name = at + 1;
	} else {
		at = hand->next;
		hand->next = at + 1;
		if (hand->used <= at)
			hand->used = at + 1;
	}
	bpf_spin_unlock(&hand->lock);
	slot = bpf_map_lookup_elem(&egressd_dplaces, &at);
	if (!slot) { /* the end: begin anew */
		bpf_spin_lock(&hand->lock);
		hand->next = 1;
		hand->used = at;
		bpf_spin_unlock(&hand->lock);
		at = 0;
		slot = bpf_map_lookup_elem(&egressd_dplaces, &at);
		if (!slot)
			return DNS_PLACE_USED;
	}
	s->place = at;
	s->seen = *slot;
	v = bpf_map_lookup_elem(&egressd_learned, &s->seen);
	if (!v || v->place != at)
		return DNS_PLACE_FREE;
	end = dns_end(s, v, name_id);
	if (name_id && !end)
		return DNS_PLACE_USED;
	s->seen_count++;
	if (end < s->victim_end) {
		s->victim_end = end;
		s->victim = s->seen;
		s->victim_place = at;
	}
	return end <= now ? DNS_PLACE_ENDED : DNS_PLACE_USED;
}

#define DNS_NO_PLACE ~0u

/* Places looked at for a new address, and for one that a name has to give up. */
#define DNS_LOOKS	128
#define DNS_NAME_LOOKS	64
#define DNS_ENOUGH_SEEN 8

/* Finds a place for the address in s->addr, and puts it there. s->place is it. */
__weak __noinline int dns_room(__u32 dir, __u64 now)
{
	struct dns_scratch *s = dns_work(dir);
	struct egressd_addr *slot;
	__u32 i;
	int r = DNS_PLACE_USED;

	if (!s)
		return 0;
	s->victim_end = ~0ULL;
	s->victim_place = 0;
	for (i = 0; i < DNS_LOOKS; i++) {
		r = dns_look(dir, 0, now);
		if (r != DNS_PLACE_USED)
			break;
	}
	if (r != DNS_PLACE_FREE && s->victim_end != ~0ULL) {
		if (r == DNS_PLACE_USED)
			dns_count(EGRESSD_DNS_ADDR_EVICTED);
		dns_remove(dir, 0, ~0ULL);
		s->place = s->victim_place;
	}
	slot = bpf_map_lookup_elem(&egressd_dplaces, &s->place);
	if (slot)
		*slot = s->addr;
	return 0;
}

/* A name that holds as many addresses as it may gives up one, of those seen the soonest to end. */
__weak __noinline int dns_give_up(__u32 dir, __u32 name_id, __u64 now)
{
	struct dns_scratch *s = dns_work(dir);
	__u32 i;

	if (!s)
		return 0;
	s->victim_end = ~0ULL;
	s->seen_count = 0;
	for (i = 0; i < DNS_NAME_LOOKS; i++) {
		if (dns_look(dir, name_id, now) == DNS_PLACE_ENDED)
			break;
		if (DNS_MEM(s->seen_count) >= DNS_ENOUGH_SEEN)
			break;
	}
	if (s->victim_end == ~0ULL)
		return 0;
	if (s->victim_end > now)
		dns_count(EGRESSD_DNS_ADDR_QUOTA);
	return dns_remove(dir, name_id, ~0ULL);
}

/* Look-ups of an address that is being deleted, or that another CPU adds, before giving up. */
#define DNS_TURNS 8

/*
 * Writes name_id and its end to the address in s->addr; an end never moves closer. A new address
 * takes s->place. Returns the EGRESSD_DNS_ADDR_* outcome.
 *
 * Slots: the name's own, else a free or ended one, else the one to end soonest gives way.
 */
__weak __noinline int dns_put(__u32 dir, __u32 name_id, __u64 expires, __u64 now)
{
	struct dns_scratch *s = dns_work(dir);
	struct egressd_learned *v;
	__u32 i, turn;

	if (!s)
		return EGRESSD_DNS_ADDR_FULL;
	for (turn = 0; turn < DNS_TURNS; turn++) {
		__u64 slot, soonest;
		__u32 same, old = 0;
		int dead;

		v = bpf_map_lookup_elem(&egressd_learned, &s->addr);
		if (!v) {
			if (s->place == DNS_NO_PLACE)
				return EGRESSD_DNS_ADDR_FULL;
			s->fresh.addr = s->addr;
			s->fresh.place = s->place;
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
		dead = v->dead || !egressd_still(v, &s->addr);
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
		} else if (!dead) {
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
		dns_usage(name_id, 1);
		if (old)
			dns_usage(old, -1);
		return soonest ? EGRESSD_DNS_ADDR_EVICTED : EGRESSD_DNS_ADDR_NEW;
	}
	return EGRESSD_DNS_ADDR_FULL;
}

/*
 * Adds name_id to the address in s->addr, or moves its end. A name that holds `quota` addresses (0:
 * no limit) gives up another one for a new one, and so does the whole map when it is full. Returns
 * the EGRESSD_DNS_ADDR_* outcome.
 */
__weak __noinline int dns_grant(__u32 dir, __u32 name_id, __u64 expires, __u64 now, __u32 quota)
{
	struct dns_scratch *s = dns_work(dir);
	const struct egressd_learned *v;
	struct egressd_addr *slot;
	const __u64 *used;
	int r;

	if (!s || !name_id)
		return EGRESSD_DNS_ADDR_FULL;
	s->place = DNS_NO_PLACE;
	v = bpf_map_lookup_elem(&egressd_learned, &s->addr);
	if (quota && (!v || !dns_end(s, v, name_id))) {
		used = bpf_map_lookup_elem(&egressd_dusage, &name_id);
		if (used && (__s64)*used >= quota && dns_give_up(dir, name_id, now) && !v &&
		    !bpf_map_lookup_elem(&egressd_learned, &s->victim)) {
			/* The place that became free. */
			s->place = s->victim_place;
			slot = bpf_map_lookup_elem(&egressd_dplaces, &s->place);
			if (slot)
				*slot = s->addr;
		} else {
			s->place = DNS_NO_PLACE;
		}
	}
	r = dns_put(dir, name_id, expires, now);
	if (r == EGRESSD_DNS_ADDR_FULL && s->place == DNS_NO_PLACE) {
		dns_room(dir, now);
		r = dns_put(dir, name_id, expires, now);
	}
	return r;
}

#endif /* EGRESSD_DNS_LEARN_H */
