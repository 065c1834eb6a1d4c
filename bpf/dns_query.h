/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Judging a question: may this name be asked, and what will its answer grant? */
#ifndef EGRESSD_DNS_QUERY_H
#define EGRESSD_DNS_QUERY_H

#include "dns_answer.h"
#include "dns_name.h"

/* Types that take no free text to the name's owner or back, and that clients ask by themselves. */
static __always_inline int dns_usual_type(__u32 type)
{
	return type == DNS_TYPE_A || type == DNS_TYPE_AAAA || type == DNS_TYPE_CNAME ||
	       type == DNS_TYPE_PTR || type == DNS_TYPE_SRV || type == DNS_TYPE_SVCB ||
	       type == DNS_TYPE_HTTPS;
}

/*
 * The message in s->msg, s->len long, wants to go to a trusted resolver. Returns the outcome; for
 * EGRESSD_DNS_ASKED, and for EGRESSD_DNS_DENIED_NAME should it leave all the same, s->asked and
 * s->asked_key (but for the cookie) say what to remember.
 */
static __always_inline int dns_judge(__u32 dir, __u32 slot)
{
	struct dns_scratch *s = dns_work(dir);
	const struct egressd_dns_config *cfg;
	const struct egressd_config *policy;

	if (!s)
		return EGRESSD_DNS_DENIED_MALFORMED;
	cfg = bpf_map_lookup_elem(&egressd_dconfig, &slot);
	policy = bpf_map_lookup_elem(&egressd_config, &slot);
	if (!cfg || !policy)
		return EGRESSD_DNS_DENIED_MALFORMED;
	s->key[0] = cfg->key[0];
	s->key[1] = cfg->key[1];
	s->qtype = 0;
	/*
	 * A standard query with one question and no answer or authority records. Additional ones
	 * (EDNS, TSIG) are between client and resolver; they do not travel on.
	 */
	if (s->len < 12 || DNS_SHORT(s, 2) & 0xf800 || DNS_SHORT(s, 4) != 1 || DNS_SHORT(s, 6) ||
	    DNS_SHORT(s, 8))
		return EGRESSD_DNS_DENIED_MALFORMED;
	if (dns_question(dir))
		return EGRESSD_DNS_DENIED_MALFORMED;
	dns_match(dir, slot);
	s->asked_key.name_hash = s->question_hash;
	s->asked_key.id = *(__u16 *)&s->msg[0];
	s->asked_key.qtype = s->qtype;
	s->asked_key.pad = 0;
	s->asked.generation = policy->generation;
	s->asked.observed = 0;
	if (!s->id_count && !s->ask) {
		s->asked.observed = s->qclass == DNS_CLASS_IN &&
				    (s->qtype == DNS_TYPE_A || s->qtype == DNS_TYPE_AAAA);
		return EGRESSD_DNS_DENIED_NAME;
	}
	if (s->qclass != DNS_CLASS_IN)
		return EGRESSD_DNS_DENIED_TYPE;
	if (!dns_usual_type(s->qtype) && !(cfg->flags & EGRESSD_DNS_F_OTHER_TYPES))
		return EGRESSD_DNS_DENIED_TYPE;
	if (!s->id_count || (s->qtype != DNS_TYPE_A && s->qtype != DNS_TYPE_AAAA))
		return EGRESSD_DNS_ASKED_NO_GRANT;
	return EGRESSD_DNS_ASKED;
}

#endif /* EGRESSD_DNS_QUERY_H */
