/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* From packets to messages and back: UDP datagrams, TCP streams, trust, and what is reported. */
#ifndef EGRESSD_DNS_PACKET_H
#define EGRESSD_DNS_PACKET_H

#include <linux/bpf.h>
#include <linux/tcp.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "decide.h"
#include "dns_answer.h"
#include "dns_query.h"
#include "packet.h"

#define DNS_PORT       53
/* The loopback device in every network namespace: whoever may send raw packets forges there. */
#define DNS_LO_IFINDEX 1
#define DNS_DROP       0
#define DNS_PASS       1

/* Kernel types, the fields read only; CO-RE finds their offsets at load. */
struct ns_common___dns {
	unsigned int inum;
} __attribute__((preserve_access_index));

struct user_namespace___dns {
	int level;
} __attribute__((preserve_access_index));

struct net___dns {
	struct ns_common___dns ns;
	struct user_namespace___dns *user_ns;
} __attribute__((preserve_access_index));

typedef struct {
	struct net___dns *net;
} __attribute__((preserve_access_index)) possible_net_t___dns;

struct sock_common___dns {
	possible_net_t___dns skc_net;
} __attribute__((preserve_access_index));

struct sock___dns {
	struct sock_common___dns __sk_common;
} __attribute__((preserve_access_index));

struct sk_buff___dns {
	struct sock___dns *sk;
	unsigned char *head;
	unsigned int end; /* from head, on 64-bit machines */
} __attribute__((preserve_access_index));

struct skb_shared_info___dns {
	__u8 flags; /* since 5.12 */
	__u8 tx_flags;
} __attribute__((preserve_access_index));

#define DNS_SHARED_FLAGS    3	 /* SKBFL_ZEROCOPY_ENABLE, SKBFL_SHARED_FRAG */
#define DNS_SHARED_TX_FLAGS 0x28 /* before: SKBTX_DEV_ZEROCOPY, SKBTX_SHARED_FRAG */

/*
 * True if the payload may be in memory the sender can still write to (MSG_ZEROCOPY, splice): what
 * is judged here need not be what leaves.
 */
__weak __noinline int dns_borrowed(struct __sk_buff *skb)
{
	struct sk_buff___dns *kskb = (void *)skb;
	struct skb_shared_info___dns *info;
	unsigned char *head = NULL;
	unsigned int end = 0;
	__u8 flags = 0xff;

	if (bpf_core_read(&head, sizeof(head), &kskb->head) ||
	    bpf_core_read(&end, sizeof(end), &kskb->end))
		return 1;
	info = (void *)(head + end);
	if (bpf_core_field_exists(info->flags)) {
		bpf_core_read(&flags, sizeof(flags), &info->flags);
		return flags & DNS_SHARED_FLAGS;
	}
	bpf_core_read(&flags, sizeof(flags), &info->tx_flags);
	return flags & DNS_SHARED_TX_FLAGS;
}

static __always_inline struct net___dns *dns_net(struct __sk_buff *skb)
{
	struct sk_buff___dns *kskb = (void *)skb;
	struct sock___dns *sk = NULL;
	struct net___dns *net = NULL;

	if (bpf_core_read(&sk, sizeof(sk), &kskb->sk) || !sk)
		return NULL;
	if (bpf_core_read(&net, sizeof(net), &sk->__sk_common.skc_net.net))
		return NULL;
	return net;
}

/*
 * True if the namespace was made by someone with privileges on the host: a container runtime, not
 * a user who ran `unshare -Urn` and is root only in a user namespace of their own. Needs no agent
 * to know the namespace, so pods that start while it is away learn names like any other.
 */
static __always_inline int dns_host_owned(struct __sk_buff *skb)
{
	struct net___dns *net = dns_net(skb);
	struct user_namespace___dns *user_ns = NULL;
	int level = -1;

	if (!net || bpf_core_read(&user_ns, sizeof(user_ns), &net->user_ns) || !user_ns)
		return 0;
	if (bpf_core_read(&level, sizeof(level), &user_ns->level))
		return 0;
	return level == 0;
}

/*
 * Inode number of the socket's network namespace, 0 if unknown. bpf_get_netns_cookie would be
 * simpler, but cgroup_skb programs have it from 6.15 on only (refused on 6.1 and 6.12).
 */
static __always_inline __u32 dns_netns(struct __sk_buff *skb)
{
	struct net___dns *net = dns_net(skb);
	unsigned int inum = 0;

	if (!net)
		return 0;
	if (bpf_core_read(&inum, sizeof(inum), &net->ns.inum))
		return 0;
	return inum;
}

/* The process that connected the socket or sent on it last, as the socket hooks noted it. */
static __always_inline void dns_identify(struct __sk_buff *skb, struct egressd_dns_event *e)
{
	struct bpf_sock *sk = skb->sk;
	const struct egressd_sock *st;

	e->uid = bpf_get_socket_uid(skb);
	if (sk)
		sk = bpf_sk_fullsock(sk);
	if (!sk)
		return;
	st = bpf_sk_storage_get(&egressd_socks, sk, NULL, 0);
	if (!st)
		return;
	e->tgid = st->tgid;
	e->pid = st->pid;
	if (!e->cgroup_id)
		e->cgroup_id = st->cgroup_id;
	__builtin_memcpy(e->comm, st->comm, sizeof(e->comm));
}

static __always_inline __u32 dns_reason(__u32 outcome)
{
	return outcome == EGRESSD_DNS_DENIED_NAME || outcome == EGRESSD_DNS_DENIED_TYPE
		       ? EGRESSD_DENY_DNS_NAME
		       : EGRESSD_DENY_DNS_MALFORMED;
}

static __always_inline void dns_lost(__u32 kind, __u32 outcome)
{
	__u32 reason = dns_reason(outcome);
	__u64 *n;

	dns_count(EGRESSD_DNS_EVENTS_LOST);
	if (kind != EGRESSD_DNS_EVENT_DENIED)
		return;
	n = bpf_map_lookup_elem(&egressd_lost, &reason);
	if (n)
		*n += 1;
}

/*
 * Sends s->event and the message behind it. Records that can wait do not wake the reader until a
 * quarter of the buffer is in use: waking costs more than learning. The agent reads on a timer.
 */
static __always_inline void dns_report(struct __sk_buff *skb, struct dns_scratch *s, __u32 kind,
				       __u32 outcome, __u32 verdict, __u32 proto)
{
	struct egressd_dns_event *e = &s->event;
	__u64 n = s->len, flags;
	__u32 i;

	if (n > EGRESSD_DNS_MSG_MAX)
		n = EGRESSD_DNS_MSG_MAX;
	e->time_ns = bpf_ktime_get_boot_ns();
	e->socket_cookie = bpf_get_socket_cookie(skb);
	e->cgroup_id = kind == EGRESSD_DNS_EVENT_DENIED ? bpf_skb_cgroup_id(skb) : 0;
	e->kind = kind;
	e->outcome = outcome;
	e->verdict = verdict;
	e->ifindex = skb->ifindex;
	e->qtype = s->qtype;
	e->proto = proto;
	e->ttl_s = s->min_ttl;
	e->addresses = s->learned_count;
	e->length = n;
	for (i = 0; i < EGRESSD_DNS_MAX_IDS; i++)
		e->name_ids[i] = kind == EGRESSD_DNS_EVENT_DENIED ? 0 : s->asked.name_ids[i];
	e->tgid = 0;
	e->pid = 0;
	e->uid = 0;
	__builtin_memset(e->comm, 0, sizeof(e->comm));
	e->generation = egressd_generation();
	dns_identify(skb, e);
	/* Half of the buffer is for what the agent has to know: refusals are counted anyway. */
	if ((kind == EGRESSD_DNS_EVENT_DENIED || kind == EGRESSD_DNS_EVENT_OBSERVED) &&
	    bpf_ringbuf_query(&egressd_devents, BPF_RB_AVAIL_DATA) > 1 << 19) {
		dns_lost(kind, outcome);
		return;
	}
	flags = BPF_RB_NO_WAKEUP;
	if (kind == EGRESSD_DNS_EVENT_TOO_LARGE ||
	    bpf_ringbuf_query(&egressd_devents, BPF_RB_AVAIL_DATA) > 1 << 18)
		flags = BPF_RB_FORCE_WAKEUP;
	if (bpf_ringbuf_output(&egressd_devents, e,
			       sizeof(*e) + DNS_BOUND(n, 2 * EGRESSD_DNS_MSG_MAX - 1), flags))
		dns_lost(kind, outcome);
}

/* A question that may not leave: dropped and recorded, or only recorded, as the filter says. */
__weak __noinline int dns_refuse(struct __sk_buff *skb, __u32 slot, __u32 outcome, __u32 proto)
{
	struct dns_scratch *s = dns_work(EGRESSD_DNS_OUT);
	const struct egressd_dns_config *cfg = bpf_map_lookup_elem(&egressd_dconfig, &slot);
	__u32 reason = dns_reason(outcome);
	__u64 *n;

	if (!s || !cfg)
		return DNS_DROP;
	if (cfg->filter == EGRESSD_DNS_FILTER_OFF) {
		dns_count(EGRESSD_DNS_UNFILTERED);
		return DNS_PASS;
	}
	s->learned_count = 0;
	s->min_ttl = 0;
	if (cfg->filter == EGRESSD_DNS_FILTER_AUDIT || egressd_opened()) {
		dns_count(EGRESSD_DNS_WOULD_DENY);
		dns_report(skb, s, EGRESSD_DNS_EVENT_DENIED, outcome, EGRESSD_ACTION_ALLOW, proto);
		return DNS_PASS;
	}
	dns_count(outcome);
	n = bpf_map_lookup_elem(&egressd_counts, &reason);
	if (n)
		*n += 1;
	dns_report(skb, s, EGRESSD_DNS_EVENT_DENIED, outcome, EGRESSD_ACTION_DENY, proto);
	return DNS_DROP;
}

/*
 * Judges the message in the egress scratch and remembers it. cookie names the socket; 0 takes the
 * packet's own. `token` is the run's own: judged is only what no other sender disturbed, see
 * dns_scratch. Returns DNS_DROP, DNS_PASS, or 2 if the run was disturbed.
 */
__weak __noinline int dns_ask(struct __sk_buff *skb, __u32 slot, __u64 cookie, __u64 token,
			      __u32 proto)
{
	struct dns_scratch *s = dns_work(EGRESSD_DNS_OUT);
	/*
	 * The map's key is the one in its value: with another, Linux up to 6.1, which rounds each
	 * frame up to 32 bytes, finds the deepest call 544 bytes deep and takes 512.
	 */
	struct egressd_dns_asked asked;
	int outcome;

	if (!s)
		return DNS_DROP;
	outcome = dns_judge(EGRESSD_DNS_OUT, slot);
	asked = s->asked;
	asked.key = s->asked_key;
	asm volatile("" ::: "memory");
	if (s->token != token)
		return 2;
	if (outcome == EGRESSD_DNS_ASKED_NO_GRANT) {
		dns_count(outcome);
		return DNS_PASS;
	}
	if (outcome != EGRESSD_DNS_ASKED) {
		if (dns_refuse(skb, slot, outcome, proto) != DNS_PASS)
			return DNS_DROP;
		/* What the mode lets pass has a name on record as well. */
		if (outcome != EGRESSD_DNS_DENIED_NAME || !asked.observed)
			return DNS_PASS;
	}
	asked.key.cookie = cookie ? cookie : bpf_get_socket_cookie(skb);
	asked.asked_ns = bpf_ktime_get_boot_ns();
	asked.ifindex = skb->ifindex;
	/* Twice: the LRU finds nothing to give up if another CPU is at it. */
	if (bpf_map_update_elem(&egressd_dasked, &asked.key, &asked, BPF_ANY) &&
	    bpf_map_update_elem(&egressd_dasked, &asked.key, &asked, BPF_ANY))
		dns_count(EGRESSD_DNS_PENDING_FAILED);
	if (outcome == EGRESSD_DNS_ASKED)
		dns_count(outcome);
	return DNS_PASS;
}

static __always_inline __u64 dns_take_token(struct dns_scratch *s)
{
	__u64 token = (__u64)bpf_get_prandom_u32() << 32 | bpf_get_prandom_u32();

	s->token = token;
	asm volatile("" ::: "memory");
	return token;
}

/* dns_refuse() of what has no question to show: nothing of the last run's goes on record. */
static __always_inline int dns_refuse_unread(struct __sk_buff *skb, struct dns_scratch *s,
					     __u32 slot, __u32 outcome, __u32 proto)
{
	dns_take_token(s);
	s->len = 0;
	s->qtype = 0;
	return dns_refuse(skb, slot, outcome, proto);
}

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

/* The message in the ingress scratch is complete: learn from it, report. */
__weak __noinline int dns_in_message(struct __sk_buff *skb, __u32 slot, __u64 cookie, __u32 netns,
				     __u32 proto)
{
	struct dns_scratch *s = dns_work(EGRESSD_DNS_IN);
	int outcome;

	if (!s)
		return 0;
	outcome = dns_answer(EGRESSD_DNS_IN, slot, cookie ? cookie : bpf_get_socket_cookie(skb));
	dns_count(outcome);
	s->event.netns = netns;
	if (outcome == EGRESSD_DNS_LEARNED)
		dns_report(skb, s, EGRESSD_DNS_EVENT_LEARNED, outcome, EGRESSD_ACTION_ALLOW, proto);
	else if (outcome == EGRESSD_DNS_TOO_LARGE)
		dns_report(skb, s, EGRESSD_DNS_EVENT_TOO_LARGE, outcome, EGRESSD_ACTION_ALLOW,
			   proto);
	else if (outcome == EGRESSD_DNS_OBSERVED)
		dns_report(skb, s, EGRESSD_DNS_EVENT_OBSERVED, outcome, EGRESSD_ACTION_ALLOW,
			   proto);
	return outcome;
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
