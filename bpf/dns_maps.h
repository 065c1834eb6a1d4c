/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Maps of the DNS programs, beside those of maps.h, in the same form: who writes, who reads, how
 * large and why, what happens when full. A look-up that fails learns nothing and, with the filter
 * on, lets no question out.
 */
#ifndef EGRESSD_DNS_MAPS_H
#define EGRESSD_DNS_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "egressd_abi.h"
#include "maps.h"

/* What holds for a generation as a whole. Written by the agent while the slot is not active. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, EGRESSD_SLOTS);
	__type(key, __u32);
	__type(value, struct egressd_dns_config);
} egressd_dconfig EGRESSD_MAP;

/*
 * The name tree of a generation, one inner map per slot as in maps.h: made and filled by the agent
 * before its slot becomes active, never written after that, hence never full.
 */
struct egressd_dnodes_inner {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct egressd_dns_node_key));
	__uint(value_size, sizeof(struct egressd_dns_node));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, EGRESSD_SLOTS);
	__type(key, __u32);
	__array(values, struct egressd_dnodes_inner);
} egressd_dnodes EGRESSD_MAP;

/* In-label patterns, found from their parent's node. */
struct egressd_dglobs_inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct egressd_dns_glob));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, EGRESSD_SLOTS);
	__type(key, __u32);
	__array(values, struct egressd_dglobs_inner);
} egressd_dglobs EGRESSD_MAP;

/*
 * Interfaces answers are believed on: the host's, and one per pod. Written by the agent. Full:
 * nothing is learned for the pods left out.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct egressd_dns_link);
	__type(value, __u32);
} egressd_dlinks EGRESSD_MAP;

/*
 * Outstanding questions. Written by egressd_dns_out, removed by the answer. LRU: a flood pushes
 * out the oldest, whose answer then teaches nothing. 16 Ki questions are 160 ms of 100k per
 * second, 1.6 MB.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct egressd_dns_asked_key);
	__type(value, struct egressd_dns_asked);
} egressd_dasked EGRESSD_MAP;

/*
 * A TCP connection to a resolver: what of the current message has gone by, each way. Made at our
 * SYN, freed with the socket. No memory: its questions do not leave while the filter is on.
 */
struct dns_stream {
	struct bpf_spin_lock lock;
	__u32 in_busy;	/* 1: another CPU is reading a segment */
	__u32 in_ready; /* 1: in_next is known */
	__u32 in_next;	/* sequence number */
	__u32 in_have;
	__u32 in_size;
	__u32 in_skip;
	__u32 out_next;
	__u32 out_have;
	__u32 out_size;
	__u8 in_prefix[8];
	__u8 out_prefix[8];
	__u8 in[EGRESSD_DNS_MSG_MAX];
	__u8 out[EGRESSD_DNS_TCP_QUERY_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct dns_stream);
} egressd_dstream EGRESSD_MAP;

/*
 * Grants held per name, for the quota. Written by whoever adds or frees a grant. Full: names
 * without an entry are not held to their quota.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, __u64);
} egressd_dusage EGRESSD_MAP;

/*
 * Every address of egressd_learned at a place of its own, in the order they came; zero: free. A
 * hand goes round and reclaims what has ended when a new address needs a place, so that learning
 * goes on without an agent; when all it sees is in use, what ends soonest gives way. As large as
 * egressd_learned, set by the agent. An address that lost its place in a race is found by the
 * agent's sweep only.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 131072);
	__type(key, __u32);
	__type(value, struct egressd_addr);
} egressd_dplaces EGRESSD_MAP;

struct dns_hand {
	struct bpf_spin_lock lock;
	__u32 next;
	__u32 used;    /* places ever used: those behind are free */
	__u32 of_name; /* the next one looked at for a name at its quota */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct dns_hand);
} egressd_dhand EGRESSD_MAP;

/* Records to the agent: struct egressd_dns_event and the message. Full: counted as lost. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} egressd_devents EGRESSD_MAP;

/* What became of messages and addresses, by enum egressd_dns_outcome. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, EGRESSD_DNS_OUTCOME_MAX);
	__type(key, __u32);
	__type(value, __u64);
} egressd_dstats EGRESSD_MAP;

/*
 * Work space of one run, one per CPU and direction: far larger than the 512 bytes of stack, and
 * values the verifier does not track, which is what keeps the programs small to verify.
 *
 * Ingress runs in softirq, one at a time on a CPU. Egress runs in the sender's context and can be
 * interrupted by another sender on the same CPU; see `token`.
 */
#define EGRESSD_DNS_IN	  0
#define EGRESSD_DNS_OUT	  1
#define EGRESSD_DNS_AGENT 2
#define EGRESSD_DNS_DIRS  3

#define DNS_MAX_LABELS	  128 /* 127 one-byte labels make 254 bytes, the root label the 255th */
#define DNS_MAX_POINTERS  16  /* compression pointers followed in one name */
#define DNS_MAX_CNAMES	  16
#define DNS_MAX_ADDRESSES 256
#define DNS_MAX_RECORDS	  320 /* addresses, CNAMEs, and signatures over them */
#define DNS_MAX_BRANCHES  8
#define DNS_SLACK	  256 /* words are read whole past the end of a label */

struct dns_branch {
	struct egressd_dns_node_key key;
	__u32 left;
	__u32 parent;
	__u32 covered; /* id found before the `*`: wider than anything found behind it */
	__u32 exact;   /* 1: ended at the name itself; branches off it are wider */
};

struct dns_cname {
	__u64 owner;
	__u64 target;
	__u32 ttl;
	__u32 used;
};

struct dns_found {
	__u64 owner;
	__u32 ttl;
	__u32 off;
};

/* As struct egressd_learned, without a lock: per-CPU values cannot have one. */
struct dns_fresh {
	__u32 lock;
	__u32 dead;
	struct egressd_addr addr;
	__u32 place;
	__u32 pad;
	struct egressd_grant grants[EGRESSD_MAX_GRANTS];
};

struct dns_scratch {
	/*
	 * Whose run this is. A run that finds another's token at its end was overtaken on this
	 * CPU and starts over: what it saw may be a mixture.
	 */
	__u64 token;
	__u64 key[2]; /* hash key */
	__u64 v[4];   /* hash state */
	__u64 now;

	/* the name being read */
	__u64 name_hash;
	__u64 memo_hash;
	__u32 memo_off; /* name whose hash is memo_hash, 0 = none */
	__u32 memo_jumps;
	__u32 pos;
	__u32 limit; /* a pointer must lead before this */
	__u32 total;
	__u32 jumps;
	__u32 end; /* behind the name, where it was first found */
	__u32 label_count;

	/* the message */
	__u32 len;
	__u32 off;
	__u32 slot;
	__u32 qtype;
	__u32 qclass;
	__u32 ifindex; /* it came in by */
	__u64 question_hash;

	/* the name tree walk */
	struct egressd_dns_node_key node;
	__u32 node_flags;
	__u32 glob_start;
	__u32 glob_count;
	__u32 left;
	__u32 best;
	__u32 best_private;
	__u32 ask;
	__u32 id_count;
	__u32 branch_count;
	__u32 branch;
	struct egressd_dns_asked asked;
	struct egressd_dns_asked_key asked_key;

	/* the answer */
	__u64 chain_end;
	__u32 chain_ttl;
	__u32 cname_count;
	__u32 found_count;
	__u32 learned_count;
	__u32 min_ttl;

	/* loop results: in memory, or the verifier follows every combination of them */
	__u32 hits;
	__u32 hit;
	__u32 at;
	__u64 soonest;

	/* the TCP stream being read */
	__u32 st_off;	/* next byte of the packet */
	__u32 st_left;	/* bytes of it left */
	__u32 st_have;	/* bytes of the message so far, its length prefix included */
	__u32 st_size;	/* its length once the prefix is there */
	__u32 st_skip;	/* bytes to pass over: the rest of a message that is too long */
	__u32 oversize; /* 1: only the head of the message is in msg */
	__u8 st_prefix[8];

	/* the grant being written */
	struct egressd_addr addr;
	struct dns_fresh fresh;

	/* the address that gives way */
	struct egressd_addr seen;
	struct egressd_addr victim;
	__u64 victim_end;
	__u64 latest;
	__u32 victim_place;
	__u32 place;
	__u32 seen_count;
	__u32 taken[EGRESSD_MAX_GRANTS];

	__u16 labels[DNS_MAX_LABELS];
	struct dns_branch branches[DNS_MAX_BRANCHES];
	struct dns_cname cnames[DNS_MAX_CNAMES];
	struct dns_found found[DNS_MAX_ADDRESSES];

	struct egressd_dns_event event; /* the message follows it, as in the ring buffer */
	/* Twice the size: the verifier cannot see that offset plus length stay within it. */
	__u8 msg[2 * EGRESSD_DNS_MSG_MAX + DNS_SLACK];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, EGRESSD_DNS_DIRS);
	__type(key, __u32);
	__type(value, struct dns_scratch);
} egressd_dwork EGRESSD_MAP;

static __always_inline struct dns_scratch *dns_work(__u32 dir)
{
	return bpf_map_lookup_elem(&egressd_dwork, &dir);
}

static __always_inline void dns_count(__u32 outcome)
{
	__u64 *n = bpf_map_lookup_elem(&egressd_dstats, &outcome);

	if (n)
		*n += 1;
}

/* The slot in force, or EGRESSD_SLOTS if there is none. */
static __always_inline __u32 dns_slot(void)
{
	__u32 zero = 0;
	const __u32 *active = bpf_map_lookup_elem(&egressd_active, &zero);

	if (!active)
		return EGRESSD_SLOTS;
	return *(volatile const __u32 *)active & (EGRESSD_SLOTS - 1);
}

/*
 * Bounds an index right where it is used. In asm, because clang drops a mask that an earlier test
 * made redundant, and the verifier does not remember the test across memory and calls.
 */
#define DNS_BOUND(value, mask)                                                                     \
	({                                                                                         \
		__u64 bound_ = (value);                                                            \
		asm volatile("%0 &= %1" : "+r"(bound_) : "i"(mask));                               \
		bound_;                                                                            \
	})

/*
 * A size known to be 1..limit (a power of two), so that every verifier knows it too: the mask is
 * put where clang cannot prove it needless and fold it away.
 */
#define DNS_SIZE(n, limit) (DNS_BOUND((n) - 1, (limit) - 1) + 1)

/* A value that lives in memory, never in a register from one loop turn to the next; see hits. */
#define DNS_MEM(x) (*(volatile __typeof__(x) *)&(x))

#define DNS_BYTE(s, at)	 ((s)->msg[DNS_BOUND(at, EGRESSD_DNS_MSG_MAX - 1)])
#define DNS_WORD(s, at)	 (*(__u64 *)&(s)->msg[DNS_BOUND(at, EGRESSD_DNS_MSG_MAX - 1)])
#define DNS_SHORT(s, at) ((__u32)DNS_BYTE(s, at) << 8 | DNS_BYTE(s, (at) + 1))

#endif /* EGRESSD_DNS_MAPS_H */
