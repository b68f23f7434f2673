/* SPDX-License-Identifier: GPL-2.0-only */
/* Every map, and the values that only the kernel half knows. The shared values are in wire.h. */
#ifndef XE_MAPS_BPF_H
#define XE_MAPS_BPF_H

#include "kernel.bpf.h"
#include "wire.h"

#define XE_AAD_BLOCKS (XE_AAD_MAX / XE_BLOCK)
#define XE_TEXT_BLOCKS (XE_TEXT_MAX / XE_BLOCK)
#define XE_GROUP 8 /* blocks that GHASH takes at once */
#define XE_LEAD_BLOCKS 2 /* zero blocks that may stand before the AAD, so that GHASH works in whole groups */
#define XE_TEXT_OFFSET (XE_LEAD_BLOCKS * XE_BLOCK + XE_AAD_MAX) /* of the text in `input`, bytes */
#define XE_SPARE 80 /* bytes behind the text: work goes on in steps of 64, and the length block follows */

/* What parsing finds in a frame. Offsets are in bytes from its start. Addresses are in network order. */
struct xe_packet {
	struct xe_address source;
	struct xe_address destination;
	__u32 l3;
	__u32 l4;
	__u32 text; /* of the L4 payload; on the wire the shim stands here */
	__u32 text_len;
	__u32 l4_header_len;
	__u32 ip_len;
	__u32 frame_len;
	__u32 problem; /* 0, or the enum xe_verdict that says why the inline framing cannot carry this packet */
	__u32 spi; /* network order; for events */
	__u16 source_port; /* network order */
	__u16 destination_port;
	__u8 protocol;
	__u8 ipv6;
	__u8 tunnel; /* it is encrypted as a whole, or is to be */
	__u8 segmented; /* several segments under one header: each would need an IV of its own */
	__u8 congested; /* arriving by tunnel: the network has marked it (ECN) */
	__u8 hops; /* arriving by tunnel: what is left of the TTL or hop limit */
};

/* One of the six words of a group of blocks, and their product with H (ghash.bpf.h). */
struct xe_ghash_word {
	__u64 operand[XE_GROUP];
	__u64 product;
};

/* GHASH under way. */
struct xe_ghash_state {
	__u64 hash[2]; /* the running value, as bytes in memory */
	struct xe_ghash_word word[6];
};

/*
 * One packet's working memory. Never on the stack (512 bytes), never shared: programs run with softirqs off, and `busy` turns
 * the impossible second user into a counted fault instead of a leak.
 */
struct xe_scratch {
	__u64 busy;
	struct xe_packet packet;
	/* arguments and results of seal and open (gcm.bpf.h) */
	__u64 nonce[2]; /* 12 bytes as they stand in memory, then 4 unused */
	__u64 tag[2];
	__u32 aad_len;
	__u32 text_len;
	__u64 inner[2]; /* leaving by tunnel: the first 16 bytes of the IP packet */
	__u64 sum_before; /* sums of the text as 32-bit words, before and after the cipher: for checksums */
	__u64 sum_after;
	__u32 zero; /* always 0, but the verifier does not know: see xe_loop */
	__u32 reserved;
	struct xe_ghash_state ghash;
	/* AAD (its end padded with zeros to a whole block), text, length block; AAD ends where text starts */
	__u8 input[XE_TEXT_OFFSET + XE_TEXT_MAX + XE_SPARE];
	/* counter blocks, then key stream: block 0 masks the tag, text starts with block 1 */
	__u8 stream[XE_BLOCK + XE_TEXT_MAX + XE_SPARE];
};

/* One of the six words of the powers of H, from H^8 to H, as three pairs of classes and each pair's sum (ghash.bpf.h). */
struct xe_hash_word {
	__u64 part[3][XE_GROUP][3];
};

/* H and its powers. A kptr: user space cannot read it. The kernel takes 4 KiB for it, so there is room to work them out. */
struct xe_hash_key {
	struct xe_hash_word word[6];
	struct xe_ghash_state work;
};

/*
 * Replay window of one association and lane (replay.bpf.h). Each group says of XE_WINDOW_GROUP counters in a row which were seen:
 * its low half has their bits, its high half tells which counters they are.
 */
struct xe_window {
	__u64 top; /* the highest counter accepted; 0: none yet */
	__u64 group[XE_WINDOW_GROUPS(XE_WINDOW_DEFAULT)]; /* or as many as xe_window_groups says */
};

/* How many groups a window has. Set, like the size of the map's values, before the object is loaded. */
const volatile __u32 xe_window_groups = XE_WINDOW_GROUPS(XE_WINDOW_DEFAULT);

/* Per CPU: how many events may still go out in this second. */
struct xe_event_budget {
	__u64 second;
	__u32 left;
	__u32 missed;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct xe_config);
	__uint(max_entries, 1);
} config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct xe_address);
	__type(value, struct xe_endpoint);
	__uint(max_entries, XE_ENDPOINTS_DEFAULT);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} endpoints SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__type(key, struct xe_cidr);
	__type(value, __u32);
	__uint(max_entries, XE_CIDRS_DEFAULT);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} strict_cidrs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct xe_peer);
	__uint(max_entries, XE_SLOTS_DEFAULT);
} peers SEC(".maps");

/* Four for each slot of `peers`. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct xe_association);
	__uint(max_entries, XE_SLOTS_DEFAULT * 4);
} associations SEC(".maps");

/* SPI (network order) of every receive key to the index of its association: tells spoofed from clear text. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, XE_SLOTS_DEFAULT * 2);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} spis SEC(".maps");

/* Fingerprints of all keys that were ever in use, with their epochs. What stands here is not installed again. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u8[XE_KEY_ID_LEN]);
	__type(value, __u32);
	__uint(max_entries, XE_SLOTS_DEFAULT * 16);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} key_uses SEC(".maps");

/*
 * Devices by which packets of our protected pods come into the host's namespace: the host's ends of their veths, and bridges that have
 * nothing else for ports. Key and value are the interface index. This kind of map, because the kernel takes a device out when it goes: a
 * later one with the same index is not in it.
 */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
	__uint(max_entries, XE_HOST_ENDS);
} host_ends SEC(".maps");

/* Addresses of services that lead to protected pods, where sockets replace them (socketlb.bpf.c). Key: the address; the value says nothing. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct xe_address);
	__type(value, __u32);
	__uint(max_entries, XE_SERVICE_ADDRESSES_DEFAULT);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} service_addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct xe_lane);
	__uint(max_entries, XE_SLOTS_DEFAULT);
} lanes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	/* Sizes, not types: the value's is set by user space. */
	__uint(key_size, sizeof(struct xe_window_key));
	__uint(value_size, sizeof(struct xe_window));
	__uint(max_entries, XE_WINDOWS_DEFAULT);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} windows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct xe_count);
	__uint(max_entries, XE_VERDICTS);
} verdicts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, XE_EVENTS_BYTES);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct xe_event_budget);
	__uint(max_entries, 1);
} event_budget SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct xe_scratch);
	__uint(max_entries, 1);
} scratch SEC(".maps");

/*
 * Which key is here; 0: none. Keys come and go under the eyes of running programs. An id is never used twice, comes last and goes first
 * (install.bpf.h), so that all that was read of an association, and of what its id names, belongs together if the id is the same before and
 * after.
 */
XE_INLINE __u64 xe_association_id(const struct xe_association *association)
{
	__u64 id;

	xe_barrier();
	id = *(const volatile __u64 *)&association->id;
	xe_barrier();
	return id;
}

/* The only value of an array with one entry. */
#define xe_only(map)                                                                                                   \
	({                                                                                                             \
		__u32 xe_zero = 0;                                                                                     \
		bpf_map_lookup_elem(&(map), &xe_zero);                                                                 \
	})

#endif /* XE_MAPS_BPF_H */
