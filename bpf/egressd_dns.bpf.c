// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * DNS, judged and learned in the kernel: which names may be asked, and which addresses their
 * answers make reachable, before the one who asked can read them. The agent may be dead. dns.md
 * tells the whole; the work is in dns_*.h so that tests reach it without a socket.
 */
#include "dns_packet.h"

/* Questions. Beside the packet verdict: a packet leaves only if both let it. */
SEC("cgroup_skb/egress")
int egressd_dns_out(struct __sk_buff *skb)
{
	if (dns_plainly_not(skb, 2))
		return DNS_PASS;
	if (dns_out_packet(skb, 0) == DNS_DROP)
		return DNS_DROP;
	return DNS_PASS;
}

/* Answers. Never refuses one; a TCP segment that is early waits for those before it. */
SEC("cgroup_skb/ingress")
int egressd_dns_in(struct __sk_buff *skb)
{
	if (dns_plainly_not(skb, 0))
		return DNS_PASS;
	if (dns_in_packet(skb, 0, 0) == DNS_DROP)
		return DNS_DROP;
	return DNS_PASS;
}

/* Requests carried out by one run of egressd_grant. */
#define DNS_GRANT_BATCH 64

/*
 * The agent's way to write grants, by BPF_PROG_TEST_RUN: 14 bytes that stand for an Ethernet
 * header of a protocol that is not IP, then 1..64 struct egressd_grant_request. Never attached.
 * Returns 1 if all were carried out (how each went is counted, as for DNS answers), else 0.
 */
SEC("cgroup_skb/ingress")
int egressd_grant(struct __sk_buff *skb)
{
	struct dns_scratch *s = dns_work(EGRESSD_DNS_AGENT);
	struct egressd_grant_request r;
	__u64 now = bpf_ktime_get_boot_ns();
	__u32 i;

	if (!s)
		return 0;
	for (i = 0; i < DNS_GRANT_BATCH; i++) {
		if (i * sizeof(r) >= skb->len)
			return 1;
		if (bpf_skb_load_bytes(skb, i * sizeof(r), &r, sizeof(r)))
			return 0;
		s->addr = r.addr;
		s->victim = r.addr;
		if (r.op == EGRESSD_GRANT_ADD)
			dns_count(dns_grant(EGRESSD_DNS_AGENT, r.name_id, r.expires_ns, now, 0));
		else if (r.op == EGRESSD_GRANT_SWEEP)
			dns_remove(EGRESSD_DNS_AGENT, 0, r.expires_ns);
		else
			return 0;
	}
	return i * sizeof(r) >= skb->len;
}
