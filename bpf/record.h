/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Every denial, and in audit mode every would-be denial, goes on record: as an event at once, or,
 * if the same happened before, as a count. Sum of events, counts and egressd_lost = denials.
 */
#ifndef EGRESSD_RECORD_H
#define EGRESSD_RECORD_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "decide.h"
#include "egressd_abi.h"
#include "maps.h"

#define EGRESSD_WAKE_NS 10000000ULL
#define EGRESSD_EEXIST	17

/* Returns 0 if there was room in the ring. */
static __always_inline long egressd_send(struct egressd_event *e)
{
	__u64 flags = BPF_RB_NO_WAKEUP, *woken;
	__u32 zero = 0;

	woken = bpf_map_lookup_elem(&egressd_woken, &zero);
	if (woken && e->time_ns - *woken > EGRESSD_WAKE_NS) {
		*woken = e->time_ns;
		flags = BPF_RB_FORCE_WAKEUP;
	}
	return bpf_ringbuf_output(&egressd_events, e, sizeof(*e), flags);
}

static __always_inline void egressd_count_again(struct egressd_tally *seen,
						const struct egressd_event *e)
{
	__sync_fetch_and_add(&seen->count, 1);
	__sync_fetch_and_add(&seen->bytes, e->length);
	if (!seen->first_ns)
		seen->first_ns = e->time_ns;
	seen->last_ns = e->time_ns;
}

/* t: the event, everything else 0. */
static __noinline void egressd_record(struct egressd_tally *t)
{
	struct egressd_event *e = &t->event;
	struct egressd_tally_key key = {
		.daddr = e->daddr,
		.cgroup_id = e->cgroup_id,
		.tgid = e->tgid,
		.reason = e->reason,
		.dport = e->dport,
		.proto = e->proto,
		.hook = e->hook,
		.verdict = e->verdict,
		.family = e->family,
	};
	struct egressd_tally *seen;
	__u64 *lost;
	__u32 reason = e->reason, zero = 0;
	long err = -1;
	void *tally;

	tally = bpf_map_lookup_elem(&egressd_tally, &zero);
	if (tally) {
		seen = bpf_map_lookup_elem(tally, &key);
		if (!seen) {
			err = bpf_map_update_elem(tally, &key, t, BPF_NOEXIST);
			if (err == -EGRESSD_EEXIST) /* another CPU was first */
				seen = bpf_map_lookup_elem(tally, &key);
		}
		if (seen) {
			egressd_count_again(seen, e);
			return;
		}
	}
	if (!egressd_send(e)) {
		egressd_stat(EGRESSD_STAT_EVENTS_SENT);
		return;
	}
	if (tally && !err) {
		seen = bpf_map_lookup_elem(tally, &key);
		if (seen) {
			egressd_count_again(seen, e);
			return;
		}
	}
	egressd_stat(EGRESSD_STAT_EVENTS_LOST);
	lost = bpf_map_lookup_elem(&egressd_lost, &reason);
	if (lost)
		*lost += 1;
}

#endif /* EGRESSD_RECORD_H */
