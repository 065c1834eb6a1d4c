/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * SipHash-1-3 (Aumasson, Bernstein) over names, for the kernel programs and the agent alike.
 *
 * A label is absorbed as its length byte and its bytes, case folded, padded with zeros to whole
 * 64-bit words in the machine's order. The length byte says how many words follow, so the words
 * of a name can be read in one way only and no length block is needed.
 *
 *  - a node of the name tree: 128-bit output over parent key (two words) and label;
 *  - a name as a whole: 64-bit output over its labels from left to right.
 *
 * The key is random and secret: whoever controls names cannot compute, nor build, a collision.
 */
#ifndef EGRESSD_DNS_HASH_H
#define EGRESSD_DNS_HASH_H

#include <linux/types.h>

struct dns_sip {
	__u64 v0, v1, v2, v3;
};

#define DNS_SIP_ROTL(x, b) (((x) << (b)) | ((x) >> (64 - (b))))

static inline __attribute__((always_inline)) void dns_sip_round(struct dns_sip *s)
{
	s->v0 += s->v1;
	s->v1 = DNS_SIP_ROTL(s->v1, 13);
	s->v1 ^= s->v0;
	s->v0 = DNS_SIP_ROTL(s->v0, 32);
	s->v2 += s->v3;
	s->v3 = DNS_SIP_ROTL(s->v3, 16);
	s->v3 ^= s->v2;
	s->v0 += s->v3;
	s->v3 = DNS_SIP_ROTL(s->v3, 21);
	s->v3 ^= s->v0;
	s->v2 += s->v1;
	s->v1 = DNS_SIP_ROTL(s->v1, 17);
	s->v1 ^= s->v2;
	s->v2 = DNS_SIP_ROTL(s->v2, 32);
}

/* wide: 1 for the 128-bit output, 0 for the 64-bit one. */
static inline __attribute__((always_inline)) void dns_sip_init(struct dns_sip *s, const __u64 *key,
							       int wide)
{
	s->v0 = key[0] ^ 0x736f6d6570736575ULL;
	s->v1 = key[1] ^ 0x646f72616e646f6dULL ^ (wide ? 0xee : 0);
	s->v2 = key[0] ^ 0x6c7967656e657261ULL;
	s->v3 = key[1] ^ 0x7465646279746573ULL;
}

static inline __attribute__((always_inline)) void dns_sip_word(struct dns_sip *s, __u64 word)
{
	s->v3 ^= word;
	dns_sip_round(s);
	s->v0 ^= word;
}

static inline __attribute__((always_inline)) __u64 dns_sip_end(struct dns_sip *s, int wide)
{
	s->v2 ^= wide ? 0xee : 0xff;
	dns_sip_round(s);
	dns_sip_round(s);
	dns_sip_round(s);
	return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

/* The second half of the 128-bit output, after dns_sip_end(). */
static inline __attribute__((always_inline)) __u64 dns_sip_end2(struct dns_sip *s)
{
	s->v1 ^= 0xdd;
	dns_sip_round(s);
	dns_sip_round(s);
	dns_sip_round(s);
	return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

/* ASCII upper case to lower in all eight bytes (RFC 4343); a length byte (< 64) is unchanged. */
static inline __attribute__((always_inline)) __u64 dns_fold(__u64 w)
{
	__u64 low = w & 0x7f7f7f7f7f7f7f7fULL;
	__u64 above_z = low + 0x2525252525252525ULL; /* 0x80 - ('Z' + 1) */
	__u64 from_a = low + 0x3f3f3f3f3f3f3f3fULL;  /* 0x80 - 'A' */
	__u64 upper = ~w & (from_a ^ above_z) & 0x8080808080808080ULL;

	return w | upper >> 2;
}

/* The first n bytes (1..7) of a word in memory order; the rest zero. */
static inline __attribute__((always_inline)) __u64 dns_head(__u64 w, __u32 n)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return w & ~(~0ULL << (8 * n));
#else
	return w & ~(~0ULL >> (8 * n));
#endif
}

#endif /* EGRESSD_DNS_HASH_H */
