/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Learning from an answer, in two passes: nothing is written before the whole answer section has
 * been read and found well formed.
 *
 * Believed are the A (AAAA) records of an A (AAAA) question whose owner is the end of the one
 * CNAME chain that starts at the question. Records may stand in any order; every CNAME must be on
 * the chain, every address at its end. Other types are skipped, their owners must parse.
 */
#ifndef EGRESSD_DNS_ANSWER_H
#define EGRESSD_DNS_ANSWER_H

#include "dns_learn.h"
#include "dns_name.h"

#define DNS_TYPE_A     1
#define DNS_TYPE_CNAME 5
#define DNS_TYPE_PTR   12
#define DNS_TYPE_AAAA  28
#define DNS_TYPE_SRV   33
#define DNS_TYPE_SVCB  64
#define DNS_TYPE_HTTPS 65
#define DNS_CLASS_IN   1

#define DNS_SECOND 1000000000ULL

/* Reads one record at s->off. Returns 0, or the outcome that ends it. */
__weak __noinline int dns_record(__u32 dir)
{
	struct dns_scratch *s = dns_work(dir);
	__u32 p, type, class, ttl, size, n;
	__u64 owner;

	if (!s)
		return EGRESSD_DNS_BAD_RECORD;
	if (dns_name(dir, s->off))
		return EGRESSD_DNS_BAD_RECORD;
	owner = s->name_hash;
	p = s->end;
	if (p + 10 > s->len)
		return EGRESSD_DNS_BAD_RECORD;
	type = DNS_SHORT(s, p);
	class = DNS_SHORT(s, p + 2);
	ttl = DNS_SHORT(s, p + 4) << 16 | DNS_SHORT(s, p + 6);
	size = DNS_SHORT(s, p + 8);
	p += 10;
	if (p + size > s->len)
		return EGRESSD_DNS_BAD_RECORD;
	if (ttl & 0x80000000)
		ttl = 0; /* RFC 2181 8 */
	if (type == DNS_TYPE_CNAME) {
		struct dns_cname *c;

		if (class != DNS_CLASS_IN || dns_name(dir, p) || s->end != p + size)
			return EGRESSD_DNS_BAD_RECORD;
		n = s->cname_count;
		if (n >= DNS_MAX_CNAMES)
			return EGRESSD_DNS_TOO_MANY;
		c = &s->cnames[DNS_BOUND(n, DNS_MAX_CNAMES - 1)];
		c->owner = owner;
		c->target = s->name_hash;
		c->ttl = ttl;
		c->used = 0;
		s->cname_count = n + 1;
	} else if (type == s->qtype) {
		struct dns_found *f;

		if (class != DNS_CLASS_IN || size != (type == DNS_TYPE_A ? 4 : 16))
			return EGRESSD_DNS_BAD_RECORD;
		n = s->found_count;
		if (n >= DNS_MAX_ADDRESSES)
			return EGRESSD_DNS_TOO_MANY;
		f = &s->found[DNS_BOUND(n, DNS_MAX_ADDRESSES - 1)];
		f->owner = owner;
		f->ttl = ttl;
		f->off = p;
		s->found_count = n + 1;
	}
	s->off = p + size;
	return 0;
}

/* Follows the chain one CNAME further. Returns 0 at its end, 1 if it moved, 2 if it is no chain. */
__weak __noinline int dns_chain(__u32 dir)
{
	struct dns_scratch *s = dns_work(dir);
	struct dns_cname *c;
	__u32 i, n;

	if (!s)
		return 2;
	n = s->cname_count;
	DNS_MEM(s->hits) = 0;
	DNS_MEM(s->hit) = 0;
	for (i = 0; i < DNS_MAX_CNAMES; i++) {
		if (i >= n)
			break;
		if (s->cnames[i].owner == s->chain_end) {
			DNS_MEM(s->hits) = DNS_MEM(s->hits) + 1;
			DNS_MEM(s->hit) = i;
		}
	}
	if (!DNS_MEM(s->hits))
		return 0;
	c = &s->cnames[DNS_BOUND(DNS_MEM(s->hit), DNS_MAX_CNAMES - 1)];
	if (DNS_MEM(s->hits) > 1 || c->used)
		return 2; /* two targets, or a loop */
	c->used = 1;
	s->chain_end = c->target;
	if (c->ttl < s->chain_ttl)
		s->chain_ttl = c->ttl;
	return 1;
}

/* First pass: 0 if the answer section is well formed and holds addresses, else the outcome. */
__weak __noinline int dns_validate(__u32 dir)
{
	struct dns_scratch *s = dns_work(dir);
	__u32 i, count, moved = 0;
	int r = 0;

	if (!s)
		return EGRESSD_DNS_BAD_RECORD;
	s->cname_count = 0;
	s->found_count = 0;
	s->chain_end = s->question_hash;
	s->chain_ttl = ~0u;
	count = DNS_SHORT(s, 6);
	if (count > DNS_MAX_RECORDS)
		return EGRESSD_DNS_TOO_MANY;
	for (i = 0; i < DNS_MAX_RECORDS; i++) {
		if (i >= count)
			break;
		r = dns_record(dir);
		if (r)
			return r;
	}
	for (i = 0; i <= DNS_MAX_CNAMES; i++) {
		r = dns_chain(dir);
		if (r != 1)
			break;
		moved++;
	}
	if (r == 2 || moved != s->cname_count)
		return EGRESSD_DNS_BAD_OWNER;
	count = s->found_count;
	if (!count)
		return EGRESSD_DNS_NO_ADDRESS;
	for (i = 0; i < DNS_MAX_ADDRESSES; i++) {
		if (i >= count)
			break;
		if (s->found[i].owner != s->chain_end)
			return EGRESSD_DNS_BAD_OWNER;
	}
	return 0;
}

/* The address of record `index` to s->addr. Returns its DNS_ADDR_* class. */
static __always_inline int dns_address(struct dns_scratch *s, const struct dns_found *f)
{
	__u64 off = DNS_BOUND(f->off, EGRESSD_DNS_MSG_MAX - 1);
	__u64 *w = (__u64 *)s->addr.addr;

	if (s->qtype == DNS_TYPE_A) {
		__u32 *a = (__u32 *)s->addr.addr;

		w[0] = 0;
		a[2] = bpf_htonl(0xffff);
		a[3] = *(__u32 *)&s->msg[off];
		return dns_guard4(bpf_ntohl(a[3]));
	}
	w[0] = *(__u64 *)&s->msg[off];
	w[1] = *(__u64 *)&s->msg[off + 8];
	return dns_guard6(bpf_be64_to_cpu(w[0]), bpf_be64_to_cpu(w[1]));
}

static __always_inline __u32 dns_clamp(__u32 ttl, const struct egressd_dns_config *cfg)
{
	if (ttl > cfg->max_ttl_s)
		ttl = cfg->max_ttl_s;
	if (ttl < cfg->min_ttl_s)
		ttl = cfg->min_ttl_s;
	return ttl;
}

/* Second pass, one address: a grant for each of the question's names. */
__weak __noinline int dns_commit(__u32 dir, __u32 index)
{
	struct dns_scratch *s = dns_work(dir);
	const struct egressd_dns_config *cfg;
	const struct dns_found *f;
	__u32 i, slot, ttl;
	__u64 expires, now;
	int class;

	if (!s)
		return 0;
	slot = s->slot;
	cfg = bpf_map_lookup_elem(&egressd_dconfig, &slot);
	if (!cfg)
		return 0;
	f = &s->found[DNS_BOUND(index, DNS_MAX_ADDRESSES - 1)];
	ttl = f->ttl < s->chain_ttl ? f->ttl : s->chain_ttl;
	if (ttl < s->min_ttl)
		s->min_ttl = ttl;
	class = dns_address(s, f);
	if (class == DNS_ADDR_NEVER || (class == DNS_ADDR_PRIVATE && !s->asked.private_ids)) {
		dns_count(EGRESSD_DNS_ADDR_GUARDED);
		return 0;
	}
	now = s->now;
	expires = now + ((__u64)dns_clamp(ttl, cfg) + cfg->grace_s) * DNS_SECOND;
	for (i = 0; i < EGRESSD_DNS_MAX_IDS; i++) {
		__u32 id = s->asked.name_ids[i];
		int r;

		if (!id)
			continue; /* a wider pattern that gave way to a narrower one */
		if (class == DNS_ADDR_PRIVATE && !(s->asked.private_ids & 1u << i))
			continue;
		r = dns_grant(dir, id, expires, now, cfg->name_quota);
		dns_count(r);
		if (r != EGRESSD_DNS_ADDR_FULL)
			s->learned_count++;
	}
	return 0;
}

/*
 * The message in s->msg, s->len long, came from a trusted resolver on a trusted link to the socket
 * with this cookie. Returns the outcome.
 */
static __always_inline int dns_answer(__u32 dir, __u32 slot, __u64 cookie)
{
	struct dns_scratch *s = dns_work(dir);
	const struct egressd_dns_config *cfg;
	const struct egressd_dns_asked *asked;
	const struct egressd_config *policy;
	__u32 i, flags, count;
	int r;

	if (!s)
		return EGRESSD_DNS_SHORT;
	cfg = bpf_map_lookup_elem(&egressd_dconfig, &slot);
	policy = bpf_map_lookup_elem(&egressd_config, &slot);
	if (!cfg || !policy)
		return EGRESSD_DNS_SHORT;
	if (s->len < 12)
		return EGRESSD_DNS_SHORT;
	s->key[0] = cfg->key[0];
	s->key[1] = cfg->key[1];
	s->slot = slot;
	s->learned_count = 0;
	s->min_ttl = ~0u;
	flags = DNS_SHORT(s, 2);
	/* A response (QR) to a standard query (opcode 0), with one question. */
	if ((flags & 0xf800) != 0x8000 || DNS_SHORT(s, 4) != 1)
		return EGRESSD_DNS_BAD_HEADER;
	if (dns_question(dir))
		return EGRESSD_DNS_BAD_QUESTION;
	if (s->qclass != DNS_CLASS_IN || (s->qtype != DNS_TYPE_A && s->qtype != DNS_TYPE_AAAA))
		return EGRESSD_DNS_NOT_ASKED;
	s->asked_key.cookie = cookie;
	s->asked_key.name_hash = s->question_hash;
	s->asked_key.id = *(__u16 *)&s->msg[0];
	s->asked_key.qtype = s->qtype;
	s->asked_key.pad = 0;
	asked = bpf_map_lookup_elem(&egressd_dasked, &s->asked_key);
	if (!asked)
		return EGRESSD_DNS_NOT_ASKED;
	s->asked = *asked;
	/* Its memory may have gone to another question while it was copied. */
	if (s->asked.key.cookie != cookie || s->asked.key.name_hash != s->question_hash ||
	    s->asked.key.id != s->asked_key.id || s->asked.key.qtype != s->asked_key.qtype)
		return EGRESSD_DNS_NOT_ASKED;
	/*
	 * Back by the way the question went: whoever may send raw packets can forge the resolver's
	 * address, but not let them come in from the uplink.
	 */
	if (s->asked.ifindex != s->ifindex)
		return EGRESSD_DNS_NOT_TRUSTED_LINK;
	s->now = bpf_ktime_get_boot_ns();
	if (s->now - s->asked.asked_ns > cfg->answer_within_s * DNS_SECOND)
		return EGRESSD_DNS_LATE;
	if (s->oversize) {
		bpf_map_delete_elem(&egressd_dasked, &s->asked_key);
		return s->asked.observed ? EGRESSD_DNS_OBSERVED : EGRESSD_DNS_TOO_LARGE;
	}
	if (flags & 0x0200)
		return EGRESSD_DNS_TRUNCATED;
	if (flags & 0x000f)
		return EGRESSD_DNS_RCODE;
	/* Asked under an earlier policy: what the name may have is up to the one in force. */
	if (s->asked.generation != policy->generation) {
		dns_match(dir, slot);
		if (s->id_count)
			s->asked.observed = 0;
		else if (!s->asked.observed)
			return EGRESSD_DNS_NOT_ASKED;
	}
	r = dns_validate(dir);
	if (r && r != EGRESSD_DNS_NO_ADDRESS)
		return r;
	/* Well formed: the question is answered, a second answer to it teaches nothing. */
	bpf_map_delete_elem(&egressd_dasked, &s->asked_key);
	if (r)
		return r;
	if (s->asked.observed)
		return EGRESSD_DNS_OBSERVED;
	count = s->found_count;
	for (i = 0; i < DNS_MAX_ADDRESSES; i++) {
		if (i >= count)
			break;
		dns_commit(dir, i);
	}
	return EGRESSD_DNS_LEARNED;
}

#endif /* EGRESSD_DNS_ANSWER_H */
