/* SPDX-License-Identifier: GPL-2.0-only */
/* What enters a pod. */
#ifndef XE_DECRYPT_BPF_H
#define XE_DECRYPT_BPF_H

#include "encrypt.bpf.h"
#include "local.bpf.h"
#include "replay.bpf.h"

/* A packet of a protected peer that carries no SPI of ours: what happens with it. */
XE_INLINE __u32 xe_receive_cleartext(const struct xe_packet *p, const struct xe_endpoint *source)
{
	struct xe_endpoint *destination = bpf_map_lookup_elem(&endpoints, &p->destination);

	/* Damaged or changed on the way: its addresses mean nothing. */
	if (p->problem == XE_DROP_CHECKSUM)
		return XE_DROP_CHECKSUM;
	/* To nobody that is known, a strict peer sends nothing into a strict CIDR: see xe_send_policy. */
	if (!destination && (source->flags & (XE_ENDPOINT_STRICT | XE_ENDPOINT_WITHDRAWING)) == XE_ENDPOINT_STRICT &&
	    xe_in_strict_cidr(&p->destination))
		return XE_DROP_UNKNOWN_PEER;
	/* The other end of this packet is not protected: nothing was to be encrypted. */
	if (!destination || !(destination->flags & XE_ENDPOINT_LOCAL))
		return XE_PASS_UNPROTECTED;
	if ((source->flags | destination->flags) & XE_ENDPOINT_WITHDRAWING)
		return XE_PASS_WITHDRAWING;
	if ((source->flags | destination->flags) & XE_ENDPOINT_STRICT)
		return p->problem == XE_DROP_MALFORMED ? XE_DROP_MALFORMED : XE_DROP_CLEARTEXT;
	return XE_PASS_CLEARTEXT;
}

/* A packet from an address that is no protected endpoint. */
XE_INLINE __u32 xe_receive_stranger(const struct xe_packet *p)
{
	struct xe_endpoint *destination;

	if (!xe_in_strict_cidr(&p->source))
		return XE_PASS_UNPROTECTED;
	destination = bpf_map_lookup_elem(&endpoints, &p->destination);
	if (destination && destination->flags & XE_ENDPOINT_LOCAL && destination->flags & XE_ENDPOINT_STRICT)
		return XE_DROP_UNKNOWN_PEER;
	return XE_PASS_UNKNOWN_PEER;
}

/* The first four bytes of the L4 payload, network order; 0 (no SPI is 0: it holds a node id) when there are none. */
XE_INLINE __u32 xe_read_spi(void *ctx, const int skb, const struct xe_packet *p)
{
	void *data = xe_data(ctx, skb), *data_end = xe_data_end(ctx, skb);
	__u32 text = p->text;

	if (p->problem || p->text_len < XE_SPI_LEN)
		return 0;
	xe_opaque(text);
	if (text > XE_HEADERS_MAX || data + text + XE_SPI_LEN > data_end)
		return 0;
	return *(__u32 *)(data + text);
}

/*
 * For a packet that is dropped although its tag has verified: its text, decrypted in the packet, becomes what it was. The ciphertext
 * is still in `input`. Returns 0.
 */
XE_SUBPROGRAM int xe_take_back(struct xdp_md *ctx, struct xe_scratch *s)
{
	__u32 len = s->text_len;

	if (xe_is_between(len, 1, XE_TEXT_MAX))
		bpf_xdp_store_bytes(ctx, s->packet.text + XE_SHIM_LEN, s->input + XE_TEXT_OFFSET, len);
	return 0;
}

/*
 * Marks an authentic packet's counter as seen. Not when its key has been taken away meanwhile: the key's windows may be gone, too, and then it
 * may have been seen. Returns 0 or the verdict that refuses it.
 */
XE_INLINE __u32 xe_accept(const struct xe_association *association, const struct xe_window_key *key,
			  struct xe_window *window, __u64 counter, __u32 size)
{
	__u32 verdict = xe_replay_mark(key, window, counter, size);

	return !verdict && xe_association_id(association) != key->association ? XE_DROP_NO_KEY : verdict;
}

/* Verifies and decrypts a packet under the key that its SPI names. Returns XE_DECRYPTED or why it has to be dropped. */
XE_INLINE __u32 xe_decrypt_packet(void *ctx, const int skb, struct xe_scratch *s,
				  struct xe_association *association, struct xe_lane *lane)
{
	struct xe_packet *p = &s->packet;
	struct xe_config *settings = xe_only(config);
	__u64 id = xe_association_id(association);
	struct xe_hash_key *hash_key = association->hash_key;
	struct bpf_crypto_ctx *cipher = association->cipher;
	struct xe_window_key window_key;
	struct xe_window *window;
	struct xe_shim shim;
	__u32 len = p->text_len, header = 0, verdict, size, l4_len;
	__u64 iv, counter, sum, shim_sum;
	__u16 checksum = 0;
	void *text = NULL;
	int result;

	if (!settings)
		return XE_FAULT_MAP;
	if (!cipher || !hash_key || id == 0)
		return XE_DROP_NO_KEY;
	if (len < XE_SHIM_LEN)
		return XE_DROP_MALFORMED;
	if (len > XE_TEXT_MAX)
		return XE_DROP_TOO_BIG;
	size = settings->window;

	if (xe_unlikely(p->tunnel)) {
		verdict = xe_tunnel(take, ctx, skb, s);
		if (verdict)
			return verdict;
		iv = s->nonce[0] >> 32 | s->nonce[1] << 32;
	} else {
		xe_gcm_pad(s, len - XE_SHIM_LEN);
		if (xe_shim_read(ctx, skb, s, p->text, &shim) ||
		    xe_read(ctx, skb, s, p->text + XE_SHIM_LEN, s->input + XE_TEXT_OFFSET, len - XE_SHIM_LEN,
			    XE_TEXT_MAX))
			return XE_FAULT_PACKET;
		iv = shim.iv;
		s->tag[0] = shim.tag[0];
		s->tag[1] = shim.tag[1];
		s->nonce[0] = p->spi | iv << 32;
		s->nonce[1] = iv >> 32;
		s->text_len = p->text_len - XE_SHIM_LEN;
	}
	counter = bpf_be64_to_cpu(iv) & XE_COUNTER_MAX;
	window_key.association = id;
	window_key.lane = bpf_be64_to_cpu(iv) >> 48;
	if (counter == 0)
		return XE_DROP_MALFORMED;
	window = bpf_map_lookup_elem(&windows, &window_key);
	if (window) {
		verdict = xe_replay_check(window, counter, size);
		if (verdict)
			return verdict;
	}

	if (!xe_unlikely(p->tunnel)) {
		header = xe_aad_build(ctx, skb, s, &checksum);
		if (header == 0)
			return XE_FAULT_PACKET;
	}
	result = xe_gcm_verify(s, cipher, hash_key);
	if (result)
		return result == 1 ? XE_DROP_AUTH : XE_FAULT_CIPHER;
	if (!xe_unlikely(p->tunnel))
		text = xe_linear(ctx, skb, p->text + XE_SHIM_LEN, s->text_len);
	if (xe_gcm_decrypt(s, cipher, text, xe_data_end(ctx, skb)))
		return XE_FAULT_CIPHER;
	if (xe_unlikely(p->tunnel)) {
		verdict = xe_accept(association, &window_key, window, counter, size);
		if (!verdict)
			verdict = xe_tunnel(give, ctx, skb, s);
		xe_gcm_wipe_text(s);
		if (verdict)
			return verdict;
		goto received;
	}

	/* Authentic from here on. The wire packet's own checksum must be right too, or the restored one would hide that it was not. */
	sum = xe_header_sum(s);
	shim_sum = p->spi + xe_sum64(iv) + xe_sum64(s->tag[0]) + xe_sum64(s->tag[1]);
	if (xe_fold(sum + xe_length_sum(p, p->l4_header_len + p->text_len) + shim_sum + s->sum_before + checksum) !=
	    0xffff)
		verdict = XE_DROP_CHECKSUM;
	else
		/* Only now: a copy that was spoilt on the way must not use up the IV of the good one behind it. */
		verdict = xe_accept(association, &window_key, window, counter, size);
	if (verdict) {
		if (text)
			xe_take_back(ctx, s);
		else
			xe_gcm_wipe_text(s);
		return verdict;
	}
	l4_len = p->l4_header_len + s->text_len;
	checksum = xe_checksum(p, sum + xe_length_sum(p, l4_len) + s->sum_after);

	if (skb) {
		verdict = header > XE_TEXT_OFFSET
				  ? XE_FAULT_PACKET
				  : xe_resize_skb(ctx, p, -XE_SHIM_LEN, s->input + header);
	} else {
		verdict = xe_shrink_xdp(ctx, p->text);
	}
	if (!verdict && !text && xe_write(ctx, skb, s, p->text, s->input + XE_TEXT_OFFSET, s->text_len, XE_TEXT_MAX))
		verdict = XE_FAULT_PACKET;
	if (!text)
		xe_gcm_wipe_text(s);
	if (verdict)
		return verdict;
	verdict = xe_patch(ctx, skb, p, l4_len, checksum);
	if (verdict)
		return verdict;
received:
	lane->received_packets += 1;
	lane->received_bytes += s->text_len;
	return XE_DECRYPTED;
}

/* The verdict on a packet from the protected peer `source`. */
XE_INLINE __u32 xe_receive_peer(void *ctx, const int skb, struct xe_scratch *s, const struct xe_endpoint *source)
{
	struct xe_packet *p = &s->packet;
	struct xe_association *association;
	struct xe_lane *lane;
	__u32 slot = source->slot, spi, index, verdict;

	spi = xe_read_spi(ctx, skb, p);
	if (xe_unlikely(p->destination_port == bpf_htons(XE_TUNNEL_PORT))) {
		__u32 tunnel = xe_tunnel_spi(ctx, skb, p);

		if (tunnel != 0 && bpf_map_lookup_elem(&spis, &tunnel)) {
			spi = tunnel;
			p->tunnel = 1;
		}
	}
	p->spi = spi;
	/* The highest bit of an SPI is the lowest of its epoch. */
	index = XE_ASSOCIATION(slot, XE_RECEIVE, bpf_ntohl(spi) >> 31);
	association = bpf_map_lookup_elem(&associations, &index);
	lane = bpf_map_lookup_elem(&lanes, &slot);
	if (!association || !lane)
		return XE_FAULT_MAP;
	if (spi != 0 && association->epoch != 0 && association->spi == spi)
		verdict = xe_decrypt_packet(ctx, skb, s, association, lane);
	else if (spi != 0 && bpf_map_lookup_elem(&spis, &spi))
		verdict = XE_DROP_SPOOFED;
	else
		verdict = xe_receive_cleartext(p, source);
	if (verdict == XE_DROP_AUTH)
		lane->dropped_auth += 1;
	else if (verdict == XE_DROP_REPLAY || verdict == XE_DROP_STALE)
		lane->dropped_replay += 1;
	else if (verdict >= XE_DROP_CLEARTEXT)
		lane->dropped_other += 1;
	return verdict;
}

/* The verdict on a frame that enters a pod. `from_pod`: if it comes from a pod of this node, that is known to be true. */
XE_INLINE __u32 xe_receive(void *ctx, const int skb, struct xe_scratch *s, int from_pod)
{
	struct xe_packet *p = &s->packet;
	struct xe_endpoint *source;
	struct xe_config *settings;

	switch (xe_parse(ctx, skb, p)) {
	case XE_KIND_CONTROL:
		return XE_PASS_CONTROL;
	case XE_KIND_OTHER:
		settings = xe_only(config);
		return settings && settings->flags & XE_CONFIG_STRICT_ETHERTYPE ? XE_DROP_ETHERTYPE
									       : XE_PASS_ETHERTYPE;
	case XE_KIND_MALFORMED:
		return XE_DROP_MALFORMED;
	case XE_KIND_IP:
		break;
	}
	source = bpf_map_lookup_elem(&endpoints, &p->source);
	if (!source)
		return xe_receive_stranger(p);
	if (source->flags & XE_ENDPOINT_LOCAL)
		return from_pod ? XE_PASS_SAME_NODE : xe_receive_forged(p, source);
	return xe_receive_peer(ctx, skb, s, source);
}

#endif /* XE_DECRYPT_BPF_H */
