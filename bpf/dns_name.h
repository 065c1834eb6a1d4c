/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Reading a name in a message, and finding the patterns it matches.
 *
 * Every function here that loops is global (verified once, with unknown arguments) and takes
 * scalars only (5.10 knows no other arguments for them); what it works on is in dns_scratch. That
 * keeps the whole at some thousand verified instructions instead of millions.
 */
#ifndef EGRESSD_DNS_NAME_H
#define EGRESSD_DNS_NAME_H

#include "dns_hash.h"
#include "dns_maps.h"

/* Absorbs the label (length byte and bytes) at pos; the length is known to be 1..63. */
static __always_inline void dns_absorb(struct dns_scratch *s, struct dns_sip *h, __u32 pos,
				       __u32 len)
{
	__u32 n = len + 1, i;
	__u64 base = DNS_BOUND(pos, EGRESSD_DNS_MSG_MAX - 1);

	for (i = 0; i < 8; i++) {
		if (n < 8)
			break;
		dns_sip_word(h, dns_fold(*(__u64 *)&s->msg[base + 8 * i]));
		n -= 8;
	}
	if (n && i < 8)
		dns_sip_word(h, dns_fold(dns_head(*(__u64 *)&s->msg[base + 8 * i], n)));
}

#define DNS_LABEL_MORE 0
#define DNS_LABEL_END  1
#define DNS_LABEL_BAD  2

/*
 * Reads one label or pointer at s->pos. Pointers lead strictly backwards, before everything read
 * of this name so far, so there are no loops; names are at most 255 bytes on the wire.
 */
__weak __noinline int dns_label(__u32 dir)
{
	struct dns_scratch *s = dns_work(dir);
	struct dns_sip h;
	__u32 pos, c;

	if (!s)
		return DNS_LABEL_BAD;
	pos = s->pos;
	if (pos >= s->len)
		return DNS_LABEL_BAD;
	c = DNS_BYTE(s, pos);
	if (c == 0) {
		if (!s->jumps)
			s->end = pos + 1;
		return DNS_LABEL_END;
	}
	if (c >= 0xc0) {
		__u32 target;

		if (pos + 1 >= s->len)
			return DNS_LABEL_BAD;
		target = (c & 0x3f) << 8 | DNS_BYTE(s, pos + 1);
		if (target >= s->limit || target < 12 || s->jumps >= DNS_MAX_POINTERS)
			return DNS_LABEL_BAD;
		if (!s->jumps)
			s->end = pos + 2;
		s->jumps++;
		s->limit = target;
		s->pos = target;
		return DNS_LABEL_MORE;
	}
	if (c > 63)
		return DNS_LABEL_BAD;
	s->total += c + 1;
	if (s->total > 254 || pos + 1 + c > s->len)
		return DNS_LABEL_BAD;
	s->labels[DNS_BOUND(s->label_count, DNS_MAX_LABELS - 1)] = pos;
	s->label_count++;
	h.v0 = s->v[0];
	h.v1 = s->v[1];
	h.v2 = s->v[2];
	h.v3 = s->v[3];
	dns_absorb(s, &h, pos, c);
	s->v[0] = h.v0;
	s->v[1] = h.v1;
	s->v[2] = h.v2;
	s->v[3] = h.v3;
	s->pos = pos + 1 + c;
	return DNS_LABEL_MORE;
}

/*
 * Reads the name at start: its hash to s->name_hash, what is behind it to s->end. Returns 0, or 1
 * if it is malformed.
 */
__weak __noinline int dns_name(__u32 dir, __u32 start)
{
	struct dns_scratch *s = dns_work(dir);
	struct dns_sip h;
	__u32 i, first, anchor = start;
	int r = DNS_LABEL_BAD;

	if (!s || start >= s->len)
		return 1;
	first = DNS_BYTE(s, start);
	if (first >= 0xc0 && start + 1 < s->len) {
		anchor = (first & 0x3f) << 8 | DNS_BYTE(s, start + 1);
		/* Owners mostly point to the name read last. */
		if (anchor == s->memo_off && anchor && anchor < start &&
		    s->memo_jumps < DNS_MAX_POINTERS) {
			s->name_hash = s->memo_hash;
			s->end = start + 2;
			return 0;
		}
	}
	dns_sip_init(&h, s->key, 0);
	s->v[0] = h.v0;
	s->v[1] = h.v1;
	s->v[2] = h.v2;
	s->v[3] = h.v3;
	s->pos = start;
	s->limit = start;
	s->total = 0;
	s->jumps = 0;
	s->label_count = 0;
	for (i = 0; i < DNS_MAX_LABELS + DNS_MAX_POINTERS; i++) {
		r = dns_label(dir);
		if (r != DNS_LABEL_MORE)
			break;
	}
	if (r != DNS_LABEL_END)
		return 1;
	h.v0 = s->v[0];
	h.v1 = s->v[1];
	h.v2 = s->v[2];
	h.v3 = s->v[3];
	s->name_hash = dns_sip_end(&h, 0);
	s->memo_hash = s->name_hash;
	s->memo_off = anchor;
	s->memo_jumps = anchor == start ? s->jumps : s->jumps - 1;
	return 0;
}

/* The one question at offset 12: name, type, class. Returns 0, or 1 if it is malformed. */
__weak __noinline int dns_question(__u32 dir)
{
	struct dns_scratch *s = dns_work(dir);
	__u32 end;

	if (!s)
		return 1;
	s->memo_off = 0;
	/* There is nothing before the first name a pointer could lead to: limit is 12. */
	if (dns_name(dir, 12))
		return 1;
	end = s->end;
	if (end + 4 > s->len)
		return 1;
	s->question_hash = s->name_hash;
	s->qtype = DNS_SHORT(s, end);
	s->qclass = DNS_SHORT(s, end + 2);
	s->off = end + 4;
	return 0;
}

/* True if `count` bytes of the pattern's text from `from` stand at s->at, case folded. */
__weak __noinline int dns_same_text(__u32 dir, __u32 slot, __u32 index, __u32 from, __u32 count)
{
	struct dns_scratch *s = dns_work(dir);
	const struct egressd_dns_glob *g;
	__u32 i, at;
	void *map;

	if (!s)
		return 0;
	map = bpf_map_lookup_elem(&egressd_dglobs, &slot);
	if (!map)
		return 0;
	g = bpf_map_lookup_elem(map, &index);
	if (!g)
		return 0;
	at = s->at;
	for (i = 0; i < 63; i++) {
		if (i >= count)
			break;
		if ((__u8)dns_fold(DNS_BYTE(s, at + i)) != g->text[DNS_BOUND(from + i, 63)])
			return 0;
	}
	return 1;
}

/* Whether label s->left - 1 fits one in-label pattern; if so its node is one more to walk from. */
__weak __noinline int dns_glob(__u32 dir, __u32 slot, __u32 index)
{
	struct dns_scratch *s = dns_work(dir);
	const struct egressd_dns_glob *g;
	struct dns_branch *b;
	__u32 pos, len, prefix, suffix, left;
	void *map;

	if (!s)
		return 0;
	map = bpf_map_lookup_elem(&egressd_dglobs, &slot);
	if (!map)
		return 0;
	g = bpf_map_lookup_elem(map, &index);
	if (!g)
		return 0;
	left = s->left;
	pos = s->labels[DNS_BOUND(left - 1, DNS_MAX_LABELS - 1)];
	len = DNS_BYTE(s, pos);
	prefix = g->prefix_len;
	suffix = g->suffix_len;
	if (prefix + suffix > len || prefix + suffix > sizeof(g->text))
		return 0;
	s->at = pos + 1;
	if (!dns_same_text(dir, slot, index, 0, prefix))
		return 0;
	s->at = pos + 1 + len - suffix;
	if (!dns_same_text(dir, slot, index, prefix, suffix))
		return 0;
	if (s->branch_count >= DNS_MAX_BRANCHES) {
		dns_count(EGRESSD_DNS_BRANCH_LOST);
		return 0;
	}
	b = &s->branches[DNS_BOUND(s->branch_count, DNS_MAX_BRANCHES - 1)];
	b->key = g->child;
	b->left = left - 1;
	b->exact = 0;
	b->parent = s->branch;
	b->covered = s->best;
	if (!s->best)
		b->covered = s->branches[DNS_BOUND(s->branch, DNS_MAX_BRANCHES - 1)].covered;
	s->branch_count++;
	return 1;
}

/* Now at this node, with `left` labels still in front of it. */
static __always_inline void dns_enter(struct dns_scratch *s, const struct egressd_dns_node *n,
				      __u32 left)
{
	__u32 flags = n->flags;

	s->left = left;
	s->node_flags = flags;
	s->glob_start = n->glob_start;
	s->glob_count = n->glob_count;
	if (left) {
		if (n->subtree_id) {
			s->best = n->subtree_id;
			s->best_private = !!(flags & EGRESSD_DNS_NODE_SUBTREE_PRIVATE);
		}
		if (flags & EGRESSD_DNS_NODE_ASK_SUBTREE)
			s->ask = 1;
	} else {
		if (n->exact_id) {
			s->best = n->exact_id;
			s->best_private = !!(flags & EGRESSD_DNS_NODE_EXACT_PRIVATE);
			s->branches[DNS_BOUND(s->branch, DNS_MAX_BRANCHES - 1)].exact = 1;
		}
		if (flags & EGRESSD_DNS_NODE_ASK_EXACT)
			s->ask = 1;
	}
}

/* One label further from the top-level domain towards the host. Returns 1 when it ends. */
__weak __noinline int dns_step(__u32 dir, __u32 slot)
{
	struct dns_scratch *s = dns_work(dir);
	const struct egressd_dns_node *n;
	struct dns_sip h;
	__u32 left, pos, i, count, start;
	void *map;

	if (!s)
		return 1;
	left = s->left;
	if (!left)
		return 1;
	count = s->glob_count;
	start = s->glob_start;
	for (i = 0; i < EGRESSD_DNS_MAX_GLOBS; i++) {
		if (i >= count)
			break;
		dns_glob(dir, slot, start + i);
	}
	if (!(s->node_flags & EGRESSD_DNS_NODE_CHILDREN))
		return 1;
	pos = s->labels[DNS_BOUND(left - 1, DNS_MAX_LABELS - 1)];
	dns_sip_init(&h, s->key, 1);
	dns_sip_word(&h, s->node.lo);
	dns_sip_word(&h, s->node.hi);
	dns_absorb(s, &h, pos, DNS_BYTE(s, pos) & 63);
	s->node.lo = dns_sip_end(&h, 1);
	s->node.hi = dns_sip_end2(&h);
	map = bpf_map_lookup_elem(&egressd_dnodes, &slot);
	if (!map)
		return 1;
	n = bpf_map_lookup_elem(map, &s->node);
	if (!n)
		return 1;
	dns_enter(s, n, left - 1);
	return 0;
}

/* Walks one branch as deep as the tree knows it; the most specific pattern on it counts. */
__weak __noinline int dns_walk(__u32 dir, __u32 slot, __u32 branch)
{
	struct dns_scratch *s = dns_work(dir);
	const struct egressd_dns_node *n;
	struct dns_branch *b;
	__u32 i, best, count;
	void *map;

	if (!s)
		return 0;
	s->best = 0;
	s->best_private = 0;
	s->branch = branch;
	b = &s->branches[DNS_BOUND(branch, DNS_MAX_BRANCHES - 1)];
	if (branch && s->branches[DNS_BOUND(b->parent, DNS_MAX_BRANCHES - 1)].exact) {
		b->exact = 1;
		return 0;
	}
	s->node = b->key;
	if (branch) {
		map = bpf_map_lookup_elem(&egressd_dnodes, &slot);
		if (!map)
			return 0;
		n = bpf_map_lookup_elem(map, &s->node);
		if (!n)
			return 0;
		dns_enter(s, n, b->left);
	} else {
		s->left = b->left;
		s->node_flags = EGRESSD_DNS_NODE_CHILDREN;
		s->glob_count = 0;
	}
	for (i = 0; i < DNS_MAX_LABELS; i++) {
		if (dns_step(dir, slot))
			break;
	}
	best = s->best;
	if (!best)
		return 0;
	count = s->id_count;
	for (i = 0; i < EGRESSD_DNS_MAX_IDS; i++) {
		if (s->asked.name_ids[i] && s->asked.name_ids[i] == b->covered)
			s->asked.name_ids[i] = 0;
		if (i < count && s->asked.name_ids[i] == best)
			return 0;
	}
	if (count >= EGRESSD_DNS_MAX_IDS) {
		dns_count(EGRESSD_DNS_BRANCH_LOST);
		return 0;
	}
	s->asked.name_ids[DNS_BOUND(count, EGRESSD_DNS_MAX_IDS - 1)] = best;
	if (s->best_private)
		s->asked.private_ids |= 1u << (count & 31);
	s->id_count = count + 1;
	return 1;
}

/* Patterns the question's name matches, to s->asked; s->ask if it may at least be asked. */
__weak __noinline int dns_match(__u32 dir, __u32 slot)
{
	struct dns_scratch *s = dns_work(dir);
	__u32 i;

	if (!s)
		return 0;
	s->id_count = 0;
	s->ask = 0;
	s->asked.private_ids = 0;
	for (i = 0; i < EGRESSD_DNS_MAX_IDS; i++)
		s->asked.name_ids[i] = 0;
	s->branch_count = 1;
	s->branches[0].key.lo = 0;
	s->branches[0].key.hi = 0;
	s->branches[0].left = s->label_count;
	s->branches[0].parent = 0;
	s->branches[0].covered = 0;
	s->branches[0].exact = 0;
	for (i = 0; i < DNS_MAX_BRANCHES; i++) {
		if (i >= s->branch_count)
			break;
		dns_walk(dir, slot, i);
	}
	/* Count what is left; a refusal is like a name nobody knows. */
	s->hits = 0;
	for (i = 0; i < EGRESSD_DNS_MAX_IDS; i++) {
		if (s->asked.name_ids[i] == EGRESSD_DNS_REFUSED) {
			s->asked.name_ids[i] = 0;
			s->ask = 0;
		}
		if (s->asked.name_ids[i])
			DNS_MEM(s->hits) = DNS_MEM(s->hits) + 1;
	}
	s->id_count = DNS_MEM(s->hits);
	return 0;
}

#endif /* EGRESSD_DNS_NAME_H */
