// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * connect4/6 and sendmsg4/6: the early verdict. The caller gets EPERM at once instead of a
 * connection that hangs, and this is the only place where the process is known on every kernel.
 * The packet hook remains the truth for what does not come this way.
 *
 * sock_ops marks accepted TCP connections: what the other side opened may be answered.
 */
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "decide.h"
#include "egressd_abi.h"
#include "maps.h"
#include "record.h"

#ifndef AF_INET
#define AF_INET	 2
#define AF_INET6 10
#endif
#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

static __always_inline void egressd_identify(struct egressd_sock *st)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();

	st->tgid = pid_tgid >> 32;
	st->pid = (__u32)pid_tgid;
	st->uid = (__u32)bpf_get_current_uid_gid();
	st->cgroup_id = bpf_get_current_cgroup_id();
	bpf_get_current_comm(st->comm, sizeof(st->comm));
}

static __always_inline void egressd_report_addr(struct bpf_sock_addr *ctx,
						const struct egressd_verdict *v,
						const struct egressd_addr *a, __u32 proto,
						__u32 hook)
{
	struct egressd_tally t;
	struct egressd_event *e = &t.event;
	__u64 pid_tgid;

	__builtin_memset(&t, 0, sizeof(t));
	pid_tgid = bpf_get_current_pid_tgid();
	e->time_ns = bpf_ktime_get_boot_ns();
	e->cgroup_id = bpf_get_current_cgroup_id();
	e->socket_cookie = bpf_get_socket_cookie(ctx);
	e->daddr = *a;
	e->dport = (__be16)ctx->user_port;
	e->proto = proto;
	e->hook = hook;
	e->verdict = v->allow ? EGRESSD_ACTION_ALLOW : EGRESSD_ACTION_DENY;
	e->family = ctx->family;
	e->reason = v->allow ? v->would_deny : v->reason;
	e->generation = v->generation;
	e->rule_id = v->rule_id;
	e->name_id = v->name_id;
	e->tgid = pid_tgid >> 32;
	e->pid = (__u32)pid_tgid;
	e->uid = (__u32)bpf_get_current_uid_gid();
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	egressd_record(&t);
}

/*
 * True if a socket in the caller's namespace receives what is sent to this address and port. A
 * socket bound to no address does so for every one: the packet hook sees where it really goes.
 */
static __always_inline int egressd_is_listened_on(struct bpf_sock_addr *ctx,
						  const struct egressd_addr *a, __u32 proto,
						  __be16 dport)
{
	struct bpf_sock_tuple t = {};
	struct bpf_sock *sk;
	__u32 size;

	if (egressd_is_v4(a)) {
		__builtin_memcpy(&t.ipv4.saddr, a->addr + 12, 4);
		__builtin_memcpy(&t.ipv4.daddr, a->addr + 12, 4);
		t.ipv4.dport = dport;
		if (ctx->sk) /* the peer may be connected to us */
			t.ipv4.sport = bpf_htons((__u16)ctx->sk->src_port);
		size = sizeof(t.ipv4);
	} else {
		__builtin_memcpy(t.ipv6.saddr, a->addr, 16);
		__builtin_memcpy(t.ipv6.daddr, a->addr, 16);
		t.ipv6.dport = dport;
		if (ctx->sk)
			t.ipv6.sport = bpf_htons((__u16)ctx->sk->src_port);
		size = sizeof(t.ipv6);
	}
	if (proto == IPPROTO_TCP)
		sk = bpf_sk_lookup_tcp(ctx, &t, size, BPF_F_CURRENT_NETNS, 0);
	else if (proto == IPPROTO_UDP)
		sk = bpf_sk_lookup_udp(ctx, &t, size, BPF_F_CURRENT_NETNS, 0);
	else
		return 0;
	if (!sk)
		return 0;
	bpf_sk_release(sk);
	return 1;
}

/*
 * What may be an own address of the namespace although egressd_local does not have it: anything in
 * a pod's, whose addresses are known nowhere, and link-local ones.
 */
static __always_inline int egressd_may_be_own(const struct egressd_addr *a, __u64 netns_cookie)
{
	const struct egressd_config *cfg;
	__u32 zero = 0, slot;
	const __u32 *active;

	if (a->addr[0] == 0xfe && (a->addr[1] & 0xc0) == 0x80)
		return 1;
	active = bpf_map_lookup_elem(&egressd_active, &zero);
	if (!active)
		return 0;
	slot = *(volatile const __u32 *)active & (EGRESSD_SLOTS - 1);
	cfg = bpf_map_lookup_elem(&egressd_config, &slot);
	return cfg && (!cfg->local_netns_cookie || cfg->local_netns_cookie != netns_cookie);
}

/* Returns 1 to go on, 0 for EPERM. */
static __always_inline int egressd_judge_addr(struct bpf_sock_addr *ctx,
					      const struct egressd_addr *a, __u32 hook)
{
	struct bpf_sock *sk = ctx->sk;
	struct egressd_sock *st = NULL;
	struct egressd_verdict v;
	int undecided;
	__u64 netns_cookie = bpf_get_netns_cookie(ctx);
	__u32 proto = ctx->protocol, live_name = 0;
	__be16 dport = (__be16)ctx->user_port;

	/* Its subflows are TCP, and are judged as such when they connect. */
	if (proto == IPPROTO_MPTCP)
		proto = IPPROTO_TCP;

	if (sk)
		st = bpf_sk_storage_get(&egressd_socks, sk, 0, 0);
	/* A datagram socket that keeps sending to one place: what was said holds. */
	if (st && hook == EGRESSD_HOOK_SENDMSG &&
	    egressd_sock_holds(st, egressd_generation(), a, proto, dport))
		return 1;

	/* Live under an older generation: its name may have expired since. */
	if (st && hook == EGRESSD_HOOK_SENDMSG && st->generation &&
	    egressd_sock_is_for(st, a, proto, dport))
		live_name = st->name_id;
	egressd_decide(&v, a, proto, bpf_ntohs(dport), live_name, EGRESSD_BEFORE_ROUTING,
		       netns_cookie);
	if (!v.allow && hook == EGRESSD_HOOK_SENDMSG && proto == IPPROTO_UDP &&
	    egressd_answers_peer(bpf_get_socket_cookie(ctx), a, dport)) {
		egressd_count(EGRESSD_ALLOW_INBOUND);
		return 1;
	}
	/*
	 * Left to the packet hook:
	 * connect() on a datagram socket, which sends nothing. getaddrinfo() does it with every
	 * address to see which source it would get (RFC 6724), servers with peers they answer; a
	 * refusal would change the order of the one, break the other and fill the records.
	 * What may be an own address: somebody listens there, in its namespace.
	 */
	undecided =
		hook == EGRESSD_HOOK_CONNECT && proto == IPPROTO_UDP && (!v.allow || v.would_deny);
	if (!v.allow && (v.reason == EGRESSD_DENY_DEFAULT || v.reason == EGRESSD_DENY_DNS_SERVER) &&
	    egressd_may_be_own(a, netns_cookie))
		undecided |= egressd_is_listened_on(ctx, a, proto, dport);
	if (!undecided) {
		egressd_break_glass(&v);
		egressd_count(v.reason);
		if (!v.allow || v.would_deny)
			egressd_report_addr(ctx, &v, a, proto, hook);
		if (!v.allow)
			return 0;
	}

	if (!st && sk)
		st = bpf_sk_storage_get(&egressd_socks, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (st) {
		/*
		 * A local destination says nothing of the source: the packet hook looks at both.
		 * And what passes by break-glass is judged anew each time.
		 */
		if (undecided || v.reason == EGRESSD_ALLOW_LOOPBACK ||
		    v.reason == EGRESSD_ALLOW_OPEN)
			v.generation = 0; /* no verdict: only who asked, for the packet's record */
		egressd_remember(st, &v, a, proto, dport);
		egressd_identify(st);
	} else {
		egressd_stat(EGRESSD_STAT_STORAGE_FAILED);
	}
	return 1;
}

static __always_inline void egressd_addr4(struct egressd_addr *a, __be32 ip)
{
	__u32 *w = (void *)a->addr;

	w[0] = 0;
	w[1] = 0;
	w[2] = bpf_htonl(0xffff);
	w[3] = ip;
}

static __always_inline void egressd_addr6(struct egressd_addr *a, struct bpf_sock_addr *ctx)
{
	__u32 *w = (void *)a->addr;

	w[0] = ctx->user_ip6[0];
	w[1] = ctx->user_ip6[1];
	w[2] = ctx->user_ip6[2];
	w[3] = ctx->user_ip6[3];
}

SEC("cgroup/connect4")
int egressd_conn4(struct bpf_sock_addr *ctx)
{
	struct egressd_addr a;

	egressd_addr4(&a, ctx->user_ip4);
	return egressd_judge_addr(ctx, &a, EGRESSD_HOOK_CONNECT);
}

SEC("cgroup/connect6")
int egressd_conn6(struct bpf_sock_addr *ctx)
{
	struct egressd_addr a;

	egressd_addr6(&a, ctx);
	return egressd_judge_addr(ctx, &a, EGRESSD_HOOK_CONNECT);
}

SEC("cgroup/sendmsg4")
int egressd_send4(struct bpf_sock_addr *ctx)
{
	struct egressd_addr a;

	egressd_addr4(&a, ctx->user_ip4);
	return egressd_judge_addr(ctx, &a, EGRESSD_HOOK_SENDMSG);
}

SEC("cgroup/sendmsg6")
int egressd_send6(struct bpf_sock_addr *ctx)
{
	struct egressd_addr a;

	egressd_addr6(&a, ctx);
	return egressd_judge_addr(ctx, &a, EGRESSD_HOOK_SENDMSG);
}

/*
 * A question that may not leave over TCP is dropped each time it is sent again, and nothing tells
 * the client: without this, getaddrinfo() with use-vc waits for a quarter of an hour.
 */
#define EGRESSD_DNS_TCP_TIMEOUT_MS 3000
#ifndef SOL_TCP
#define SOL_TCP 6
#endif
#ifndef TCP_USER_TIMEOUT
#define TCP_USER_TIMEOUT 18
#endif

static __always_inline void egressd_peer(struct egressd_addr *a, struct bpf_sock_ops *ops)
{
	__u32 *w = (void *)a->addr;

	if (ops->family == AF_INET) {
		__be32 ip = ops->remote_ip4;

		/* Or clang makes one load of both branches, at an offset the verifier refuses. */
		asm volatile("" : "+r"(ip));
		egressd_addr4(a, ip);
		return;
	}
	w[0] = ops->remote_ip6[0];
	w[1] = ops->remote_ip6[1];
	w[2] = ops->remote_ip6[2];
	w[3] = ops->remote_ip6[3];
}

static __always_inline void egressd_hurry_dns(struct bpf_sock_ops *ops)
{
	const struct egressd_dns_server *server;
	const struct egressd_config *cfg;
	const __u32 *active;
	struct egressd_addr a;
	int ms = EGRESSD_DNS_TCP_TIMEOUT_MS;
	__u32 zero = 0, slot;

	if (bpf_ntohl(ops->remote_port) != EGRESSD_DNS_PORT)
		return;
	active = bpf_map_lookup_elem(&egressd_active, &zero);
	if (!active)
		return;
	slot = *(volatile const __u32 *)active & (EGRESSD_SLOTS - 1);
	cfg = bpf_map_lookup_elem(&egressd_config, &slot);
	if (!cfg || cfg->dns_filter != EGRESSD_DNS_FILTER_ENFORCE)
		return; /* nothing is dropped */
	egressd_peer(&a, ops);
	server = bpf_map_lookup_elem(&egressd_dserver, &a);
	if (server && server->slots & 1u << slot)
		bpf_setsockopt(ops, SOL_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
}

SEC("sockops")
int egressd_sockops(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;
	struct egressd_sock *st;

	if (ops->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
		egressd_hurry_dns(ops);
	if (ops->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB || !sk)
		return 1;
	st = bpf_sk_storage_get(&egressd_socks, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!st) {
		egressd_stat(EGRESSD_STAT_STORAGE_FAILED);
		return 1;
	}
	/*
	 * A simultaneous open ends here too, but was judged when it connected: it keeps its
	 * verdict, or has none and is judged anew each time if it passed by break-glass.
	 */
	if (st->generation || st->reason == EGRESSD_ALLOW_OPEN)
		return 1;
	egressd_peer(&st->daddr, ops);
	/* remote_port is in network order, in the upper half on little endian (uapi/linux/bpf.h).
	 */
	st->dport = bpf_htons((__u16)bpf_ntohl(ops->remote_port));
	st->proto = IPPROTO_TCP;
	st->inbound = 1;
	egressd_count(EGRESSD_ALLOW_INBOUND);
	return 1;
}
