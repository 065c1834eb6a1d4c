// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The decision of bpf/decide.h as a match of nftables (xt_bpf), for what no cgroup program sees. It
 * reads the very maps the cgroup programs read and write, so that both layers hold the same at
 * every moment, with and without an agent: what a DNS answer has just taught, the generation in
 * force, and break-glass.
 *
 * xt_bpf takes programs of type socket_filter only, and those may not name a map whose values hold
 * a spin lock, as those of egressd_learned do. Reached through a map of maps it is taken, since
 * Linux 6.2 has such maps.
 */
#include <linux/bpf.h>
#include <linux/in.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "egressd_abi.h"
#include "maps.h"

/* [0] is egressd_learned. Written by the agent, once. */
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
  __uint(max_entries, 1);
  __uint(key_size, sizeof(__u32));
  __uint(value_size, sizeof(__u32));
} egressd_behind SEC(".maps");

static __always_inline void* egressd_learned_of(const void* address) {
  __u32 zero = 0;
  void* map = bpf_map_lookup_elem(&egressd_behind, &zero);

  return map ? bpf_map_lookup_elem(map, address) : NULL;
}

/* For decide.h, which names egressd_learned. */
#define bpf_map_lookup_elem(map, key)                        \
  _Generic((map),                                            \
      __typeof__(&egressd_learned): egressd_learned_of(key), \
      default: (bpf_map_lookup_elem)(map, key))

#include "decide.h"
#include "packet.h"
#include "record.h"

#define EGRESSD_GOES_ON 0
#define EGRESSD_MATCHES 1

static __always_inline void egressd_report(struct __sk_buff* skb, const struct egressd_verdict* v,
                                           const struct egressd_packet* p) {
  struct egressd_tally t;
  struct egressd_event* e = &t.event;

  __builtin_memset(&t, 0, sizeof(t));
  e->time_ns = bpf_ktime_get_boot_ns();
  e->daddr = p->daddr;
  e->saddr = p->saddr;
  e->dport = p->dport;
  e->sport = p->sport;
  e->proto = p->proto;
  e->hook = EGRESSD_HOOK_PACKET;
  e->verdict = EGRESSD_ACTION_DENY;
  e->family = p->family;
  e->reason = v->reason;
  e->generation = v->generation;
  e->rule_id = v->rule_id;
  e->name_id = v->name_id;
  e->length = skb->len;
  e->uid = (__u32)-1;
  egressd_record(&t);
}

/* For the agent: what this program finds. An address: 1 if it has a name now; zeros: the
 * generation. */
SEC("socket")
int egressd_tells(struct __sk_buff* skb) {
  const struct egressd_learned* learned;
  struct egressd_addr address;
  __u64 now = bpf_ktime_get_boot_ns();
  const __u64* w = (const void*)address.addr;
  __u32 i;

  if (bpf_skb_load_bytes(skb, 0, &address, sizeof(address))) return 0;
  if (!w[0] && !w[1]) return egressd_generation();
  learned = bpf_map_lookup_elem(&egressd_learned, &address);
  if (!learned) return 0;
  for (i = 0; i < EGRESSD_MAX_GRANTS; i++) {
    if (learned->grants[i].name_id && learned->grants[i].expires_ns > now) return 1;
  }
  return 0;
}

/*
 * Whether a name the address has or had until now allows this: a connection that rests on it lives
 * as long as its socket, and whether there is one is not known here. Whatever names it has besides,
 * as for live_name in egressd_decide().
 */
static __always_inline int egressd_may_live(const struct egressd_packet* p) {
  const struct egressd_learned* learned;
  const __u32* active;
  __u32 zero = 0, slot, i;

  if (p->proto != IPPROTO_TCP && p->proto != IPPROTO_UDP) return 0;
  active = bpf_map_lookup_elem(&egressd_active, &zero);
  learned = bpf_map_lookup_elem(&egressd_learned, &p->daddr);
  if (!active || !learned) return 0;
  slot = *(volatile const __u32*)active & (EGRESSD_SLOTS - 1);
  for (i = 0; i < EGRESSD_MAX_GRANTS; i++) {
    __u32 name_id = *(volatile const __u32*)&learned->grants[i].name_id;
    const struct egressd_list* list;
    __u32 match;

    if (!name_id || !egressd_still(learned, &p->daddr)) continue;
    list = egressd_name_list(slot, name_id);
    if (!list) continue;
    match = egressd_match(slot, list->start, list->count, p->proto, bpf_ntohs(p->dport));
    if (match && egressd_rule_allows(slot, match)) return 1;
  }
  return 0;
}

/* Matches what is to be refused, which is then counted and recorded here. */
SEC("socket")
int egressd_refuses(struct __sk_buff* skb) {
  struct egressd_verdict v;
  struct egressd_packet p;
  __u32 error;

  error = egressd_parse(skb, &p);
  if (error) {
    __builtin_memset(&v, 0, sizeof(v));
    v.reason = error;
    v.rule_id = EGRESSD_NO_RULE;
    v.generation = egressd_generation();
  } else {
    egressd_decide(&v, &p.daddr, p.proto, bpf_ntohs(p.dport), 0, EGRESSD_ON_THE_WAY, 0);
  }
  if (v.allow) return EGRESSD_GOES_ON;
  if ((v.reason == EGRESSD_DENY_EXPIRED || v.reason == EGRESSD_DENY_PORT) && egressd_may_live(&p))
    return EGRESSD_GOES_ON;
  egressd_break_glass(&v);
  if (v.allow) return EGRESSD_GOES_ON;
  egressd_count(v.reason);
  egressd_report(skb, &v, &p);
  return EGRESSD_MATCHES;
}
