/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What dns_bench.bpf.c and dns_path.cpp tell each other: the one entry of bench_io. */
#ifndef EGRESSD_DNS_BENCH_H
#define EGRESSD_DNS_BENCH_H

#ifdef __bpf__
#include "egressd_abi.h"
#else
#include "bpf/egressd_abi.h"
#endif

/* What a wrapper does before it goes on to program `next` of bench_out or bench_in. */
#define BENCH_REMEMBER 1u /* one question outstanding, as egressd_dns_out leaves it behind */
#define BENCH_FORGET 2u   /* and taken away again, as an answer does */

struct dns_bench_io {
  __u32 next;
  __u32 steps;
  struct egressd_dns_asked_key question; /* but for the cookie: that of the run's own socket */
  struct egressd_dns_asked asked;        /* but for time, link and key */
  struct egressd_sock live;              /* the flow the run's socket has */
};

#endif /* EGRESSD_DNS_BENCH_H */
