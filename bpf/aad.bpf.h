/* SPDX-License-Identifier: GPL-2.0-only */
/* What the inline framing authenticates beside the text, and the L4 checksum, which covers the same fields. */
#ifndef XE_AAD_BPF_H
#define XE_AAD_BPF_H

#include "packet.bpf.h"

#define XE_AAD_BLOCKS_INLINE 6 /* IPv6 addresses, 4 bytes, the longest TCP header */

/* What the AAD's four bytes between addresses and L4 header are, as they lie in memory. */
XE_INLINE __u32 xe_aad_word(const struct xe_packet *p)
{
	return p->protocol | (p->ipv6 ? 6 : 4) << 8 | (__u32)bpf_htons(p->l4_header_len) << 16;
}

XE_INLINE __u32 xe_checksum_offset(const struct xe_packet *p)
{
	return p->protocol == XE_PROTO_TCP ? 16 : p->protocol == XE_PROTO_UDP ? 6 : 2;
}

/*
 * Writes the AAD into `input`, right before the text (docs/wire-format.md):
 *
 *     source | destination | protocol 1 | IP version 1 | L4 header length 2 | L4 header, checksum and UDP length 0
 *
 * Returns where its L4 header stands in `input`, or 0 on a fault. The checksum that was there goes to `*checksum`.
 */
XE_INLINE __u32 xe_aad_build(void *ctx, const int skb, struct xe_scratch *s, __u16 *checksum)
{
	const struct xe_packet *p = &s->packet;
	__u32 len = p->l4_header_len, addresses = p->ipv6 ? 32 : 8, start, header;
	__u8 *aad;

	s->aad_len = addresses + 4 + len;
	start = (XE_TEXT_OFFSET - s->aad_len) & ~(XE_BLOCK - 1);
	xe_opaque(start);
	if (start > XE_TEXT_OFFSET)
		return 0;
	*(__u64 *)(s->input + XE_TEXT_OFFSET - 16) = 0;
	*(__u64 *)(s->input + XE_TEXT_OFFSET - 8) = 0;
	aad = s->input + start;
	if (p->ipv6) {
		*(struct xe_address *)aad = p->source;
		*(struct xe_address *)(aad + 16) = p->destination;
		*(__u32 *)(aad + 32) = xe_aad_word(p);
	} else {
		*(__u32 *)aad = p->source.word[3];
		*(__u32 *)(aad + 4) = p->destination.word[3];
		*(__u32 *)(aad + 8) = xe_aad_word(p);
	}
	header = start + addresses + 4;
	xe_opaque(header);
	if (header > XE_TEXT_OFFSET)
		return 0;
	aad = s->input + header;
	if (xe_read(ctx, skb, s, p->l4, aad, len, XE_L4_HEADER_MAX))
		return 0;
	if (p->protocol == XE_PROTO_TCP) {
		*checksum = *(__u16 *)(aad + 16);
		*(__u16 *)(aad + 16) = 0;
	} else if (p->protocol == XE_PROTO_UDP) {
		*checksum = *(__u16 *)(aad + 6);
		*(__u32 *)(aad + 4) = 0;
	} else {
		*checksum = *(__u16 *)(aad + 2);
		*(__u16 *)(aad + 2) = 0;
	}
	return header;
}

/*
 * The part of the L4 checksum that encryption leaves alone: pseudo header and L4 header, but for lengths and checksum. Read from
 * the AAD, which holds the same fields: to be called before anything overwrites it.
 */
XE_INLINE __u64 xe_header_sum(const struct xe_scratch *s)
{
	const struct xe_packet *p = &s->packet;
	const __u64 *end = (const __u64 *)(s->input + XE_TEXT_OFFSET);
	__u32 words = (s->aad_len + XE_BLOCK - 1) / XE_BLOCK * 2;
	__u64 sum = 0;

	for (int i = 1; i <= XE_AAD_BLOCKS_INLINE * 2; i++) {
		if ((__u32)i > words)
			break;
		sum += xe_sum64(end[-i]);
	}
	sum -= xe_aad_word(p);
	/* ICMP has no pseudo header over IPv4 (RFC 792). */
	if (p->protocol == XE_PROTO_ICMP)
		return sum - p->source.word[3] - p->destination.word[3];
	return sum + bpf_htons(p->protocol);
}

/* The part of the sum that lengths make: once in the pseudo header, for UDP once more. */
XE_INLINE __u64 xe_length_sum(const struct xe_packet *p, __u32 l4_len)
{
	if (p->protocol == XE_PROTO_ICMP)
		return 0;
	return (__u64)bpf_htons(l4_len) << (p->protocol == XE_PROTO_UDP);
}

/* The checksum that makes `sum` right; UDP writes 0 as 0xffff (RFC 768). */
XE_INLINE __u16 xe_checksum(const struct xe_packet *p, __u64 sum)
{
	__u16 checksum = ~xe_fold(sum);

	return p->protocol == XE_PROTO_UDP && checksum == 0 ? 0xffff : checksum;
}

#endif /* XE_AAD_BPF_H */
