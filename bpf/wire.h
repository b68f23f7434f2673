/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the kernel half and the Swift half both know: the protocol's constants and the layout of every map value.
 *
 * This is the one definition of each. The BPF programs include it directly; Swift imports it through the BPFObjects
 * module. Integers are in host byte order unless a comment says otherwise; addresses are always in network order.
 */
#ifndef XE_WIRE_H
#define XE_WIRE_H

#include <linux/types.h>

/* ---- protocol (docs/wire-format.md) ---- */

#define XE_SPI_LEN 4
#define XE_IV_LEN 8
#define XE_TAG_LEN 16
#define XE_SHIM_LEN (XE_SPI_LEN + XE_IV_LEN + XE_TAG_LEN) /* what the inline framing adds to a packet, bytes */
#define XE_TUNNEL_LEN_V4 60 /* what the tunnel framing adds over IPv4, bytes: routes keep this much free */
#define XE_TUNNEL_LEN_V6 80
#define XE_KEY_LEN 32
#define XE_KEY_ID_LEN 16
#define XE_INCARNATION_LEN 16
#define XE_COUNTER_MAX ((1ULL << 48) - 1) /* the last IV counter of a lane: sending stops there */

/* ---- sizes ---- */

#define XE_BLOCK 16
#define XE_AAD_MAX 256 /* bytes; packets need at most 96, the rest is for known answers */
#define XE_TEXT_MAX 9216 /* bytes of L4 payload, shim included: frames up to 9000 and some room */
#define XE_GCM_TEXT_MAX 3000 /* bytes of text in a known-answer request: one page less the XDP head and tail room */
#define XE_WINDOW_MAX 8192 /* packets */
#define XE_WINDOW_DEFAULT 2048
#define XE_WINDOW_GROUP 32 /* counters whose bits share a word of a replay window */
/* A window's groups: one more than it needs, as the oldest and the newest may both be in use in part. */
#define XE_WINDOW_GROUPS(window) ((window) / XE_WINDOW_GROUP + 1)
/* Bytes of a value of `windows` (bpf/maps.bpf.h): the highest counter, then the groups. */
#define XE_WINDOW_BYTES(window) (8 + 8 * XE_WINDOW_GROUPS(window))

#define XE_SLOTS_DEFAULT 8192 /* peers (nodes) */
#define XE_ENDPOINTS_DEFAULT 131072
#define XE_CIDRS_DEFAULT 1024
#define XE_SERVICE_ADDRESSES_DEFAULT 65536
#define XE_WINDOWS_DEFAULT 262144 /* (security association, lane) pairs that may be seen */
#define XE_EVENTS_BYTES 262144
#define XE_HOST_ENDS 8192 /* devices of the host that lead to protected pods */

/* ---- addresses and endpoints ---- */

/* An IPv6 address, or an IPv4 one as ::ffff:a.b.c.d. Network byte order. Key of `endpoints`. */
struct xe_address {
	__u32 word[4];
};

/* Key of `strict_cidrs`, a longest-prefix-match trie. IPv4 prefixes are 96 bits longer than people write them. */
struct xe_cidr {
	__u32 prefix_len; /* bits, 0 to 128 */
	struct xe_address address;
};

enum xe_endpoint_flag {
	XE_ENDPOINT_LOCAL = 1 << 0, /* its pod runs on this node */
	XE_ENDPOINT_STRICT = 1 << 1, /* clear text from or to it is dropped, not just counted */
	XE_ENDPOINT_WITHDRAWING = 1 << 2, /* protection is ending: accept both, encrypt only to who still expects it */
	XE_ENDPOINT_HIDDEN = 1 << 3, /* whole packets from and to it are hidden: they go by the tunnel framing */
};

/*
 * A protected pod address. Value of `endpoints`.
 *
 * A local endpoint speaks encrypted to a peer from the moment that the peer has acknowledged revision `since` of this
 * node's endpoint list, and until it has acknowledged revision `until` (0: no end).
 */
struct xe_endpoint {
	__u32 slot; /* of its node in `peers`; 0 for a local endpoint */
	__u32 flags; /* enum xe_endpoint_flag */
	__u32 since;
	__u32 until;
};

/* A node that we speak with. Value of `peers`; slot 0 stays empty. */
struct xe_peer {
	__u32 node_id; /* 1 to 2^24 - 1; 0: the slot is free */
	__u32 acknowledged; /* the revision of our endpoint list that it has applied */
};

/* ---- security associations ---- */

enum xe_direction {
	XE_SEND = 0,
	XE_RECEIVE = 1,
};

/* Index of the security association of a peer, direction and epoch in `associations`. */
#define XE_ASSOCIATION(slot, direction, epoch) ((slot) * 4 + (direction) * 2 + ((epoch) & 1))

enum xe_engine {
	XE_ENGINE_NONE = 0, /* no key here */
	XE_ENGINE_ECB = 1, /* AES by bpf_crypto ecb(aes), GHASH in BPF */
};

#ifdef __bpf__
struct bpf_crypto_ctx;
struct xe_hash_key;
#define XE_KPTR(type) type __kptr *
#else
#define XE_KPTR(type) __u64 /* the kernel shows user space 0 here */
#endif

/* A key in use. Value of `associations`. Written by the install and remove programs only: user space must not update it. */
struct xe_association {
	XE_KPTR(struct bpf_crypto_ctx) cipher;
	XE_KPTR(struct xe_hash_key) hash_key;
	__u64 id; /* never used twice while the maps live; names counters and windows */
	__u32 spi; /* network byte order, as on the wire */
	__u32 epoch; /* 0: empty */
	__u32 engine; /* enum xe_engine */
	__u32 peer_node;
	__u8 key_id[XE_KEY_ID_LEN]; /* a fingerprint (docs/wire-format.md), not secret */
};

/* Context of the `xe_install` program. `key` and `hash_key` are zero when it returns. */
struct xe_install {
	__u32 index; /* XE_ASSOCIATION(...) */
	__u32 spi; /* network byte order */
	__u32 epoch;
	__u32 peer_node;
	__u32 key_len; /* 32; 16 for known answers */
	__s32 error; /* out: 0, or a negative errno; -EEXIST: this key was in use before, -ESTALE: its epoch is over */
	__u8 key[XE_KEY_LEN];
	__u8 hash_key[XE_BLOCK]; /* H = AES_key(0^128), NIST SP 800-38D section 6.4 */
	__u8 key_id[XE_KEY_ID_LEN];
};

/* Context of the `xe_remove` program: empties one association. */
struct xe_remove {
	__u32 index;
	__s32 error; /* out */
};

/* Context of the `xe_upgrade_cipher` program, and the packet of `xe_upgrade_hash_key`: one association of an earlier build. */
struct xe_upgrade {
	__u32 index;
	__s32 error; /* out */
	__u64 reserved; /* a packet has at least 14 bytes */
};

/* ---- counters and windows ---- */

/*
 * What one CPU keeps of one peer. Value of `lanes`, a per-CPU array indexed by slot.
 *
 * A counter belongs to the association whose id stands beside it: when the id differs the counter starts at 1, and as
 * ids are never used twice, no counter starts twice under one key.
 */
struct xe_lane {
	__u64 association[2]; /* by epoch & 1 */
	__u64 counter[2]; /* the last IV counter sent */
	__u64 sent_packets;
	__u64 sent_bytes; /* L4 payload before encryption */
	__u64 received_packets;
	__u64 received_bytes; /* L4 payload after decryption */
	__u64 dropped_auth;
	__u64 dropped_replay; /* replay and stale */
	__u64 dropped_other;
	__u64 reserved[5];
};

/* Key of `windows`. */
struct xe_window_key {
	__u64 association; /* id */
	__u64 lane; /* 0 to 65535 */
};

/* ---- verdicts ---- */

/* How a packet ended. Index into `verdicts`; docs/drops.md explains each. New ones go at the end of their group. */
enum xe_verdict {
	/* encrypted and decrypted */
	XE_ENCRYPTED = 0,
	XE_DECRYPTED = 1,
	/* passed in clear, by policy */
	XE_PASS_CONTROL = 2, /* ARP, neighbour and router discovery */
	XE_PASS_UNPROTECTED = 3, /* the other end is not protected */
	XE_PASS_SAME_NODE = 4, /* both ends are on this node */
	XE_PASS_CLEARTEXT = 5, /* permissive: from or to a protected peer, in clear */
	XE_PASS_UNKNOWN_PEER = 6, /* permissive: an unknown address in a strict CIDR */
	XE_PASS_ETHERTYPE = 7, /* permissive: neither IP nor ARP */
	XE_PASS_WITHDRAWING = 8, /* protection of an endpoint is ending */
	/* dropped by policy or authentication */
	XE_DROP_CLEARTEXT = 16, /* strict: a protected peer's packet without a known SPI */
	XE_DROP_AUTH = 17, /* the tag does not verify */
	XE_DROP_REPLAY = 18, /* this IV was seen */
	XE_DROP_STALE = 19, /* left of the replay window */
	XE_DROP_SPOOFED = 20, /* the source address does not belong to who the SPI or the interface names */
	XE_DROP_UNKNOWN_PEER = 21, /* strict: an unknown address in a strict CIDR */
	XE_DROP_UNSUPPORTED = 22, /* several segments under one header */
	XE_DROP_MALFORMED = 23, /* lengths or headers that contradict each other, a truncated shim */
	XE_DROP_CHECKSUM = 24, /* an IPv4 header or L4 checksum that is wrong */
	XE_DROP_NO_KEY = 25, /* no key of the sending epoch for this peer */
	XE_DROP_NOT_READY = 26, /* strict: the peer does not know this endpoint yet */
	XE_DROP_ETHERTYPE = 27, /* strict: neither IP nor ARP */
	XE_DROP_TOO_BIG = 28, /* more payload than XE_TEXT_MAX */
	XE_DROP_EXHAUSTED = 29, /* the IV counter is used up */
	XE_DROP_NO_ROOM = 30, /* no head room in the packet */
	XE_DROP_NO_WINDOW = 31, /* the table of replay windows is full */
	XE_DROP_SERVICE = 32, /* strict: to the address of a service that leads to protected pods, where no socket has replaced it */
	/* faults of ours: XDP_ABORTED, so that the tracepoint xdp:xdp_exception shows them */
	XE_FAULT_SCRATCH = 40, /* per-CPU scratch missing or in use */
	XE_FAULT_CIPHER = 41, /* the kernel's cipher returned an error */
	XE_FAULT_PACKET = 42, /* a packet helper failed after its checks had passed */
	XE_FAULT_MAP = 43, /* a map that must be there is not */
	XE_VERDICTS = 48,
};

/* Value of `verdicts`, a per-CPU array indexed by enum xe_verdict. */
struct xe_count {
	__u64 packets;
	__u64 bytes; /* frame lengths as they arrived */
};

enum xe_hook {
	XE_HOOK_ENCRYPT = 0, /* what leaves a pod */
	XE_HOOK_DECRYPT = 1, /* what enters a pod */
};

/* A record of the ring buffer `events`: one dropped packet. At most 100 a second and CPU; the rest is in `missed`. */
struct xe_event {
	__u64 time; /* ns since boot, CLOCK_MONOTONIC */
	struct xe_address source;
	struct xe_address destination;
	__u32 verdict; /* enum xe_verdict */
	__u32 spi; /* network byte order; 0: none was read */
	__u32 missed; /* events of this CPU that the rate limit held back since the last one */
	__u32 length; /* frame, bytes */
	__u16 source_port; /* network byte order; for ICMP 0 */
	__u16 destination_port;
	__u8 protocol; /* IP protocol number */
	__u8 hook; /* enum xe_hook */
	__u16 reserved;
};

/* ---- configuration ---- */

enum xe_config_flag {
	XE_CONFIG_STRICT_ETHERTYPE = 1 << 0, /* drop what is neither IP nor ARP: set when a local endpoint is strict */
};

/* The one value of `config`. */
struct xe_config {
	__u64 marker; /* random, neither 0 nor all ones: metadata by which the guard knows what XDP has judged */
	__u64 last_association; /* id given out last; counted up by xe_install */
	__u32 sending; /* epoch that senders use; 0: none yet */
	__u32 window; /* replay window, packets: a power of two, 64 to XE_WINDOW_MAX; `windows` was made for it */
	__u32 flags; /* enum xe_config_flag */
	__u32 node_id; /* ours */
	__u32 epoch_floor; /* keys of epochs below this are refused */
	__u32 layout; /* XE_LAYOUT: what these maps look like */
	__u8 incarnation[XE_INCARNATION_LEN]; /* ours: lives as long as the counters do */
};

/* Raised whenever a struct above changes, so that an upgrade does not read old pins with new eyes. */
#define XE_LAYOUT 1

/* ---- known answers ---- */

enum xe_gcm_operation {
	XE_GCM_SEAL = 0,
	XE_GCM_OPEN = 1,
};

/*
 * The packet that `xe_gcm` runs on: this header, `aad_len` bytes of AAD, `text_len` bytes of text. It returns XDP_PASS with the
 * text replaced and, when sealing, `tag` filled in; XDP_DROP when the tag does not verify (text untouched); XDP_ABORTED
 * otherwise.
 */
struct xe_gcm_request {
	__u32 index; /* association that holds the key */
	__u32 operation; /* enum xe_gcm_operation */
	__u32 aad_len; /* 0 to XE_AAD_MAX */
	__u32 text_len; /* 0 to XE_GCM_TEXT_MAX */
	__u8 nonce[12];
	__u8 reserved[4];
	__u8 tag[XE_TAG_LEN];
};

#endif /* XE_WIRE_H */
