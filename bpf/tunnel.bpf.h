/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The tunnel framing (docs/wire-format.md): a whole IP packet, encrypted, in a UDP packet between the same addresses. For what the inline
 * framing cannot carry, and for endpoints that hide their headers.
 *
 * Steps in front of and behind the cipher, which both framings share. Not the fast path: subprograms, so that the inline framing's code
 * stays together, and by way of the scratch. There, in `input`, the wire packet is put together in one piece,
 *
 *     Ethernet, tags | outer IP | UDP 8 | PSP header 16 | text | tag 16
 *
 * with the text where all texts stand, and the PSP header, which is the AAD, in front of it as AADs are.
 */
#ifndef XE_TUNNEL_BPF_H
#define XE_TUNNEL_BPF_H

#include "gcm.bpf.h"
#include "iv.bpf.h"
#include "packet.bpf.h"

#define XE_TUNNEL_PORT 1000 /* PSP (IANA) */
#define XE_PSP_LEN 16
#define XE_PSP_OFFSET (XE_TEXT_OFFSET - XE_PSP_LEN) /* in `input` */
#define XE_ECN_CE 3

/* The PSP header's first four bytes, as they lie in memory: next header; length in eights, without the first; crypt offset; version 1. */
XE_INLINE __u32 xe_psp_type(const struct xe_packet *p)
{
	return (p->ipv6 ? 41 : 4) | 1 << 8 | 0x05 << 24;
}

XE_INLINE __u32 xe_tunnel_len(const struct xe_packet *p)
{
	return p->ipv6 ? XE_TUNNEL_LEN_V6 : XE_TUNNEL_LEN_V4;
}

XE_INLINE __u32 xe_mix(__u32 hash, __u32 word)
{
	return (hash ^ word) * 0x9e3779b1;
}

/* The outer source port, network order: flows are spread over paths and queues by it. Fragments of a packet have the same. */
XE_INLINE __u16 xe_flow_port(const struct xe_packet *p)
{
	__u32 hash = 0;

#pragma unroll
	for (int i = 0; i < 4; i++)
		hash = xe_mix(hash, p->source.word[i]);
#pragma unroll
	for (int i = 0; i < 4; i++)
		hash = xe_mix(hash, p->destination.word[i]);
	hash = xe_mix(hash, p->protocol);
	hash = xe_mix(hash, (__u32)bpf_ntohs(p->source_port) << 16 | bpf_ntohs(p->destination_port));
	return bpf_htons(0x8000 | hash >> 17);
}

/*
 * Writes outer IP and UDP header in front of the PSP header. What the network may look at and change is copied from the packet's own.
 */
XE_INLINE void xe_outer_write(struct xe_scratch *s, const struct xe_packet *p)
{
	__u32 udp_len = XE_UDP_LEN + XE_PSP_LEN + s->text_len + XE_TAG_LEN;
	const __u64 *inner = s->inner;
	__u16 *udp = (__u16 *)(s->input + XE_PSP_OFFSET - XE_UDP_LEN);

	if (p->ipv6) {
		struct xe_ipv6 *ip = (struct xe_ipv6 *)(s->input + XE_PSP_OFFSET - XE_UDP_LEN - XE_IPV6_LEN);

		ip->version_class_flow = (__u32)inner[0];
		ip->payload_len = bpf_htons(udp_len);
		ip->next_header = XE_PROTO_UDP;
		ip->hop_limit = inner[0] >> 56;
		__builtin_memcpy(ip->source, &p->source, sizeof(p->source));
		__builtin_memcpy(ip->destination, &p->destination, sizeof(p->destination));
	} else {
		struct xe_ipv4 *ip = (struct xe_ipv4 *)(s->input + XE_PSP_OFFSET - XE_UDP_LEN - XE_IPV4_LEN);
		__u32 *words = (__u32 *)ip;

		words[0] = 0x45 | ((__u32)inner[0] & 0xff00) | (__u32)bpf_htons(XE_IPV4_LEN + udp_len) << 16;
		words[1] = (__u32)bpf_htons(0x4000) << 16; /* do not fragment */
		words[2] = (inner[1] & 0xff) | XE_PROTO_UDP << 8;
		words[3] = p->source.word[3];
		words[4] = p->destination.word[3];
		ip->checksum = ~xe_fold((__u64)words[0] + words[1] + words[2] + words[3] + words[4]);
	}
	udp[0] = xe_flow_port(p);
	udp[1] = bpf_htons(XE_TUNNEL_PORT);
	udp[2] = bpf_htons(udp_len);
	udp[3] = 0;
}

/*
 * Puts `len` bytes of `input`, from `start`, in the place of the IP packet, which is `by` bytes shorter (negative: longer); XDP moves the
 * Ethernet header itself, which stands in front of them then. Returns 0 or a verdict.
 */
XE_INLINE __u32 xe_replace_ip(void *ctx, const int skb, struct xe_scratch *s, __u32 start, __u32 len, int by)
{
	__u32 l2 = s->packet.l3, at = skb ? l2 : 0;

	if (skb) {
		if (bpf_skb_adjust_room(ctx, by, BPF_ADJ_ROOM_MAC, 0))
			return by > 0 ? XE_DROP_NO_ROOM : XE_FAULT_PACKET;
	} else {
		start -= l2;
		xe_opaque(start);
		if (start > XE_TEXT_OFFSET || !xe_is_between(l2, XE_ETH_LEN, XE_L3_MAX))
			return XE_FAULT_PACKET;
		if (bpf_xdp_load_bytes(ctx, 0, s->input + start, l2))
			return XE_FAULT_PACKET;
		if (bpf_xdp_adjust_head(ctx, -by))
			return by > 0 ? XE_DROP_NO_ROOM : XE_FAULT_PACKET;
		len += l2;
	}
	xe_opaque(start);
	if (start > XE_TEXT_OFFSET || !xe_is_between(len, 1, XE_TEXT_MAX))
		return XE_FAULT_PACKET;
	return xe_store(ctx, skb, at, s->input + start, len) ? XE_FAULT_PACKET : 0;
}

/* Reads a packet that is to be encrypted as a whole, with an IV, and writes its PSP header. Returns 0 or why it has to be dropped. */
XE_INLINE __u32 xe_tunnel_read(void *ctx, const int skb, struct xe_scratch *s, __u64 iv)
{
	struct xe_packet *p = &s->packet;
	__u64 *psp = (__u64 *)(s->input + XE_PSP_OFFSET), *text = (__u64 *)(s->input + XE_TEXT_OFFSET);
	__u32 len = p->ip_len;

	if (len > XE_TEXT_MAX - XE_L3_MAX - XE_TUNNEL_LEN_V6)
		return XE_DROP_TOO_BIG;
	s->aad_len = XE_PSP_LEN;
	s->text_len = len;
	if (xe_read(ctx, skb, s, p->l3, s->input + XE_TEXT_OFFSET, len, XE_TEXT_MAX)) {
		xe_gcm_wipe_text(s);
		return XE_FAULT_PACKET;
	}
	s->inner[0] = text[0];
	s->inner[1] = text[1];
	psp[0] = xe_psp_type(p) | (__u64)p->spi << 32;
	psp[1] = iv;
	return 0;
}

/* Puts the tag behind the text and the outer headers in front of it, and all of it in the place of the packet. Returns 0 or a verdict. */
XE_INLINE __u32 xe_tunnel_write(void *ctx, const int skb, struct xe_scratch *s)
{
	struct xe_packet *p = &s->packet;
	__u32 len = s->text_len, headers = XE_UDP_LEN + (p->ipv6 ? XE_IPV6_LEN : XE_IPV4_LEN);
	__u64 *tag;

	xe_opaque(len);
	if (len > XE_TEXT_MAX)
		return XE_FAULT_PACKET;
	tag = (__u64 *)(s->input + XE_TEXT_OFFSET + len);
	tag[0] = s->tag[0];
	tag[1] = s->tag[1];
	xe_outer_write(s, p);
	return xe_replace_ip(ctx, skb, s, XE_PSP_OFFSET - headers, s->text_len + xe_tunnel_len(p), xe_tunnel_len(p));
}

/*
 * The SPI of a packet that looks like one of a tunnel, network order; 0 when it does not. Both framings begin where a UDP packet's text does;
 * an inline packet to this port that looked like this would need an IV that nobody gets to.
 */
XE_INLINE __u32 xe_tunnel_spi(void *ctx, const int skb, const struct xe_packet *p)
{
	void *data = xe_data(ctx, skb), *data_end = xe_data_end(ctx, skb);
	__u32 text = p->text;

	if (p->problem || p->protocol != XE_PROTO_UDP ||
	    p->text_len < XE_PSP_LEN + XE_TAG_LEN + (p->ipv6 ? XE_IPV6_LEN : XE_IPV4_LEN))
		return 0;
	xe_opaque(text);
	if (text > XE_HEADERS_MAX || data + text + 2 * XE_SPI_LEN > data_end)
		return 0;
	data += text;
	return *(__u32 *)data == xe_psp_type(p) ? *(__u32 *)(data + XE_SPI_LEN) : 0;
}

/* Writes 16 bits of an IPv4 header, and its checksum. */
XE_INLINE void xe_ipv4_set(struct xe_ipv4 *ip, __u16 *field, __u16 value)
{
	ip->checksum = xe_checksum_update(ip->checksum, *field, value);
	*field = value;
}

/*
 * Whether a decrypted packet belongs in the one that it came in: same addresses, all of the text. What has happened on the way is passed on:
 * congestion (RFC 6040, section 4.2), and hops, or a packet whose hop limit of 255 says that its sender is a neighbour (RFC 4861, section
 * 11.2) would say so at the end of any tunnel. Returns 0 or why it has to be dropped.
 */
XE_INLINE __u32 xe_inner_check(struct xe_scratch *s)
{
	struct xe_packet *p = &s->packet;
	__u32 congested = p->congested;
	__u64 *text = (__u64 *)(s->input + XE_TEXT_OFFSET);

	if (p->ipv6) {
		struct xe_ipv6 *ip = (struct xe_ipv6 *)text;
		__u32 ecn = bpf_ntohl(ip->version_class_flow) >> 20 & 3;

		if ((ip->version_class_flow & bpf_htonl(0xf0000000)) != bpf_htonl(0x60000000) ||
		    text[1] != *(__u64 *)&p->source.word[0] || text[2] != *(__u64 *)&p->source.word[2] ||
		    text[3] != *(__u64 *)&p->destination.word[0] || text[4] != *(__u64 *)&p->destination.word[2])
			return XE_DROP_SPOOFED;
		if ((__u32)bpf_ntohs(ip->payload_len) + XE_IPV6_LEN != s->text_len)
			return XE_DROP_MALFORMED;
		if (congested && ecn == 0)
			return XE_DROP_MALFORMED;
		if (congested)
			ip->version_class_flow |= bpf_htonl(XE_ECN_CE << 20);
		if (p->hops < ip->hop_limit)
			ip->hop_limit = p->hops;
	} else {
		struct xe_ipv4 *ip = (struct xe_ipv4 *)text;
		__u16 *start = (__u16 *)&ip->version_ihl, *hops = (__u16 *)&ip->ttl;

		if (ip->version_ihl >> 4 != 4 || ip->source != p->source.word[3] ||
		    ip->destination != p->destination.word[3])
			return XE_DROP_SPOOFED;
		if (bpf_ntohs(ip->total_len) != s->text_len || (ip->version_ihl & 15) < 5)
			return XE_DROP_MALFORMED;
		if (congested && (ip->tos & XE_ECN_CE) == 0)
			return XE_DROP_MALFORMED;
		if (congested)
			xe_ipv4_set(ip, start, *start | XE_ECN_CE << 8);
		if (p->hops < ip->ttl)
			xe_ipv4_set(ip, hops, (*hops & 0xff00) | p->hops);
	}
	return 0;
}

/* Reads a packet that came by tunnel: its text, tag, nonce and AAD. Returns 0 or why it has to be dropped. */
XE_INLINE __u32 xe_tunnel_take(void *ctx, const int skb, struct xe_scratch *s)
{
	struct xe_packet *p = &s->packet;
	__u64 *psp = (__u64 *)(s->input + XE_PSP_OFFSET), *tag, iv;
	__u32 len = p->text_len;
	__u8 ip[12];

	if (xe_load(ctx, skb, p->l3, ip, sizeof(ip)) ||
	    xe_read(ctx, skb, s, p->text, s->input + XE_PSP_OFFSET, len, XE_TEXT_MAX))
		return XE_FAULT_PACKET;
	p->hops = p->ipv6 ? ip[7] : ip[8];
	p->congested = (p->ipv6 ? ip[1] >> 4 & XE_ECN_CE : ip[1] & XE_ECN_CE) == XE_ECN_CE;
	len -= XE_PSP_LEN + XE_TAG_LEN;
	s->aad_len = XE_PSP_LEN;
	s->text_len = len;
	xe_opaque(len);
	if (len > XE_TEXT_MAX)
		return XE_DROP_MALFORMED;
	tag = (__u64 *)(s->input + XE_TEXT_OFFSET + len);
	s->tag[0] = tag[0];
	s->tag[1] = tag[1];
	xe_gcm_pad(s, s->text_len);
	iv = psp[1];
	s->nonce[0] = p->spi | iv << 32;
	s->nonce[1] = iv >> 32;
	return 0;
}

/* Puts a decrypted packet in the place of the one that it came in. Returns 0 or why it has to be dropped. */
XE_INLINE __u32 xe_tunnel_give(void *ctx, const int skb, struct xe_scratch *s)
{
	__u32 verdict = xe_inner_check(s);

	return verdict ? verdict
		       : xe_replace_ip(ctx, skb, s, XE_TEXT_OFFSET, s->text_len, -(int)xe_tunnel_len(&s->packet));
}

/* Each as a subprogram, for XDP and for tcx. */

XE_SUBPROGRAM __u32 xe_tunnel_read_xdp(struct xdp_md *ctx, struct xe_scratch *s, __u64 iv)
{
	return xe_tunnel_read(ctx, 0, s, iv);
}

XE_SUBPROGRAM __u32 xe_tunnel_read_skb(struct __sk_buff *ctx, struct xe_scratch *s, __u64 iv)
{
	return xe_tunnel_read(ctx, 1, s, iv);
}

XE_SUBPROGRAM __u32 xe_tunnel_write_xdp(struct xdp_md *ctx, struct xe_scratch *s)
{
	return xe_tunnel_write(ctx, 0, s);
}

XE_SUBPROGRAM __u32 xe_tunnel_write_skb(struct __sk_buff *ctx, struct xe_scratch *s)
{
	return xe_tunnel_write(ctx, 1, s);
}

XE_SUBPROGRAM __u32 xe_tunnel_take_xdp(struct xdp_md *ctx, struct xe_scratch *s)
{
	return xe_tunnel_take(ctx, 0, s);
}

XE_SUBPROGRAM __u32 xe_tunnel_take_skb(struct __sk_buff *ctx, struct xe_scratch *s)
{
	return xe_tunnel_take(ctx, 1, s);
}

XE_SUBPROGRAM __u32 xe_tunnel_give_xdp(struct xdp_md *ctx, struct xe_scratch *s)
{
	return xe_tunnel_give(ctx, 0, s);
}

XE_SUBPROGRAM __u32 xe_tunnel_give_skb(struct __sk_buff *ctx, struct xe_scratch *s)
{
	return xe_tunnel_give(ctx, 1, s);
}

#define xe_tunnel(step, ctx, skb, ...)                                                                                 \
	((skb) ? xe_tunnel_##step##_skb((ctx), __VA_ARGS__) : xe_tunnel_##step##_xdp((ctx), __VA_ARGS__))

#endif /* XE_TUNNEL_BPF_H */
