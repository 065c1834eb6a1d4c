/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What dns_wrappers.bpf.c and dns_test.cpp tell each other: the one entry of dns_test_io. */
#ifndef EGRESSD_DNS_WRAPPERS_H
#define EGRESSD_DNS_WRAPPERS_H

#ifdef __bpf__
#include "egressd_abi.h"
#else
#include "bpf/egressd_abi.h"
#endif

#define DNS_TEST_COOKIE 7
#define DNS_TEST_NETNS 4711
#define DNS_TEST_OWN_NETNS (~0u) /* the namespace of who runs the test */
#define DNS_TEST_MAX 256

struct dns_test_io {
  /* in: asked before each answer, if seed is 1 */
  __u32 seed;
  __u32 pad;
  struct egressd_dns_asked_key key;
  struct egressd_dns_asked asked;
  /* in: the message, if length is not 0: a test run takes no more than about 3.4 kB itself */
  __u32 length;
  __u8 message[EGRESSD_DNS_MSG_MAX];
  __u32 pad2;
  /* in: instead of DNS_TEST_COOKIE and DNS_TEST_NETNS, if not 0 */
  __u64 cookie;
  __u32 netns;
  /*
   * in, for dns_test_in and dns_test_out: the socket, whose protocol and type are looked at;
   * whether it has stream state; 1: another processor is busy with that, 2: no longer
   */
  __u32 stream;
  __u32 stream_busy;
  __u32 pad3;
  struct bpf_sock sock;
  /* out */
  __u32 outcome;
  __u32 ask;
  __u64 name_hash;
  struct egressd_dns_asked judged;
  struct egressd_dns_asked_key judged_key;
  __u32 chain_ttl;
  __u32 found;
  struct {
    __u32 off;
    __u32 ttl;
  } addresses[DNS_TEST_MAX];
};

#endif /* EGRESSD_DNS_WRAPPERS_H */
