// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * cgroup_skb/egress: the packet verdict, the truth for everything that has a socket, raw sockets
 * included. A flow that was judged is recognised by its socket's storage and costs one look-up.
 *
 * cgroup_skb/ingress: remembers who sent us UDP datagrams first, so that servers can answer.
 */
#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/tcp.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "decide.h"
#include "egressd_abi.h"
#include "maps.h"
#include "packet.h"
#include "record.h"

#define EGRESSD_DROP	    0
#define EGRESSD_PASS	    1
#define EGRESSD_SOCK_STREAM 1
#define EGRESSD_SOCK_DGRAM  2
#define EGRESSD_SOCK_RAW    3
/* The loopback device has this index in every network namespace (LOOPBACK_IFINDEX). */
#define EGRESSD_LO_IFINDEX  1

/* Kernel types, the fields read only; CO-RE finds their offsets at load. */
struct socket {
	void *file;
} __attribute__((preserve_access_index));

struct sock {
	struct socket *sk_socket;
	__u32 sk_max_ack_backlog;
} __attribute__((preserve_access_index));

struct sk_buff {
	struct sock *sk;
} __attribute__((preserve_access_index));

/*
 * True for a socket the kernel made for itself (sock_create_kern: no file). Its control sockets
 * are of type SOCK_RAW and send RST, TIME_WAIT ACK, ICMP errors and neighbour discovery; a raw
 * socket of a process always has a file.
 */
static __always_inline int egressd_is_kernel_socket(struct __sk_buff *skb)
{
	struct sk_buff *kskb = (void *)skb;
	struct socket *socket = NULL;
	struct sock *sk = NULL;
	void *file = NULL;

	if (bpf_core_read(&sk, sizeof(sk), &kskb->sk) || !sk)
		return 0;
	if (bpf_core_read(&socket, sizeof(socket), &sk->sk_socket) || !socket)
		return 0;
	if (bpf_core_read(&file, sizeof(file), &socket->file))
		return 0;
	return !file;
}

/*
 * Over the loopback device, from the host to itself. The source counts as much as the destination:
 * a socket may carry any source (IPV6_FREEBIND needs no privilege, raw sockets write their own),
 * and whatever answers locally would answer to it. Addresses of a pod's namespace are not known
 * here, but what a pod sends to itself has its own address at both ends.
 */
static __always_inline int egressd_is_local(const struct egressd_packet *p, __u32 ifindex)
{
	if (ifindex != EGRESSD_LO_IFINDEX)
		return 0;
	if (egressd_same_addr(&p->saddr, &p->daddr))
		return 1;
	return (egressd_is_loopback(&p->daddr) || bpf_map_lookup_elem(&egressd_local, &p->daddr)) &&
	       (egressd_is_loopback(&p->saddr) || bpf_map_lookup_elem(&egressd_local, &p->saddr));
}

/*
 * True if the connection was accepted, not made: an accepted socket keeps the backlog of its
 * listener (inet_csk_clone_lock copies the whole sock), even when the listener is gone; a socket
 * that never listened has none.
 */
static __always_inline int egressd_was_accepted(struct __sk_buff *skb)
{
	struct sk_buff *kskb = (void *)skb;
	struct sock *sk = NULL;
	__u32 backlog = 0;

	if (bpf_core_read(&sk, sizeof(sk), &kskb->sk) || !sk)
		return 0;
	if (bpf_core_read(&backlog, sizeof(backlog), &sk->sk_max_ack_backlog))
		return 0;
	return backlog != 0;
}

#define EGRESSD_SOURCE 0
#define EGRESSD_DEST   1

/*
 * True for the usual packet to (from) the other end of the flow in the storage: linear headers, no
 * options, no fragment. peer: which of the packet's addresses is the other end. Read in place:
 * nearly every packet is one of these, and copying headers is a third of their cost.
 */
static __always_inline int egressd_is_live(struct __sk_buff *skb, const struct egressd_sock *st,
					   __u32 peer)
{
	const void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	const __u64 *want = (const void *)st->daddr.addr;
	const __u32 *w = (const void *)st->daddr.addr;
	const __u8 *h = data;

	if (data + 28 > end || (st->proto != IPPROTO_TCP && st->proto != IPPROTO_UDP))
		return 0;
	if (h[0] == 0x45)
		return h[9] == st->proto && !(*(const __be16 *)(h + 6) & bpf_htons(0x3fff)) &&
		       *(const __be16 *)(h + 20 + 2 * peer) == st->dport &&
		       *(const __be32 *)(h + 12 + 4 * peer) == w[3] && w[2] == bpf_htonl(0xffff) &&
		       !want[0];
	if (h[0] >> 4 != 6 || data + 48 > end)
		return 0;
	/* A mapped address is never on a wire; see egressd_parse6(). */
	if (!want[0] && w[2] == bpf_htonl(0xffff))
		return 0;
	return h[6] == st->proto && *(const __be16 *)(h + 40 + 2 * peer) == st->dport &&
	       *(const __u64 *)(h + 8 + 16 * peer) == want[0] &&
	       *(const __u64 *)(h + 16 + 16 * peer) == want[1];
}

static __always_inline void egressd_report(struct __sk_buff *skb, const struct egressd_sock *st,
					   const struct egressd_verdict *v,
					   const struct egressd_packet *p)
{
	struct egressd_tally t;
	struct egressd_event *e = &t.event;

	__builtin_memset(&t, 0, sizeof(t));
	e->time_ns = bpf_ktime_get_boot_ns();
	e->cgroup_id = bpf_skb_cgroup_id(skb);
	e->socket_cookie = bpf_get_socket_cookie(skb);
	e->daddr = p->daddr;
	e->saddr = p->saddr;
	e->dport = p->dport;
	e->sport = p->sport;
	e->proto = p->proto;
	e->hook = EGRESSD_HOOK_PACKET;
	e->verdict = v->allow ? EGRESSD_ACTION_ALLOW : EGRESSD_ACTION_DENY;
	e->family = p->family;
	e->reason = v->allow ? v->would_deny : v->reason;
	e->generation = v->generation;
	e->rule_id = v->rule_id;
	e->name_id = v->name_id;
	e->length = skb->len;
	e->uid = bpf_get_socket_uid(skb);
	if (st) {
		/* Whoever last connected or sent; the packet itself knows no process. */
		e->tgid = st->tgid;
		e->pid = st->pid;
		__builtin_memcpy(e->comm, st->comm, sizeof(e->comm));
	}
	egressd_record(&t);
}

SEC("cgroup_skb/egress")
int egressd_egress(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk, *full = NULL;
	struct egressd_sock *st = NULL;
	struct egressd_verdict v;
	struct egressd_packet p;
	__u32 error, type = 0, live_name = 0;

	if (sk)
		full = bpf_sk_fullsock(sk);
	if (full) {
		type = full->type;
		st = bpf_sk_storage_get(&egressd_socks, full, 0, 0);
	}

	if (st) {
		__u32 generation = egressd_generation();

		/*
		 * Once per packet of a live flow, hence not counted: verdicts are, packets are not.
		 * The generation is read before and after: 0 while another CPU rewrites the rest.
		 */
		if ((st->inbound ||
		     (generation && *(volatile __u32 *)&st->generation == generation)) &&
		    egressd_is_live(skb, st, EGRESSD_DEST) &&
		    (st->inbound || *(volatile __u32 *)&st->generation == generation))
			return EGRESSD_PASS;
	}
	error = egressd_parse(skb, &p);
	if (!error && st) {
		if (egressd_sock_holds(st, egressd_generation(), &p.daddr, p.proto, p.dport))
			return EGRESSD_PASS;
		if (egressd_sock_is_for(st, &p.daddr, p.proto, p.dport)) {
			if (st->inbound)
				return EGRESSD_PASS;
			/* Live under an older generation: its name may have expired since. */
			if (st->generation)
				live_name = st->name_id;
		}
	}

	if (type == EGRESSD_SOCK_RAW && egressd_is_kernel_socket(skb)) {
		egressd_count(EGRESSD_ALLOW_KERNEL);
		return EGRESSD_PASS;
	}
	if (error) {
		__builtin_memset(&v, 0, sizeof(v));
		v.reason = error;
		v.rule_id = EGRESSD_NO_RULE;
		v.generation = egressd_generation();
	} else if (egressd_is_local(&p, skb->ifindex)) {
		egressd_count(EGRESSD_ALLOW_LOOPBACK);
		return EGRESSD_PASS;
	} else if (full && p.proto == IPPROTO_TCP && full->protocol == IPPROTO_TCP &&
		   full->state == BPF_TCP_LISTEN) {
		/* SYN-ACK: sent in the listener's name before the connection has a socket. */
		egressd_count(EGRESSD_ALLOW_INBOUND);
		return EGRESSD_PASS;
	} else {
		egressd_decide(&v, &p.daddr, p.proto, bpf_ntohs(p.dport), live_name,
			       EGRESSD_ON_THE_WAY, 0);
	}

	if (!error && (!v.allow || v.would_deny) && full) {
		if (p.proto == IPPROTO_UDP && full->protocol == IPPROTO_UDP &&
		    egressd_answers_peer(bpf_get_socket_cookie(skb), &p.daddr, p.dport)) {
			egressd_count(EGRESSD_ALLOW_INBOUND);
			return EGRESSD_PASS;
		}
		/* Accepted before egressd was there. A socket that connects was never accepted. */
		if (!st && type == EGRESSD_SOCK_STREAM && p.proto == IPPROTO_TCP &&
		    full->protocol == IPPROTO_TCP && full->state != BPF_TCP_SYN_SENT &&
		    full->state != BPF_TCP_CLOSE) {
			const struct egressd_config *cfg;
			__u32 zero = 0, slot;
			const __u32 *active = bpf_map_lookup_elem(&egressd_active, &zero);

			slot = active ? *active & (EGRESSD_SLOTS - 1) : 0;
			cfg = bpf_map_lookup_elem(&egressd_config, &slot);
			if (cfg && bpf_ktime_get_boot_ns() < cfg->adopt_until_ns &&
			    egressd_was_accepted(skb)) {
				st = bpf_sk_storage_get(&egressd_socks, full, 0,
							BPF_SK_STORAGE_GET_F_CREATE);
				if (st) {
					st->daddr = p.daddr;
					st->dport = p.dport;
					st->proto = IPPROTO_TCP;
					st->inbound = 1;
				}
				egressd_count(EGRESSD_ALLOW_INBOUND);
				return EGRESSD_PASS;
			}
		}
	}

	egressd_break_glass(&v);
	egressd_count(v.reason);
	if (!v.allow || v.would_deny)
		egressd_report(skb, st, &v, &p);
	if (!v.allow)
		return EGRESSD_DROP;
	if (v.reason == EGRESSD_ALLOW_OPEN) {
		/* A verdict of before, of a connection that is live, is kept for after. */
		if (st && st->generation)
			return EGRESSD_PASS;
		v.generation = 0; /* no verdict: judged anew each time. Only that we sent first. */
	}

	/* Raw and ping sockets are judged per packet; their storage would mean little. */
	if (full && ((type == EGRESSD_SOCK_STREAM && p.proto == IPPROTO_TCP) ||
		     (type == EGRESSD_SOCK_DGRAM && p.proto == IPPROTO_UDP))) {
		if (!st)
			st = bpf_sk_storage_get(&egressd_socks, full, 0,
						BPF_SK_STORAGE_GET_F_CREATE);
		if (st)
			egressd_remember(st, &v, &p.daddr, p.proto, p.dport);
		else
			egressd_stat(EGRESSD_STAT_STORAGE_FAILED);
	}
	return EGRESSD_PASS;
}

SEC("cgroup_skb/ingress")
int egressd_ingress(struct __sk_buff *skb)
{
	struct egressd_peer_key key = {};
	const struct egressd_sock *st;
	struct egressd_packet p;
	const __u8 *h;
	struct bpf_sock *sk;
	void *data;
	__u64 now;

	data = (void *)(long)skb->data;
	h = data;
	/* Most of what comes is TCP: seen in place. What is neither IPv4 nor IPv6 passes anyway. */
	if (data + 40 <= (void *)(long)skb->data_end &&
	    (h[0] >> 4 == 4 ? h[9] : h[6]) == IPPROTO_TCP)
		return EGRESSD_PASS;
	sk = skb->sk;
	if (!sk)
		return EGRESSD_PASS;
	sk = bpf_sk_fullsock(sk);
	if (!sk || sk->protocol != IPPROTO_UDP)
		return EGRESSD_PASS;
	/* What comes over loopback needs no leave to be answered, and could be forged there. */
	if (skb->ifindex == EGRESSD_LO_IFINDEX)
		return EGRESSD_PASS;
	st = bpf_sk_storage_get(&egressd_socks, sk, 0, 0);
	/*
	 * Without a verdict nobody was sent anything yet: a server that has connected its socket to
	 * a peer goes on to be spoken to first. Unless it was sent by break-glass: the answer to
	 * that is no leave to go on when it is closed, nor is one to another that was sent to
	 * meanwhile.
	 */
	if (st && !st->generation) {
		if (st->reason != EGRESSD_ALLOW_OPEN)
			st = NULL;
		else if (egressd_opened())
			return EGRESSD_PASS;
	}
	if (st && egressd_is_live(skb, st, EGRESSD_SOURCE))
		return EGRESSD_PASS; /* the answer to what we sent ourselves */
	if (egressd_parse(skb, &p) || p.proto != IPPROTO_UDP)
		return EGRESSD_PASS;
	if (st && egressd_sock_is_for(st, &p.saddr, IPPROTO_UDP, p.sport))
		return EGRESSD_PASS; /* likewise, behind extension headers */
	key.addr = p.saddr;
	key.cookie = bpf_get_socket_cookie(skb);
	key.port = p.sport;
	now = bpf_ktime_get_boot_ns();
	bpf_map_update_elem(&egressd_peers, &key, &now, BPF_ANY);
	return EGRESSD_PASS;
}
