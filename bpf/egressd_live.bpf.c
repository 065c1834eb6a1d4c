// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Which grants do live sockets rest on? The agent asks every so often and keeps these from ending,
 * so that a connection can be opened again to the address it had.
 *
 * A walk over the socket storage sees the sockets of every network namespace. An object of its own:
 * a kernel without this iterator (before 5.9) or without BTF loses this and nothing else. The maps
 * are those of the main object.
 */
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "decide.h"
#include "egressd_abi.h"
#include "maps.h"

/* linux/tcp_states.h, which is no UAPI header; fixed since inet_diag shows them. */
#define EGRESSD_TCP_ESTABLISHED 1
#define EGRESSD_TCP_FIN_WAIT1	4
#define EGRESSD_TCP_FIN_WAIT2	5
#define EGRESSD_TCP_CLOSE_WAIT	8

/* Kernel types, the fields read only; CO-RE finds their offsets at load. */
struct socket;

struct sock_common {
	volatile unsigned char skc_state;
} __attribute__((preserve_access_index));

struct sock {
	struct sock_common __sk_common;
	struct socket *sk_socket;
} __attribute__((preserve_access_index));

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
} __attribute__((preserve_access_index));

struct bpf_iter__bpf_sk_storage_map {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	struct sock *sk;
	void *value;
} __attribute__((preserve_access_index));

/* Grants that end before this are written. Set by the agent before it reads. */
volatile __u64 egressd_live_until;

/*
 * True while a process has the socket open and data may go one way at least. A datagram socket is
 * ESTABLISHED once connected. Not those that still connect, nor those their process has closed: the
 * kernel may go on for minutes with what they had to send.
 */
static __always_inline int egressd_is_open(struct sock *sk)
{
	unsigned char state = sk->__sk_common.skc_state;

	if (state != EGRESSD_TCP_ESTABLISHED && state != EGRESSD_TCP_CLOSE_WAIT &&
	    state != EGRESSD_TCP_FIN_WAIT1 && state != EGRESSD_TCP_FIN_WAIT2)
		return 0;
	return sk->sk_socket != NULL;
}

/* True if the name's rules allow the socket's destination in the generation in force. */
static __always_inline int egressd_still_allows(const struct egressd_live *live, __u32 proto,
						__be16 dport)
{
	const struct egressd_list *list;
	__u32 zero = 0, slot, match;
	const __u32 *active;

	active = bpf_map_lookup_elem(&egressd_active, &zero);
	if (!active)
		return 0;
	slot = *(volatile const __u32 *)active & (EGRESSD_SLOTS - 1);
	list = egressd_name_list(slot, live->name_id);
	if (!list)
		return 0;
	match = egressd_match(slot, list->start, list->count, proto, bpf_ntohs(dport));
	return match && egressd_rule_allows(slot, match);
}

/* Fills in when the grant ends; 0 if it is gone: nothing is granted anew here. */
static __always_inline int egressd_find_grant(struct egressd_live *live)
{
	const struct egressd_learned *learned;
	__u32 i;

	learned = bpf_map_lookup_elem(&egressd_learned, &live->addr);
	if (!learned)
		return 0;
	for (i = 0; i < EGRESSD_MAX_GRANTS; i++) {
		const struct egressd_grant *g = &learned->grants[i];
		/* In this order, as in egressd_decide(). */
		__u64 expires = *(volatile const __u64 *)&g->expires_ns;

		if (*(volatile const __u32 *)&g->name_id != live->name_id)
			continue;
		live->expires_ns = expires;
		return egressd_still(learned, &live->addr);
	}
	return 0;
}

/*
 * Writes one struct egressd_live per socket whose grant ends before egressd_live_until, unsorted
 * and with repetitions: the reader extends grants as it reads, and later sockets are passed over.
 */
SEC("iter/bpf_sk_storage_map")
int egressd_live(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	const volatile struct egressd_sock *st = ctx->value;
	struct egressd_live live = {};
	struct sock *sk = ctx->sk;
	__u64 *to = (void *)live.addr.addr;
	const volatile __u64 *from;
	__u32 generation, proto;
	__be16 dport;

	if (!sk || !st)
		return 0;
	/* As egressd_sock_holds(): 0 while another CPU rewrites the rest, or no verdict. */
	generation = st->generation;
	live.name_id = st->name_id;
	if (!generation || !live.name_id || st->inbound || !egressd_is_open(sk))
		return 0;
	from = (const volatile void *)st->daddr.addr;
	to[0] = from[0];
	to[1] = from[1];
	dport = st->dport;
	proto = st->proto;
	if (st->generation != generation)
		return 0;
	if (!egressd_find_grant(&live) || live.expires_ns >= egressd_live_until)
		return 0;
	if (egressd_still_allows(&live, proto, dport))
		bpf_seq_write(ctx->meta->seq, &live, sizeof(live));
	return 0;
}
