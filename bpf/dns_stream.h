/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Messages over TCP: put together from segments in order, each judged before its last byte passes.
 */
#ifndef EGRESSD_DNS_STREAM_H
#define EGRESSD_DNS_STREAM_H

#include <linux/bpf.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "dns_message.h"

#define DNS_STREAM_MORE	 0 /* not done: call again */
#define DNS_STREAM_EMPTY 1 /* every byte of the packet is used up */
#define DNS_STREAM_WHOLE 2 /* s->msg holds s->len bytes of a message */
#define DNS_STREAM_BAD	 3

/*
 * Takes one piece of a TCP stream from the packet: bytes to skip, a length prefix, or (part of) a
 * message of at most `max` bytes; of a longer one its head, the rest is skipped.
 */
__weak __noinline int dns_stream_step(struct __sk_buff *skb, __u32 dir, __u32 max)
{
	struct dns_scratch *s = dns_work(dir);
	__u32 have, want, size;
	__u64 n, at;

	if (!s || max > EGRESSD_DNS_MSG_MAX)
		return DNS_STREAM_BAD;
	if (!s->st_left)
		return DNS_STREAM_EMPTY;
	if (s->st_skip) {
		n = s->st_skip < s->st_left ? s->st_skip : s->st_left;
		s->st_skip -= n;
		s->st_off += n;
		s->st_left -= n;
		return DNS_STREAM_MORE;
	}
	have = s->st_have;
	if (!have && s->st_left >= 2) {
		if (bpf_skb_load_bytes(skb, s->st_off, s->st_prefix, 2))
			return DNS_STREAM_BAD;
		s->st_off += 2;
		s->st_left -= 2;
		s->st_have = 2;
		s->st_size = (__u32)s->st_prefix[0] << 8 | s->st_prefix[1];
		return DNS_STREAM_MORE;
	}
	if (have < 2) {
		if (bpf_skb_load_bytes(skb, s->st_off, &s->st_prefix[DNS_BOUND(have, 1)], 1))
			return DNS_STREAM_BAD;
		s->st_off++;
		s->st_left--;
		s->st_have = have + 1;
		if (have == 1)
			s->st_size = (__u32)s->st_prefix[0] << 8 | s->st_prefix[1];
		return DNS_STREAM_MORE;
	}
	size = s->st_size;
	want = size < max ? size : max;
	have -= 2;
	if (have < want) {
		n = want - have;
		if (n > s->st_left)
			n = s->st_left;
		at = DNS_BOUND(have, EGRESSD_DNS_MSG_MAX - 1);
		if (n - 1 >= EGRESSD_DNS_MSG_MAX)
			return DNS_STREAM_BAD;
		if (bpf_skb_load_bytes(skb, s->st_off, &s->msg[at],
				       DNS_SIZE(n, EGRESSD_DNS_MSG_MAX)))
			return DNS_STREAM_BAD;
		s->st_off += n;
		s->st_left -= n;
		have += n;
		s->st_have = have + 2;
	}
	if (have < want)
		return DNS_STREAM_EMPTY;
	s->len = want;
	s->oversize = size > want;
	s->st_skip = size - want;
	s->st_have = 0;
	return DNS_STREAM_WHOLE;
}

/* Pieces taken of one packet: two per message, so some 80 messages pipelined into one. */
#define DNS_STREAM_STEPS 160

struct dns_segment {
	__u32 seq;
	__u32 ack;
	__u32 off; /* of the payload */
	__u32 len; /* of the payload */
	__u32 flags;
};

#define DNS_TCP_SYN 0x02
#define DNS_TCP_ACK 0x10

static __always_inline int dns_segment(struct __sk_buff *skb, __u32 l4, struct dns_segment *g)
{
	__u8 header[20];
	__u32 end = skb->len;

	if (bpf_skb_load_bytes(skb, l4, header, sizeof(header)))
		return 1;
	g->seq = bpf_ntohl(*(__be32 *)&header[4]);
	g->ack = bpf_ntohl(*(__be32 *)&header[8]);
	g->flags = header[13];
	g->off = l4 + (header[12] >> 4) * 4;
	if (g->off < l4 + 20 || g->off > end)
		return 1;
	g->len = end - g->off;
	return 0;
}

static __always_inline struct dns_stream *dns_stream_of(struct __sk_buff *skb, __u64 flags)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return NULL;
	sk = bpf_sk_fullsock(sk);
	/* A raw socket could send the same bytes twice, with different content. */
	if (!sk || sk->protocol != IPPROTO_TCP || sk->type != 1 /* SOCK_STREAM */)
		return NULL;
	return bpf_sk_storage_get(&egressd_dstream, sk, NULL, flags);
}

/*
 * A segment to a trusted resolver. A question leaves only in one piece with its verdict: the
 * segment that completes one for a name that may not be asked is dropped, and so is what the
 * stack retransmits of it. The state moves on only when the segment may leave.
 */
__weak __noinline int dns_out_tcp(struct __sk_buff *skb, __u32 l4, __u32 slot, __u64 cookie)
{
	struct dns_scratch *s = dns_work(EGRESSD_DNS_OUT);
	struct dns_stream *st;
	struct dns_segment g;
	__u32 turn, i, skip;
	__u64 token, n;
	int r, ask;

	if (!s)
		return DNS_DROP;
	if (dns_segment(skb, l4, &g))
		return dns_refuse_unread(skb, s, slot, EGRESSD_DNS_DENIED_MALFORMED, IPPROTO_TCP);
	if (g.flags & DNS_TCP_SYN) {
		if (g.len) /* fast open: the client sends it again without data */
			return dns_refuse_unread(skb, s, slot, EGRESSD_DNS_DENIED_STREAM,
						 IPPROTO_TCP);
		st = dns_stream_of(skb, BPF_SK_STORAGE_GET_F_CREATE);
		if (st) {
			st->out_next = g.seq + 1;
			st->out_have = 0;
			st->in_ready = 0;
		}
		return DNS_PASS;
	}
	if (!g.len)
		return DNS_PASS;
	st = dns_stream_of(skb, 0);
	if (!st || dns_borrowed(skb) || (__s32)(g.seq - st->out_next) > 0)
		return dns_refuse_unread(skb, s, slot, EGRESSD_DNS_DENIED_STREAM, IPPROTO_TCP);
	skip = st->out_next - g.seq;
	if (skip >= g.len)
		return DNS_PASS; /* sent before, and judged then */
	for (turn = 0; turn < 2; turn++) {
		token = dns_take_token(s);
		s->len = 0;
		s->qtype = 0;
		s->st_off = g.off + skip;
		s->st_left = g.len - skip;
		s->st_skip = 0;
		s->st_have = st->out_have;
		s->st_size = st->out_size;
		s->st_prefix[0] = st->out_prefix[0];
		s->st_prefix[1] = st->out_prefix[1];
		n = (__u64)st->out_have - 3;
		if (n < EGRESSD_DNS_TCP_QUERY_MAX &&
		    bpf_probe_read_kernel(s->msg, DNS_SIZE(n + 1, EGRESSD_DNS_TCP_QUERY_MAX),
					  st->out))
			return dns_refuse(skb, slot, EGRESSD_DNS_DENIED_STREAM, IPPROTO_TCP);
		ask = DNS_PASS;
		r = DNS_STREAM_MORE;
		for (i = 0; i < DNS_STREAM_STEPS; i++) {
			r = dns_stream_step(skb, EGRESSD_DNS_OUT, EGRESSD_DNS_TCP_QUERY_MAX);
			if (r == DNS_STREAM_MORE)
				continue;
			if (r != DNS_STREAM_WHOLE)
				break;
			if (s->oversize)
				return dns_refuse(skb, slot, EGRESSD_DNS_DENIED_MALFORMED,
						  IPPROTO_TCP);
			ask = dns_ask(skb, slot, cookie, token, IPPROTO_TCP);
			if (ask != DNS_PASS)
				break;
		}
		if (ask == DNS_DROP)
			return DNS_DROP;
		if (ask == 2)
			continue;
		if (r != DNS_STREAM_EMPTY)
			return dns_refuse(skb, slot, EGRESSD_DNS_DENIED_STREAM, IPPROTO_TCP);
		/* What is left is the head of the next question. */
		st->out_size = s->st_size;
		st->out_prefix[0] = s->st_prefix[0];
		st->out_prefix[1] = s->st_prefix[1];
		skip = s->st_have;
		n = (__u64)skip - 3;
		if (n < EGRESSD_DNS_TCP_QUERY_MAX &&
		    bpf_probe_read_kernel(st->out, DNS_SIZE(n + 1, EGRESSD_DNS_TCP_QUERY_MAX),
					  s->msg))
			return dns_refuse(skb, slot, EGRESSD_DNS_DENIED_STREAM, IPPROTO_TCP);
		asm volatile("" ::: "memory");
		if (s->token != token)
			return dns_refuse(skb, slot, EGRESSD_DNS_DENIED_RACE, IPPROTO_TCP);
		st->out_have = skip;
		st->out_next = g.seq + g.len;
		return DNS_PASS;
	}
	return dns_refuse(skb, slot, EGRESSD_DNS_DENIED_RACE, IPPROTO_TCP);
}

/*
 * A segment from a trusted resolver on a trusted link. Segments are read in order, before the one
 * that completes an answer is delivered; one that is early is dropped, and the resolver sends it
 * again. Returns DNS_DROP or DNS_PASS.
 */
__weak __noinline int dns_in_tcp(struct __sk_buff *skb, __u32 l4, __u32 slot, __u64 cookie,
				 __u32 netns)
{
	struct dns_scratch *s = dns_work(EGRESSD_DNS_IN);
	struct dns_stream *st;
	struct dns_segment g;
	__u32 i, skip, busy;
	int r = DNS_STREAM_MORE;
	__u64 n;

	if (!s || dns_segment(skb, l4, &g))
		return DNS_PASS;
	if (!g.len && !(g.flags & DNS_TCP_SYN))
		return DNS_PASS;
	st = dns_stream_of(skb, 0);
	if (!st) {
		dns_count(EGRESSD_DNS_STREAM_LOST);
		return DNS_PASS;
	}
	if (g.flags & DNS_TCP_SYN) {
		if (g.flags & DNS_TCP_ACK && !st->in_ready && g.ack == st->out_next) {
			st->in_next = g.seq + 1;
			st->in_have = 0;
			st->in_skip = 0;
			st->in_ready = 1;
		}
		return DNS_PASS;
	}
	if (!st->in_ready) {
		dns_count(EGRESSD_DNS_STREAM_LOST);
		return DNS_PASS;
	}
	bpf_spin_lock(&st->lock);
	busy = st->in_busy;
	st->in_busy = 1;
	bpf_spin_unlock(&st->lock);
	if (busy || (__s32)(g.seq - st->in_next) > 0) {
		if (!busy)
			st->in_busy = 0;
		dns_count(EGRESSD_DNS_STREAM_HELD);
		return DNS_DROP;
	}
	skip = st->in_next - g.seq;
	if (skip >= g.len) {
		st->in_busy = 0;
		return DNS_PASS;
	}
	s->st_off = g.off + skip;
	s->st_left = g.len - skip;
	s->st_skip = st->in_skip;
	s->st_have = st->in_have;
	s->st_size = st->in_size;
	s->st_prefix[0] = st->in_prefix[0];
	s->st_prefix[1] = st->in_prefix[1];
	n = (__u64)st->in_have - 3;
	if (n < EGRESSD_DNS_MSG_MAX &&
	    bpf_probe_read_kernel(s->msg, DNS_SIZE(n + 1, EGRESSD_DNS_MSG_MAX), st->in))
		s->st_left = 0;
	for (i = 0; i < DNS_STREAM_STEPS; i++) {
		r = dns_stream_step(skb, EGRESSD_DNS_IN, EGRESSD_DNS_MSG_MAX);
		if (r == DNS_STREAM_MORE)
			continue;
		if (r != DNS_STREAM_WHOLE)
			break;
		dns_in_message(skb, slot, cookie, netns, IPPROTO_TCP);
	}
	if (r != DNS_STREAM_EMPTY) {
		st->in_ready = 0;
		st->in_busy = 0;
		dns_count(EGRESSD_DNS_STREAM_LOST);
		return DNS_PASS;
	}
	st->in_skip = s->st_skip;
	st->in_size = s->st_size;
	st->in_prefix[0] = s->st_prefix[0];
	st->in_prefix[1] = s->st_prefix[1];
	skip = s->st_have;
	n = (__u64)skip - 3;
	if (n < EGRESSD_DNS_MSG_MAX &&
	    bpf_probe_read_kernel(st->in, DNS_SIZE(n + 1, EGRESSD_DNS_MSG_MAX), s->msg))
		skip = 0;
	st->in_have = skip;
	st->in_next = g.seq + g.len;
	st->in_busy = 0;
	return DNS_PASS;
}

#endif /* EGRESSD_DNS_STREAM_H */
