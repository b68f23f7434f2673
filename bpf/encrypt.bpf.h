/* SPDX-License-Identifier: GPL-2.0-only */
/* What leaves a pod. */
#ifndef XE_ENCRYPT_BPF_H
#define XE_ENCRYPT_BPF_H

#include "aad.bpf.h"
#include "gcm.bpf.h"
#include "iv.bpf.h"
#include "tunnel.bpf.h"

XE_INLINE int xe_in_strict_cidr(const struct xe_address *address)
{
	struct xe_cidr key = {.prefix_len = 128, .address = *address};

	return bpf_map_lookup_elem(&strict_cidrs, &key) != NULL;
}

/* Whether somebody behind us would lead a packet on to a protected pod, in clear: kube-proxy. */
XE_INLINE int xe_leads_to_protected(const struct xe_address *address)
{
	return bpf_map_lookup_elem(&service_addresses, address) != NULL;
}

/* Whether a packet is to be encrypted (XE_ENCRYPTED, and for whom) or what else happens with it. */
XE_INLINE __u32 xe_send_policy(struct xe_packet *p, __u32 *slot)
{
	struct xe_endpoint *source = bpf_map_lookup_elem(&endpoints, &p->source);
	struct xe_endpoint *destination = bpf_map_lookup_elem(&endpoints, &p->destination);
	struct xe_peer *peer;
	__u32 strict;

	if (!source || !(source->flags & XE_ENDPOINT_LOCAL)) {
		/* Whatever comes here left a protected pod. Under an address that is not its own it reaches nobody protected. */
		if (source || (destination && !(destination->flags & XE_ENDPOINT_LOCAL)) ||
		    xe_in_strict_cidr(&p->destination) || xe_leads_to_protected(&p->destination))
			return XE_DROP_SPOOFED;
		return destination ? XE_PASS_SAME_NODE : XE_PASS_UNPROTECTED;
	}
	if (!destination) {
		strict = source->flags & XE_ENDPOINT_STRICT;
		if (strict && xe_leads_to_protected(&p->destination))
			return XE_DROP_SERVICE;
		if (!xe_in_strict_cidr(&p->destination))
			return XE_PASS_UNPROTECTED;
		return strict ? XE_DROP_UNKNOWN_PEER : XE_PASS_UNKNOWN_PEER;
	}
	if (destination->flags & XE_ENDPOINT_LOCAL)
		return XE_PASS_SAME_NODE;
	*slot = destination->slot;
	peer = bpf_map_lookup_elem(&peers, slot);
	if (!peer)
		return XE_FAULT_MAP;
	strict = (source->flags | destination->flags) & XE_ENDPOINT_STRICT;
	if (peer->acknowledged < source->since)
		return strict ? XE_DROP_NOT_READY : XE_PASS_CLEARTEXT;
	if (destination->flags & XE_ENDPOINT_WITHDRAWING)
		return XE_PASS_WITHDRAWING;
	if (source->until && peer->acknowledged >= source->until)
		return XE_PASS_WITHDRAWING;
	p->tunnel = ((source->flags | destination->flags) & XE_ENDPOINT_HIDDEN) != 0;
	return XE_ENCRYPTED;
}

/* Encrypts a packet for the peer in `slot`. Returns XE_ENCRYPTED or why it has to be dropped. */
XE_INLINE __u32 xe_encrypt_packet(void *ctx, const int skb, struct xe_scratch *s, __u32 slot)
{
	struct xe_packet *p = &s->packet;
	struct xe_sending with;
	struct xe_shim shim;
	__u32 len = p->text_len, header = 0, verdict, l4_len;
	__u64 iv, sum, shim_sum;
	__u16 checksum = 0;
	void *text = NULL;

	if (len > XE_TEXT_MAX - XE_SHIM_LEN)
		return XE_DROP_TOO_BIG;
	verdict = xe_take_iv(s, slot, &with);
	if (verdict)
		return verdict;
	iv = with.iv;
	if (xe_unlikely(p->tunnel)) {
		verdict = xe_tunnel(read, ctx, skb, s, iv);
		if (verdict)
			return verdict;
	} else {
		s->text_len = len;
		header = xe_aad_build(ctx, skb, s, &checksum);
		if (header == 0)
			return XE_FAULT_PACKET;
		text = xe_linear(ctx, skb, p->text, len);
		if (!text &&
		    xe_read(ctx, skb, s, p->text, s->input + XE_TEXT_OFFSET, len, XE_TEXT_MAX - XE_SHIM_LEN)) {
			xe_gcm_wipe_text(s);
			return XE_FAULT_PACKET;
		}
	}
	if (xe_gcm_seal(s, with.cipher, with.hash_key, text, xe_data_end(ctx, skb)))
		return XE_FAULT_CIPHER;
	if (xe_unlikely(p->tunnel)) {
		verdict = xe_tunnel(write, ctx, skb, s);
		if (verdict)
			return verdict;
		goto sent;
	}

	/* A wrong checksum would come out right on the other side. UDP's 0 means that there is none. */
	sum = xe_header_sum(s);
	if (!(p->protocol == XE_PROTO_UDP && checksum == 0) &&
	    xe_fold(sum + xe_length_sum(p, p->l4_header_len + p->text_len) + s->sum_before + checksum) != 0xffff)
		return XE_DROP_CHECKSUM;
	shim_sum = p->spi + xe_sum64(iv) + xe_sum64(s->tag[0]) + xe_sum64(s->tag[1]);
	l4_len = p->l4_header_len + XE_SHIM_LEN + p->text_len;
	sum += xe_length_sum(p, l4_len) + shim_sum + s->sum_after;
	checksum = xe_checksum(p, sum);

	if (skb) {
		if (header > XE_TEXT_OFFSET)
			return XE_FAULT_PACKET;
		verdict = xe_resize_skb(ctx, p, XE_SHIM_LEN, s->input + header);
	} else {
		verdict = xe_grow_xdp(ctx, p->text);
	}
	if (verdict)
		return verdict;
	shim.spi = p->spi;
	shim.iv = iv;
	shim.tag[0] = s->tag[0];
	shim.tag[1] = s->tag[1];
	if (xe_shim_write(ctx, skb, s, p->text, &shim) ||
	    xe_write(ctx, skb, s, p->text + XE_SHIM_LEN, s->input + XE_TEXT_OFFSET, s->text_len, XE_TEXT_MAX))
		return XE_FAULT_PACKET;
	verdict = xe_patch(ctx, skb, p, l4_len, checksum);
	if (verdict)
		return verdict;
sent:
	with.lane->sent_packets += 1;
	with.lane->sent_bytes += s->text_len;
	return XE_ENCRYPTED;
}

/* The verdict on a frame that leaves a pod. */
XE_INLINE __u32 xe_send(void *ctx, const int skb, struct xe_scratch *s)
{
	struct xe_packet *p = &s->packet;
	struct xe_config *settings;
	__u32 verdict, slot = 0;

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
	verdict = xe_send_policy(p, &slot);
	if (verdict != XE_ENCRYPTED)
		return verdict;
	if (p->problem) {
		/* What the inline framing cannot carry. */
		if (p->problem != XE_DROP_UNSUPPORTED || p->segmented)
			return p->problem;
		if (p->l3 + p->ip_len < p->frame_len)
			return XE_DROP_MALFORMED;
		p->tunnel = 1;
	}
	return xe_encrypt_packet(ctx, skb, s, slot);
}

#endif /* XE_ENCRYPT_BPF_H */
