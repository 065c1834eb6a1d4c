/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The contract between the kernel programs and the agent: keys, values, events, reasons.
 * The only header both sides include. Rules for every struct here:
 *
 *  - fixed-width types, no bool, no enum fields, no hidden padding (asserted below); `pad` is 0;
 *  - __be16/__be32 and byte arrays called *addr* are in network byte order, all else in host order;
 *  - times are nanoseconds of CLOCK_BOOTTIME (bpf_ktime_get_boot_ns);
 *  - an address is 16 bytes, IPv4 as ::ffff:a.b.c.d (RFC 4291 2.5.5.2), so that a v4-mapped
 *    IPv6 destination and the plain IPv4 one share one entry and one verdict.
 *
 * Pinned maps outlive the agent: any change of meaning or layout raises EGRESSD_ABI_VERSION. What
 * was learned is handed on from version to version (egressd_learned, _dplaces, _dhand, _dusage) as
 * long as the sizes are the same: whoever changes its meaning alone gives these maps other names.
 */
#ifndef EGRESSD_ABI_H
#define EGRESSD_ABI_H

#include <linux/bpf.h> /* struct bpf_spin_lock */
#include <linux/types.h>

#ifdef __cplusplus
#define EGRESSD_ASSERT_SIZE(type, size) static_assert(sizeof(type) == (size), #type)
#else
#define EGRESSD_ASSERT_SIZE(type, size) _Static_assert(sizeof(type) == (size), #type)
#endif

#ifndef EGRESSD_ABI_VERSION /* a test builds the next one */
#define EGRESSD_ABI_VERSION 1
#endif

/* Policy maps come in two slots; egressd_active says which one is in force. */
#define EGRESSD_SLOTS	   2
/* Entries of one rule list the kernel walks; the agent refuses longer ones. */
#define EGRESSD_MAX_LIST   128
/* Grants (names) one address can hold at a time; see struct egressd_learned. */
#define EGRESSD_MAX_GRANTS 8
#define EGRESSD_COMM_LEN   16

/*
 * Why a packet or connect() passed or was refused. Each is a slot of egressd_counts, and the text
 * in agent/audit/reason.cpp. Append only: records and dashboards know the numbers.
 */
enum egressd_reason {
	EGRESSD_ALLOW_NETWORK_RULE = 0, /* a network rule */
	EGRESSD_ALLOW_FQDN_RULE,	/* a name with this address has a rule for this port */
	EGRESSD_ALLOW_ESTABLISHED,	/* verdict cached in the socket under this generation */
	EGRESSD_ALLOW_LOOPBACK,		/* loopback, or one of the host's own addresses */
	EGRESSD_ALLOW_RESOLVER,		/* port 53 of a configured resolver */
	EGRESSD_ALLOW_INBOUND,		/* reply on a connection the other side opened */
	EGRESSD_ALLOW_KERNEL, /* the kernel's own reply: RST, TIME_WAIT ACK, ICMP error, NDP */
	EGRESSD_ALLOW_AUDIT,  /* would have been denied; mode audit lets it pass */
	EGRESSD_ALLOW_OPEN,   /* would have been denied; break-glass is open */

	EGRESSD_DENY_NO_POLICY = 16, /* no generation is in force yet */
	EGRESSD_DENY_DEFAULT,	     /* no rule knows this address */
	EGRESSD_DENY_PORT,	     /* rules know the address, but not this port or protocol */
	EGRESSD_DENY_RULE,	     /* a deny rule */
	EGRESSD_DENY_EXPIRED,	     /* every name that had this address has expired */
	EGRESSD_DENY_MALFORMED,	     /* headers that cannot be parsed or exceed the bounds */
	EGRESSD_DENY_FRAGMENT,	     /* a raw socket's own fragment: ports cannot be known */
	EGRESSD_DENY_INTERNAL,	     /* a map that must exist does not, or a list is too long */
	EGRESSD_DENY_DNS_NAME,	     /* a question for a name (or type) no rule allows to ask */
	EGRESSD_DENY_DNS_SERVER,     /* port 53 or 853 of something that is no trusted resolver; a
					network rule for exactly that port allows it */
	EGRESSD_DENY_DNS_MALFORMED,  /* to a trusted resolver, but no question that can be judged */
	EGRESSD_REASON_MAX = 32,
};

static inline int egressd_reason_is_deny(__u32 reason)
{
	return reason >= EGRESSD_DENY_NO_POLICY;
}

/* Things that are counted but are no verdict. Slots of egressd_stats. */
enum egressd_stat {
	EGRESSD_STAT_EVENTS_SENT = 0, /* events put into the ring buffer */
	EGRESSD_STAT_EVENTS_LOST, /* denials neither sent nor counted in a tally: no room in either;
				     egressd_lost has them by reason */
	EGRESSD_STAT_STORAGE_FAILED, /* no memory for socket storage; judged per packet instead */
	EGRESSD_STAT_MAX = 16,
};

enum egressd_mode {
	EGRESSD_MODE_AUDIT = 0,
	EGRESSD_MODE_ENFORCE = 1,
};

enum egressd_action {
	EGRESSD_ACTION_ALLOW = 0,
	EGRESSD_ACTION_DENY = 1,
};

enum egressd_hook {
	EGRESSD_HOOK_CONNECT = 0, /* connect4/6: the caller got EPERM */
	EGRESSD_HOOK_SENDMSG,	  /* sendmsg4/6: the caller got EPERM */
	EGRESSD_HOOK_PACKET,	  /* cgroup_skb/egress: the packet was dropped */
};

/* egressd_config[slot]: what holds for one generation as a whole. */
struct egressd_config {
	__u32 generation; /* counts up from 1; 0 = slot never filled */
	__u32 mode;	  /* enum egressd_mode for what no rule matched */
	__u32 host_count; /* entries in this slot's egressd_hosts, 0 = skip the look-up */
	__u32 lpm4_count; /* likewise for egressd_lpm4 */
	__u32 lpm6_count; /* likewise for egressd_lpm6 */
	__u32 name_count; /* entries in egressd_names; a higher name id has no rules */
	/*
	 * Until then, a TCP socket without storage that has a listener's backlog counts as
	 * accepted: it was there before egressd was. After then only sock_ops marks inbound.
	 */
	__u64 adopt_until_ns;
	/*
	 * Network namespace (SO_NETNS_COOKIE) the addresses in egressd_local belong to; 0 = any,
	 * on kernels before 5.14.
	 */
	__u64 local_netns_cookie;
	__u32 dns_filter; /* enum egressd_dns_filter: ports 53 and 853 need a rule of their own */
	__u32 pad;
};
EGRESSD_ASSERT_SIZE(struct egressd_config, 48);

/*
 * A list of rules: entries [start, start + count) of egressd_rules in the same slot, in order of
 * judgement (collection priority, then file order). The first that matches decides. count is at
 * most EGRESSD_MAX_LIST. Zeroed: an empty list, nothing matches.
 */
struct egressd_list {
	__u32 start;
	__u32 count;
};
EGRESSD_ASSERT_SIZE(struct egressd_list, 8);

/*
 * One (protocol, port range) of one rule.
 * Matches when proto is 0 or equal, and port_first <= destination port <= port_last. Packets of
 * protocols without ports have port 0 and match only the full range 0..65535.
 */
struct egressd_rule {
	__u32 rule_id;	  /* index into the generation's rule names, for records */
	__u16 port_first; /* host order, inclusive */
	__u16 port_last;  /* host order, inclusive */
	__u8 proto;	  /* IP protocol; 0 = any. ICMP also matches ICMPv6. */
	__u8 action;	  /* enum egressd_action */
	__u8 mode;	  /* enum egressd_mode; audit: passes, and is recorded as would-deny */
	__u8 pad;
};
EGRESSD_ASSERT_SIZE(struct egressd_rule, 12);

/* Key of egressd_hosts, egressd_learned, egressd_local and egressd_dserver. */
struct egressd_addr {
	__u8 addr[16];
};
EGRESSD_ASSERT_SIZE(struct egressd_addr, 16);

/* Keys of egressd_lpm4/lpm6: families are kept apart so that ::/0 does not mean 0.0.0.0/0. */
struct egressd_lpm4_key {
	__u32 prefix_len; /* 0..32 */
	__u8 addr[4];
};
EGRESSD_ASSERT_SIZE(struct egressd_lpm4_key, 8);

struct egressd_lpm6_key {
	__u32 prefix_len; /* 0..128 */
	__u8 addr[16];
};
EGRESSD_ASSERT_SIZE(struct egressd_lpm6_key, 20);

/*
 * egressd_learned[address]: what DNS said of an address. Several names can share it, each with
 * its own rules and its own end, so that one name's answer never overwrites another's grant.
 *
 * name_id stands for an FQDN pattern, is stable across generations, and is looked up in the
 * generation's egressd_names for the rules it stands for now (none, if a reload removed them).
 * 0 = free slot. Expiry hides the address from new connections only.
 */
struct egressd_grant {
	__u64 expires_ns;
	__u32 name_id;
	__u32 pad;
};
EGRESSD_ASSERT_SIZE(struct egressd_grant, 16);

/*
 * Writers (the DNS programs on every CPU, and the agent through the program egressd_grant, never
 * by bpf_map_update_elem: a whole-value update would lose what another CPU just wrote) hold `lock`.
 * Readers do not: a slot changes in the order expires = 0, name_id, expires.
 */
struct egressd_learned {
	struct bpf_spin_lock lock;
	__u32 dead; /* 1: about to be deleted; a writer that still holds it looks it up again */
	/*
	 * Its own key. The kernel gives the memory of a deleted element to the next one at once
	 * (since 6.1), so whoever looked it up before checks that it is still this address.
	 */
	struct egressd_addr addr;
	__u32 place; /* in egressd_dplaces */
	__u32 pad;
	struct egressd_grant grants[EGRESSD_MAX_GRANTS];
};
EGRESSD_ASSERT_SIZE(struct egressd_learned, 160);

/*
 * Socket storage: the verdict this socket was last given and who asked for it. The process is
 * known only at connect() and sendmsg(); packets later carry no task (before kernel 6.10).
 */
struct egressd_sock {
	struct egressd_addr daddr;
	__be16 dport;
	__u8 proto;
	__u8 inbound;	  /* 1: accepted; the other side opened it */
	__u32 generation; /* verdict below is of this generation; 0 = none yet */
	__u32 reason;	  /* enum egressd_reason of that verdict */
	__u32 rule_id;
	__u32 name_id;	  /* grant it rests on, 0 if none: re-judged without looking at expiry */
	__u32 would_deny; /* reason it passes only because of audit mode, 0 = none */
	__u32 tgid;	  /* process (what user space calls pid); 0 = unknown */
	__u32 pid;	  /* thread */
	__u32 uid;
	__u32 pad;
	__u64 cgroup_id;
	__u8 comm[EGRESSD_COMM_LEN];
};
EGRESSD_ASSERT_SIZE(struct egressd_sock, 80);

/* Key of egressd_peers: who sent a UDP datagram to which of our sockets first. */
struct egressd_peer_key {
	struct egressd_addr addr;
	__u64 cookie;
	__be16 port;
	__u16 pad[3];
};
EGRESSD_ASSERT_SIZE(struct egressd_peer_key, 32);

/* One record of egressd_events: a denied (or in audit mode would-be denied) connect or packet. */
struct egressd_event {
	__u64 time_ns;
	__u64 cgroup_id; /* 0 = unknown */
	__u64 socket_cookie;
	struct egressd_addr daddr;
	struct egressd_addr saddr; /* all zero in connect and sendmsg hooks: not chosen yet */
	__be16 dport;
	__be16 sport;
	__u8 proto;   /* IP protocol number */
	__u8 hook;    /* enum egressd_hook */
	__u8 verdict; /* enum egressd_action that was carried out */
	__u8 family;  /* AF_INET or AF_INET6 as seen by the hook */
	__u32 reason; /* enum egressd_reason, always a deny; verdict says if it was enforced */
	__u32 generation;
	__u32 rule_id; /* valid if reason is EGRESSD_DENY_RULE or an audited rule, else ~0 */
	__u32 name_id; /* grant looked at last, 0 = none */
	__u32 tgid;
	__u32 pid;
	__u32 uid;
	__u32 length; /* packet bytes from the IP header; 0 in connect and sendmsg hooks */
	__u8 comm[EGRESSD_COMM_LEN];
};
EGRESSD_ASSERT_SIZE(struct egressd_event, 112);

#define EGRESSD_NO_RULE 0xffffffffu

/*
 * Denials that repeat: the first has an event, the others are counted here, in a hash map that
 * egressd_tally points to. The agent reads what it points to after it has made it point elsewhere:
 * the kernel waits until no program uses the old one, so no count is missed or told twice.
 */
struct egressd_tally_key {
	struct egressd_addr daddr;
	__u64 cgroup_id;
	__u32 tgid;
	__u32 reason;
	__be16 dport;
	__u8 proto;
	__u8 hook;
	__u8 verdict;
	__u8 family;
	__u8 pad[2];
};
EGRESSD_ASSERT_SIZE(struct egressd_tally_key, 40);

struct egressd_tally {
	struct egressd_event event; /* the first; not counted here */
	__u64 count;		    /* those after it */
	__u64 bytes;		    /* of their packets, from the IP header */
	__u64 first_ns;		    /* of those counted */
	__u64 last_ns;
};
EGRESSD_ASSERT_SIZE(struct egressd_tally, 144);

/*
 * egressd_open[0]: break-glass. Before until_ns nothing is refused; what would have been is
 * recorded, and judged anew with each packet. Written by egressctl, needs no agent. Zeroed: closed.
 */
#define EGRESSD_OPEN_REASON_LEN 160

struct egressd_open {
	__u64 until_ns;
	__u64 since_ns; /* when it was written */
	__u32 uid;	/* by whom (SUDO_UID if there is one) */
	__u32 pad;
	__u8 reason[EGRESSD_OPEN_REASON_LEN]; /* theirs, UTF-8, padded with zeros */
};
EGRESSD_ASSERT_SIZE(struct egressd_open, 184);

/*
 * ---- DNS: questions judged and answers learned by egressd_dns_out/in (bpf/dns.md) ----
 */

/* Patterns one name can match at a time: the most specific of each branch of the name tree. */
#define EGRESSD_DNS_MAX_IDS	  4
/*
 * A message, UDP or TCP, that is longer is not learned from; the agent resolves the name. 256
 * records of IPv6 addresses are 7.2 KB. A power of two.
 */
#define EGRESSD_DNS_MSG_MAX	  8192
/* A question over TCP that is longer does not leave. */
#define EGRESSD_DNS_TCP_QUERY_MAX 1024
/* In-label patterns below one parent name; the agent refuses more. */
#define EGRESSD_DNS_MAX_GLOBS	  16
/* name_id of names that may be asked but grant nothing (search domains, reverse zones). */
#define EGRESSD_DNS_ASK_ONLY	  0xffffffffu
/* name_id of patterns whose rules allow nothing: hide wider patterns, and are not asked. */
#define EGRESSD_DNS_REFUSED	  0xfffffffeu

/* What became of a DNS message. Slots of egressd_dstats; append only. */
enum egressd_dns_outcome {
	/* questions (egress) */
	EGRESSD_DNS_ASKED = 0,	      /* a rule's name; remembered */
	EGRESSD_DNS_ASKED_NO_GRANT,   /* may be asked, grants nothing: search domain, other type */
	EGRESSD_DNS_UNFILTERED,	      /* no rule, but the filter is off */
	EGRESSD_DNS_WOULD_DENY,	      /* would not leave; the filter only records */
	EGRESSD_DNS_DENIED_NAME,      /* did not leave: no rule for the name */
	EGRESSD_DNS_DENIED_TYPE,      /* did not leave: type or class not allowed */
	EGRESSD_DNS_DENIED_MALFORMED, /* did not leave: not one well-formed question */
	EGRESSD_DNS_DENIED_STREAM,    /* TCP segment that cannot be put in order; not sent */
	EGRESSD_DNS_DENIED_RACE,      /* scratch lost to another sender twice; not sent */
	EGRESSD_DNS_PENDING_FAILED,   /* could not be remembered: its answer will not be learned */

	/* answers (ingress): every one is delivered, only the first teaches */
	EGRESSD_DNS_LEARNED = 16,
	EGRESSD_DNS_NOT_TRUSTED_SERVER, /* source is no trusted resolver */
	EGRESSD_DNS_NOT_TRUSTED_LINK,	/* wrong interface or network namespace for it */
	EGRESSD_DNS_NOT_ASKED,		/* no outstanding question of that socket, id, name, type */
	EGRESSD_DNS_LATE,		/* asked too long ago */
	EGRESSD_DNS_BAD_HEADER,		/* not a response, other opcode, not one question */
	EGRESSD_DNS_TRUNCATED,		/* TC: the client will ask again over TCP */
	EGRESSD_DNS_RCODE,		/* NXDOMAIN, SERVFAIL, ... */
	EGRESSD_DNS_BAD_QUESTION,	/* question cannot be parsed */
	EGRESSD_DNS_BAD_RECORD,		/* a record cannot be parsed or runs past the end */
	EGRESSD_DNS_BAD_OWNER,		/* an owner is not on the CNAME chain from the question */
	EGRESSD_DNS_TOO_MANY,		/* more records, CNAMEs or addresses than the bounds */
	EGRESSD_DNS_TOO_LARGE,		/* longer than EGRESSD_DNS_MSG_MAX; handed to the agent */
	EGRESSD_DNS_NO_ADDRESS,		/* well formed, nothing to learn */
	EGRESSD_DNS_SHORT,		/* shorter than its headers say */
	EGRESSD_DNS_STREAM_LOST,	/* TCP stream without known message boundaries */
	EGRESSD_DNS_STREAM_HELD, /* TCP segment out of order: dropped, the peer sends it again */
	EGRESSD_DNS_OBSERVED,	 /* the name has no rule: taught nothing, told to the agent */

	/* addresses */
	EGRESSD_DNS_ADDR_NEW = 40, /* new address, or new name on a known one */
	EGRESSD_DNS_ADDR_EXTENDED, /* known: its end moved */
	EGRESSD_DNS_ADDR_EVICTED,  /* no room for the name or the address: one soon to end gave way
				    */
	EGRESSD_DNS_ADDR_GUARDED,  /* private, loopback, metadata, ...: never learned from DNS */
	EGRESSD_DNS_ADDR_QUOTA,	   /* its name had as many as it may: one of them gave way */
	EGRESSD_DNS_ADDR_FULL,	   /* no room in egressd_learned; not learned */

	EGRESSD_DNS_EVENTS_LOST = 56, /* egressd_devents full */
	EGRESSD_DNS_BRANCH_LOST,      /* name with more in-label branches than are followed */
	EGRESSD_DNS_OUTCOME_MAX = 64,
};

enum egressd_dns_filter {
	EGRESSD_DNS_FILTER_OFF = 0, /* every name may be asked; learning works the same */
	EGRESSD_DNS_FILTER_AUDIT,   /* names without a rule leave and are recorded */
	EGRESSD_DNS_FILTER_ENFORCE, /* names without a rule do not leave */
};

/* egressd_dns_config.flags */
#define EGRESSD_DNS_F_OTHER_TYPES                                                                  \
	1u /* types besides A, AAAA, CNAME, HTTPS, PTR, SRV, SVCB may be asked */

/*
 * egressd_dconfig[slot]. All zero: nothing is asked to be judged and nothing is learned. The key
 * must be the same in both slots, or answers under way during a reload are not learned.
 */
struct egressd_dns_config {
	__u64 key[2];  /* SipHash key of node keys and question hashes, random per boot */
	__u32 enabled; /* 0: programs pass everything and learn nothing */
	__u32 filter;  /* enum egressd_dns_filter */
	__u32 flags;
	__u32 min_ttl_s; /* an address is believed for clamp(TTL, min, max) + grace seconds */
	__u32 max_ttl_s;
	__u32 grace_s;
	__u32 answer_within_s; /* answers later than this teach nothing */
	__u32 name_quota;      /* addresses one name_id holds at most; 0 = no limit */
};
EGRESSD_ASSERT_SIZE(struct egressd_dns_config, 48);

/*
 * egressd_dserver[address]: a trusted resolver (port 53). `links` says on which kinds of link
 * its answers are believed: a resolver reached over the uplink is not believed on loopback.
 */
struct egressd_dns_server {
	__u32 links; /* EGRESSD_DNS_LINK_*, any of them */
	__u32 slots; /* bit per policy slot it belongs to: 1 << slot */
};
EGRESSD_ASSERT_SIZE(struct egressd_dns_server, 8);

#define EGRESSD_DNS_LINK_UPLINK	  1u /* the host's way out */
#define EGRESSD_DNS_LINK_LOOPBACK 2u /* the host's lo: local stubs, and addresses of the host */
#define EGRESSD_DNS_LINK_POD	  4u /* a pod's own interface */

/*
 * egressd_dlinks[link] = EGRESSD_DNS_LINK_* bits of one interface of one network namespace.
 * Without an entry: EGRESSD_DNS_LINK_POD for any interface but lo of a namespace that belongs to
 * the host's user namespace, else nothing: whoever can unshare can put the resolver's address and
 * any ifindex into a namespace of their own. Remove an entry when its namespace goes: inode numbers
 * are used again.
 */
struct egressd_dns_link {
	__u32 netns;   /* inode number of the network namespace */
	__u32 ifindex; /* in that namespace */
};
EGRESSD_ASSERT_SIZE(struct egressd_dns_link, 8);

/* Key of a node of the name tree: keyed hash of all labels down to it (agent/enforce/name_table).
 */
struct egressd_dns_node_key {
	__u64 lo;
	__u64 hi;
};
EGRESSD_ASSERT_SIZE(struct egressd_dns_node_key, 16);

#define EGRESSD_DNS_NODE_CHILDREN	 1u  /* nodes below it exist */
#define EGRESSD_DNS_NODE_EXACT_PRIVATE	 2u  /* exact_id may learn private addresses */
#define EGRESSD_DNS_NODE_SUBTREE_PRIVATE 4u  /* likewise subtree_id */
#define EGRESSD_DNS_NODE_ASK_EXACT	 8u  /* the name itself may be asked */
#define EGRESSD_DNS_NODE_ASK_SUBTREE	 16u /* names below it may be asked */

struct egressd_dns_node {
	__u32 exact_id;	  /* pattern that is exactly this name, 0 = none */
	__u32 subtree_id; /* pattern `*.` of this name, 0 = none */
	__u32 glob_start; /* in-label patterns one label below: [start, start + count) of the globs
			   */
	__u16 glob_count;
	__u16 flags;
};
EGRESSD_ASSERT_SIZE(struct egressd_dns_node, 16);

/* A label with one `*`: matches prefix, any bytes, suffix; leads to a node like any label does. */
struct egressd_dns_glob {
	struct egressd_dns_node_key child;
	__u8 prefix_len;
	__u8 suffix_len;
	__u8 pad[6];
	__u8 text[64]; /* prefix, then suffix, lower case */
};
EGRESSD_ASSERT_SIZE(struct egressd_dns_glob, 88);

/* Key of egressd_dasked: an outstanding question. */
struct egressd_dns_asked_key {
	__u64 cookie;	 /* socket */
	__u64 name_hash; /* keyed, of the case-folded question name */
	__u16 id;	 /* as on the wire */
	__u16 qtype;	 /* host order */
	__u32 pad;
};
EGRESSD_ASSERT_SIZE(struct egressd_dns_asked_key, 24);

struct egressd_dns_asked {
	__u64 asked_ns;
	__u32 name_ids[EGRESSD_DNS_MAX_IDS]; /* 0 = unused */
	__u32 private_ids; /* bit per name_ids entry that may learn private addresses */
	__u32 generation;  /* the name_ids are of; an answer under another one is matched anew */
	__u32 ifindex;	   /* it left by; the answer has to come back there */
	__u32 observed;	   /* 1: no rule, and left all the same; its answer is told, not learned */
	struct egressd_dns_asked_key key; /* its own, as in struct egressd_learned */
};
EGRESSD_ASSERT_SIZE(struct egressd_dns_asked, 64);

enum egressd_dns_event_kind {
	EGRESSD_DNS_EVENT_DENIED = 1, /* a question did not leave, or would not (see verdict) */
	EGRESSD_DNS_EVENT_LEARNED,    /* an answer taught addresses */
	EGRESSD_DNS_EVENT_TOO_LARGE,  /* an answer too long to learn from: resolve the name */
	EGRESSD_DNS_EVENT_OBSERVED,   /* an answer to a question that left without a rule */
};

/* One record of egressd_devents, followed by `length` bytes of the DNS message itself. */
struct egressd_dns_event {
	__u64 time_ns;
	__u64 socket_cookie;
	__u64 cgroup_id; /* 0 = unknown */
	struct egressd_addr server;
	__u32 kind;    /* enum egressd_dns_event_kind */
	__u32 outcome; /* enum egressd_dns_outcome */
	__u32 verdict; /* enum egressd_action that was carried out */
	__u32 netns;   /* ingress only */
	__u32 ifindex;
	__u32 name_ids[EGRESSD_DNS_MAX_IDS];
	__u16 addresses; /* learned */
	__u16 qtype;
	__u8 proto; /* IPPROTO_UDP or IPPROTO_TCP */
	__u8 pad[3];
	__u32 ttl_s; /* smallest of the answer, before clamping */
	__u32 length;
	__u32 tgid; /* who asked; 0 = unknown */
	__u32 pid;
	__u32 uid;
	__u32 generation;
	__u8 comm[EGRESSD_COMM_LEN];
};
EGRESSD_ASSERT_SIZE(struct egressd_dns_event, 128);

/* What the agent hands to the program egressd_grant (BPF_PROG_TEST_RUN), `count` of them. */
enum egressd_grant_op {
	EGRESSD_GRANT_ADD = 1, /* add or extend this grant */
	EGRESSD_GRANT_SWEEP,   /* free grants that ended before expires_ns; name_id is ignored */
};

struct egressd_grant_request {
	struct egressd_addr addr;
	__u64 expires_ns;
	__u32 name_id;
	__u32 op; /* enum egressd_grant_op */
};
EGRESSD_ASSERT_SIZE(struct egressd_grant_request, 32);

/* What the iterator egressd_live writes: a grant some open socket rests on. */
struct egressd_live {
	struct egressd_addr addr;
	__u64 expires_ns;
	__u32 name_id;
	__u32 pad;
};
EGRESSD_ASSERT_SIZE(struct egressd_live, 32);

#endif /* EGRESSD_ABI_H */
