// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * A test run has a socket of its own, new each time: it asked nothing and has no flow. These
 * programs give it one or the other, then go on to the program that is measured, the very one the
 * agent loaded, or to an empty one.
 */
#include "dns_bench.h"
#include <bpf/bpf_helpers.h>
#include <linux/bpf.h>
#include "dns_maps.h"

/* Filled before the first run: 0 the empty program, then those of the agent. */
struct {
  __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
  __uint(max_entries, 2);
  __uint(key_size, sizeof(__u32));
  __uint(value_size, sizeof(__u32));
} bench_out SEC(".maps"), bench_in SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct dns_bench_io);
} bench_io SEC(".maps");

SEC("cgroup_skb/egress")
int bench_empty_out(struct __sk_buff* skb) { return 1; }

SEC("cgroup_skb/ingress")
int bench_empty_in(struct __sk_buff* skb) { return 1; }

/* Its socket's first run judges, as it were; all others find the flow. 2: what is next is not
 * there. */
SEC("cgroup_skb/egress")
int bench_live(struct __sk_buff* skb) {
  struct bpf_sock* sk = skb->sk;
  struct egressd_sock* st;
  struct dns_bench_io* io;
  __u32 zero = 0;

  io = bpf_map_lookup_elem(&bench_io, &zero);
  if (!io || !sk) return 0;
  sk = bpf_sk_fullsock(sk);
  if (!sk) return 0;
  st = bpf_sk_storage_get(&egressd_socks, sk, NULL, 0);
  if (!st) {
    st = bpf_sk_storage_get(&egressd_socks, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
    if (!st) return 0;
    *st = io->live;
  }
  bpf_tail_call(skb, &bench_out, io->next);
  return 0;
}

SEC("cgroup_skb/ingress")
int bench_answer(struct __sk_buff* skb) {
  struct egressd_dns_asked_key key;
  struct egressd_dns_asked asked;
  struct dns_bench_io* io;
  __u32 zero = 0;

  io = bpf_map_lookup_elem(&bench_io, &zero);
  if (!io) return 0;
  if (io->steps & BENCH_REMEMBER) {
    key = io->question;
    key.cookie = bpf_get_socket_cookie(skb);
    asked = io->asked;
    asked.asked_ns = bpf_ktime_get_boot_ns();
    asked.ifindex = skb->ifindex;
    asked.key = key;
    if (bpf_map_update_elem(&egressd_dasked, &key, &asked, BPF_ANY)) return 0;
    if (io->steps & BENCH_FORGET) bpf_map_delete_elem(&egressd_dasked, &key);
  }
  bpf_tail_call(skb, &bench_in, io->next);
  return 0;
}
