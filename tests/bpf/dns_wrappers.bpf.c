// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Ways into the DNS functions for tests: a test run has no socket that asked anything, so cookie
 * and namespace are given. Messages come without IP header, packets with.
 */
#include "dns_wrappers.h"
#include "dns_maps.h"

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct dns_test_io);
} dns_test_io SEC(".maps");

/*
 * A test run's socket is of no protocol and gone with its packet. In its place: one that the test
 * describes in dns_test_io, with stream state that stays.
 */
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct dns_stream);
} dns_test_stream SEC(".maps");

static __always_inline struct bpf_sock* dns_test_sock(void) {
  __u32 zero = 0;
  struct dns_test_io* io = bpf_map_lookup_elem(&dns_test_io, &zero);

  return io ? &io->sock : NULL;
}

static __always_inline void* dns_test_storage(const void* map, __u64 flags) {
  __u32 zero = 0;
  struct dns_test_io* io = bpf_map_lookup_elem(&dns_test_io, &zero);
  struct dns_stream* st;

  if (map != &egressd_dstream || !io) return NULL;
  if (!io->stream && !(flags & BPF_SK_STORAGE_GET_F_CREATE)) return NULL;
  io->stream = 1;
  st = bpf_map_lookup_elem(&dns_test_stream, &zero);
  if (st && io->stream_busy) st->in_busy = io->stream_busy & 1;
  return st;
}

#define bpf_sk_fullsock(sk) dns_test_sock()
#define bpf_sk_storage_get(map, sk, value, flags) dns_test_storage(map, flags)
#include "dns_packet.h"

static __always_inline int load_message(struct __sk_buff* skb, struct dns_scratch* s,
                                        struct dns_test_io* io) {
  __u64 n = io->length ? io->length : skb->len;

  if (n - 1 >= EGRESSD_DNS_MSG_MAX) return 1;
  s->len = n;
  if (io->length)
    return bpf_probe_read_kernel(s->msg, DNS_SIZE(n, EGRESSD_DNS_MSG_MAX), io->message) != 0;
  return bpf_skb_load_bytes(skb, 0, s->msg, DNS_SIZE(n, EGRESSD_DNS_MSG_MAX)) != 0;
}

/* A question: what dns_judge() says of it. */
SEC("cgroup_skb/egress")
int dns_test_judge(struct __sk_buff* skb) {
  struct dns_scratch* s = dns_work(EGRESSD_DNS_OUT);
  __u32 zero = 0;
  struct dns_test_io* io = bpf_map_lookup_elem(&dns_test_io, &zero);

  if (!s || !io || load_message(skb, s, io)) return 0;
  s->asked_key.cookie = DNS_TEST_COOKIE;
  s->id_count = 0;
  s->ask = 0;
  io->outcome = dns_judge(EGRESSD_DNS_OUT, dns_slot());
  io->judged = s->asked;
  io->judged_key = s->asked_key;
  io->ask = s->ask;
  io->name_hash = s->question_hash;
  return 1;
}

/* An answer: what dns_in_message() makes of it, and the records it believed. */
SEC("cgroup_skb/ingress")
int dns_test_answer(struct __sk_buff* skb) {
  struct dns_scratch* s = dns_work(EGRESSD_DNS_IN);
  __u32 zero = 0, i, n;
  struct dns_test_io* io = bpf_map_lookup_elem(&dns_test_io, &zero);

  if (!s || !io || load_message(skb, s, io)) return 0;
  if (io->seed) {
    io->asked.asked_ns = bpf_ktime_get_boot_ns();
    io->asked.key = io->key;
    bpf_map_update_elem(&egressd_dasked, &io->key, &io->asked, BPF_ANY);
  }
  s->oversize = 0;
  s->found_count = 0;
  io->outcome = dns_in_message(skb, dns_slot(), DNS_TEST_COOKIE, DNS_TEST_NETNS, IPPROTO_UDP);
  if (io->seed) /* nothing outstanding from one case to the next */
    bpf_map_delete_elem(&egressd_dasked, &io->key);
  io->chain_ttl = s->chain_ttl;
  n = s->found_count;
  io->found = n;
  for (i = 0; i < DNS_TEST_MAX; i++) {
    if (i >= n) break;
    io->addresses[i].off = s->found[i].off;
    io->addresses[i].ttl = s->found[i].ttl;
  }
  return 1;
}

/* Whole packets, as the attached programs see them. */
SEC("cgroup_skb/egress")
int dns_test_out(struct __sk_buff* skb) {
  __u32 zero = 0;
  const struct dns_test_io* io = bpf_map_lookup_elem(&dns_test_io, &zero);

  if (!io) return DNS_DROP;
  if (dns_plainly_not(skb, 2)) return DNS_PASS;
  if (dns_out_packet(skb, io->cookie ? io->cookie : DNS_TEST_COOKIE) == DNS_DROP) return DNS_DROP;
  return DNS_PASS;
}

SEC("cgroup_skb/ingress")
int dns_test_in(struct __sk_buff* skb) {
  __u32 zero = 0, netns = DNS_TEST_NETNS;
  const struct dns_test_io* io = bpf_map_lookup_elem(&dns_test_io, &zero);

  if (!io) return DNS_DROP;
  if (io->netns) netns = io->netns == DNS_TEST_OWN_NETNS ? 0 : io->netns;
  if (dns_plainly_not(skb, 0)) return DNS_PASS;
  if (dns_in_packet(skb, io->cookie ? io->cookie : DNS_TEST_COOKIE, netns) == DNS_DROP)
    return DNS_DROP;
  return DNS_PASS;
}
