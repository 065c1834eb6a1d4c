/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Every map: who writes, who reads, how large and why, and what happens when it is full.
 * A look-up that fails never opens: a missing entry means "no rule", a missing map
 * EGRESSD_DENY_INTERNAL.
 *
 * Weak, so that each .bpf.c includes this file and the static linker keeps one of each.
 */
#ifndef EGRESSD_MAPS_H
#define EGRESSD_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "egressd_abi.h"

#define EGRESSD_MAP SEC(".maps") __weak

/* The helpers used here (ringbuf, sk_storage, probe_read) are for GPL-compatible programs only. */
char LICENSE[] SEC("license") __weak = "GPL";

/*
 * Which slot of the policy maps is in force. Written by the agent as the last step of a reload,
 * one aligned word, so that every program run sees one generation or the other, never a mixture.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} egressd_active EGRESSD_MAP;

/* What holds for a generation as a whole. Written by the agent while the slot is not active. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, EGRESSD_SLOTS);
	__type(key, __u32);
	__type(value, struct egressd_config);
} egressd_config EGRESSD_MAP;

/*
 * The four policy maps of a generation. The agent creates an inner map of the size the policy
 * needs, fills it, and puts it into the inactive slot; sizes below are those of the template only.
 * Nothing is added to an inner map after that, so it cannot be full.
 * Inner maps give sizes instead of types: clang leaves types used only there undefined in BTF.
 */
struct egressd_hosts_inner {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct egressd_addr));
	__uint(value_size, sizeof(struct egressd_list));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, EGRESSD_SLOTS);
	__type(key, __u32);
	__array(values, struct egressd_hosts_inner);
} egressd_hosts EGRESSD_MAP;

struct egressd_lpm4_inner {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct egressd_lpm4_key));
	__uint(value_size, sizeof(struct egressd_list));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, EGRESSD_SLOTS);
	__type(key, __u32);
	__array(values, struct egressd_lpm4_inner);
} egressd_lpm4 EGRESSD_MAP;

struct egressd_lpm6_inner {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct egressd_lpm6_key));
	__uint(value_size, sizeof(struct egressd_list));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, EGRESSD_SLOTS);
	__type(key, __u32);
	__array(values, struct egressd_lpm6_inner);
} egressd_lpm6 EGRESSD_MAP;

struct egressd_rules_inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct egressd_rule));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, EGRESSD_SLOTS);
	__type(key, __u32);
	__array(values, struct egressd_rules_inner);
} egressd_rules EGRESSD_MAP;

/* name_id -> the rules that FQDN pattern stands for in this generation. */
struct egressd_names_inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct egressd_list));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, EGRESSD_SLOTS);
	__type(key, __u32);
	__array(values, struct egressd_names_inner);
} egressd_names EGRESSD_MAP;

/*
 * Addresses DNS gave for allowed names, across generations. Written by whoever hears the answer;
 * grants are freed by the agent's sweep. Size is set by the agent before load (128 Ki addresses
 * unless told otherwise, about 25 MB when full, allocated as used). Full: a new address is not
 * learned and the failure counted; the connection is denied, what is there stays.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 131072);
	__type(key, struct egressd_addr);
	__type(value, struct egressd_learned);
} egressd_learned EGRESSD_MAP;

/* The host's own addresses. Written by the agent. Full: those left out need a rule. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct egressd_addr);
	__type(value, __u8);
} egressd_local EGRESSD_MAP;

/*
 * Trusted DNS servers, and on which links their answers are believed. Written by the agent. Full:
 * the policy is refused.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 256);
	__type(key, struct egressd_addr);
	__type(value, struct egressd_dns_server);
} egressd_dserver EGRESSD_MAP;

/*
 * Verdict and identity per socket. Written by connect/sendmsg and packet hooks; freed with the
 * socket. Cannot be full; an allocation that fails is counted and the packet judged anew.
 */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct egressd_sock);
} egressd_socks EGRESSD_MAP;

/*
 * Peers that sent a UDP datagram to one of our sockets first: the socket may answer them. Key is
 * socket and peer, value the time of the last datagram. LRU: a flood of peers pushes out the
 * oldest, whose next answer is then judged by policy.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct egressd_peer_key);
	__type(value, __u64);
} egressd_peers EGRESSD_MAP;

/* Break-glass. Written by egressctl. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct egressd_open);
} egressd_open EGRESSD_MAP;

/*
 * Denials that repeat, see struct egressd_tally: two maps of which one is written to by the
 * programs and the other read by the agent. Allocated ahead, 1.8 MB each, so that a flood takes
 * no memory. Full: what is new has an event each time. Sizes instead of types, as in the template:
 * Linux 6.1 takes maps with and without types for unequal.
 */
#define EGRESSD_TALLY_MAX 8192

struct egressd_tally_inner {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, EGRESSD_TALLY_MAX);
	__uint(key_size, sizeof(struct egressd_tally_key));
	__uint(value_size, sizeof(struct egressd_tally));
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, EGRESSD_TALLY_MAX);
	__uint(key_size, sizeof(struct egressd_tally_key));
	__uint(value_size, sizeof(struct egressd_tally));
} egressd_tally0 EGRESSD_MAP, egressd_tally1 EGRESSD_MAP;

/* Which of the two is written to. Written by the agent. Empty: every denial has an event. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct egressd_tally_inner);
} egressd_tally EGRESSD_MAP;

/* Denials of which there is neither event nor count, by enum egressd_reason. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, EGRESSD_REASON_MAX);
	__type(key, __u32);
	__type(value, __u64);
} egressd_lost EGRESSD_MAP;

/* How many of them have a gap record. Written by the agent only, for the one after it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, EGRESSD_REASON_MAX);
	__type(key, __u32);
	__type(value, __u64);
} egressd_gaps EGRESSD_MAP;

/* Denial records to the agent, 1 MiB = about 8700. Full: lost events are counted, verdicts stand.
 */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} egressd_events EGRESSD_MAP;

/*
 * When the reader of egressd_events was last woken. Waking costs ten times the denial it reports,
 * so a burst wakes it once per EGRESSD_WAKE_NS; it looks again by itself for a while after that.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} egressd_woken EGRESSD_MAP;

/* Verdicts by enum egressd_reason: the exact truth that records are held against. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, EGRESSD_REASON_MAX);
	__type(key, __u32);
	__type(value, __u64);
} egressd_counts EGRESSD_MAP;

/* Events by enum egressd_stat. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, EGRESSD_STAT_MAX);
	__type(key, __u32);
	__type(value, __u64);
} egressd_stats EGRESSD_MAP;

#endif /* EGRESSD_MAPS_H */
