/* SPDX-License-Identifier: GPL-2.0-only */
/* The key that is sent with, and the next IV under it. */
#ifndef XE_IV_BPF_H
#define XE_IV_BPF_H

#include "maps.bpf.h"

/* The next IV counter of this CPU's lane under the key `id`; 0 when it is used up. */
XE_INLINE __u64 xe_next_counter(struct xe_lane *lane, __u64 id, __u32 parity)
{
	if (lane->association[parity] != id) {
		lane->association[parity] = id;
		lane->counter[parity] = 0;
	}
	if (lane->counter[parity] >= XE_COUNTER_MAX)
		return 0;
	return ++lane->counter[parity];
}

/* What a packet is encrypted with. */
struct xe_sending {
	struct bpf_crypto_ctx *cipher;
	struct xe_hash_key *hash_key;
	struct xe_lane *lane;
	__u64 iv; /* as it lies in memory */
};

/* Finds the key for the peer in `slot` and takes an IV: the nonce and the packet's SPI are set. Returns 0 or why not. */
XE_INLINE __u32 xe_take_iv(struct xe_scratch *s, __u32 slot, struct xe_sending *with)
{
	struct xe_config *settings = xe_only(config);
	struct xe_association *association;
	struct xe_lane *lane = bpf_map_lookup_elem(&lanes, &slot);
	__u32 index, parity;
	__u64 counter, iv, id;

	if (!settings || !lane)
		return XE_FAULT_MAP;
	parity = settings->sending & 1;
	index = XE_ASSOCIATION(slot, XE_SEND, parity);
	association = bpf_map_lookup_elem(&associations, &index);
	if (!association)
		return XE_FAULT_MAP;
	id = xe_association_id(association);
	with->cipher = association->cipher;
	with->hash_key = association->hash_key;
	with->lane = lane;
	if (settings->sending == 0 || association->epoch != settings->sending || !with->cipher || !with->hash_key)
		return XE_DROP_NO_KEY;
	counter = xe_next_counter(lane, id, parity);
	s->packet.spi = association->spi;
	/* Taken away meanwhile: what was read above may be another key's, and the counter may have started again. */
	if (id == 0 || xe_association_id(association) != id)
		return XE_DROP_NO_KEY;
	if (counter == 0)
		return XE_DROP_EXHAUSTED;
	iv = bpf_cpu_to_be64((__u64)bpf_get_smp_processor_id() << 48 | counter);
	with->iv = iv;
	s->nonce[0] = s->packet.spi | iv << 32;
	s->nonce[1] = iv >> 32;
	return 0;
}

#endif /* XE_IV_BPF_H */
