/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* A message, however it came: whose packet it is, what is reported, refused, asked and learned. */
#ifndef EGRESSD_DNS_MESSAGE_H
#define EGRESSD_DNS_MESSAGE_H

#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "decide.h"
#include "dns_answer.h"
#include "dns_query.h"

#define DNS_DROP 0
#define DNS_PASS 1

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

#endif /* EGRESSD_DNS_MESSAGE_H */
