/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Packets: reading them, and growing and shrinking them at the head. One source for XDP and tcx: `skb` says which, and is a
 * constant wherever this is inlined.
 */
#ifndef XE_PACKET_BPF_H
#define XE_PACKET_BPF_H

#include "maps.bpf.h"

#define XE_ETH_LEN 14
#define XE_VLAN_LEN 4
#define XE_IPV4_LEN 20
#define XE_IPV6_LEN 40
#define XE_TCP_LEN 20
#define XE_UDP_LEN 8
#define XE_ICMP_LEN 8
#define XE_L3_MAX (XE_ETH_LEN + 2 * XE_VLAN_LEN)
#define XE_L4_MAX (XE_L3_MAX + XE_IPV6_LEN)
#define XE_L4_HEADER_MAX 60
#define XE_HEADERS_MAX (XE_L4_MAX + XE_L4_HEADER_MAX)

/* EtherTypes, IP protocols and ICMP types (IANA) */
#define XE_ETH_IPV4 0x0800
#define XE_ETH_ARP 0x0806
#define XE_ETH_VLAN 0x8100
#define XE_ETH_QINQ 0x88a8
#define XE_ETH_IPV6 0x86dd
#define XE_PROTO_ICMP 1
#define XE_PROTO_TCP 6
#define XE_PROTO_UDP 17
#define XE_PROTO_ICMPV6 58
#define XE_ICMP_ECHO_REPLY 0
#define XE_ICMP_ECHO_REQUEST 8
#define XE_ICMPV6_ECHO_REQUEST 128
#define XE_ICMPV6_ECHO_REPLY 129
#define XE_ND_FIRST 133 /* router solicitation */
#define XE_ND_LAST 137 /* redirect */

struct xe_ipv4 {
	__u8 version_ihl;
	__u8 tos;
	__u16 total_len;
	__u16 id;
	__u16 fragment;
	__u8 ttl;
	__u8 protocol;
	__u16 checksum;
	__u32 source;
	__u32 destination;
};

struct xe_ipv6 {
	__u32 version_class_flow;
	__u16 payload_len;
	__u8 next_header;
	__u8 hop_limit;
	__u32 source[4];
	__u32 destination[4];
};

/* ---- XDP and tcx alike ---- */

XE_INLINE void *xe_data(void *ctx, const int skb)
{
	return skb ? (void *)(long)((struct __sk_buff *)ctx)->data : (void *)(long)((struct xdp_md *)ctx)->data;
}

XE_INLINE void *xe_data_end(void *ctx, const int skb)
{
	return skb ? (void *)(long)((struct __sk_buff *)ctx)->data_end : (void *)(long)((struct xdp_md *)ctx)->data_end;
}

XE_INLINE __u32 xe_frame_len(void *ctx, const int skb)
{
	return skb ? ((struct __sk_buff *)ctx)->len : (__u32)bpf_xdp_get_buff_len(ctx);
}

XE_INLINE long xe_load(void *ctx, const int skb, __u32 offset, void *to, __u32 len)
{
	return skb ? bpf_skb_load_bytes(ctx, offset, to, len) : bpf_xdp_load_bytes(ctx, offset, to, len);
}

XE_INLINE long xe_store(void *ctx, const int skb, __u32 offset, void *from, __u32 len)
{
	return skb ? bpf_skb_store_bytes(ctx, offset, from, len, 0) : bpf_xdp_store_bytes(ctx, offset, from, len);
}

#define XE_COPY_DIRECT 256 /* bytes: up to here, words one by one are faster than a helper call */

/* Copies `len` bytes, at least 8, of the linear part into `to` word by word; the last word may overlap the one before. -1: cannot. */
XE_INLINE int xe_copy_in(struct xdp_md *ctx, struct xe_scratch *s, __u32 offset, __u8 *to, __u32 len)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end, *word;
	__u32 at, last = len - 8;

	xe_opaque(offset);
	if (offset > XE_HEADERS_MAX + XE_SHIM_LEN)
		return -1;
	data += offset;
	xe_loop(at, s->zero, 0, last, 8)
	{
		if (at > XE_COPY_DIRECT)
			return -1;
		word = data + at;
		if (word + 8 > data_end)
			return -1;
		*(__u64 *)(to + at) = *(__u64 *)word;
	}
	xe_opaque(last);
	if (last > XE_COPY_DIRECT)
		return -1;
	word = data + last;
	if (word + 8 > data_end)
		return -1;
	*(__u64 *)(to + last) = *(__u64 *)word;
	return 0;
}

/* The other way. */
XE_INLINE int xe_copy_out(struct xdp_md *ctx, struct xe_scratch *s, __u32 offset, const __u8 *from, __u32 len)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end, *word;
	__u32 at, last = len - 8;

	xe_opaque(offset);
	if (offset > XE_HEADERS_MAX + XE_SHIM_LEN)
		return -1;
	data += offset;
	xe_loop(at, s->zero, 0, last, 8)
	{
		if (at > XE_COPY_DIRECT)
			return -1;
		word = data + at;
		if (word + 8 > data_end)
			return -1;
		*(__u64 *)word = *(const __u64 *)(from + at);
	}
	xe_opaque(last);
	if (last > XE_COPY_DIRECT)
		return -1;
	word = data + last;
	if (word + 8 > data_end)
		return -1;
	*(__u64 *)word = *(const __u64 *)(from + last);
	return 0;
}

/*
 * Reads `len` bytes of the packet, from `offset`, to `to`, which lies in the scratch's `input`; `max` bounds
 * `len` for the verifier. Returns 0 or -1.
 */
XE_INLINE int xe_read(void *ctx, const int skb, struct xe_scratch *s, __u32 offset, __u8 *to, __u32 len, const __u32 max)
{
	if (len == 0)
		return 0;
	if (!skb && len >= 8 && len <= XE_COPY_DIRECT && xe_copy_in(ctx, s, offset, to, len) == 0)
		return 0;
	if (!xe_is_between(len, 1, max))
		return -1;
	return xe_load(ctx, skb, offset, to, len) ? -1 : 0;
}

/* Writes `len` bytes to the packet, likewise. Returns 0 or -1. */
XE_INLINE int xe_write(void *ctx, const int skb, struct xe_scratch *s, __u32 offset, __u8 *from, __u32 len, const __u32 max)
{
	if (len == 0)
		return 0;
	if (!skb && len >= 8 && len <= XE_COPY_DIRECT && xe_copy_out(ctx, s, offset, from, len) == 0)
		return 0;
	if (!xe_is_between(len, 1, max))
		return -1;
	return xe_store(ctx, skb, offset, from, len) ? -1 : 0;
}

/* Where `len` bytes at `offset` stand in the linear part of an XDP packet; NULL when they do not, and always in tcx. */
XE_INLINE void *xe_linear(void *ctx, const int skb, __u32 offset, __u32 len)
{
	void *place = xe_data(ctx, skb);

	xe_opaque(offset);
	xe_opaque(len);
	if (skb || offset > XE_HEADERS_MAX + XE_SHIM_LEN || len > XE_TEXT_MAX)
		return NULL;
	place += offset;
	return place + len > xe_data_end(ctx, skb) ? NULL : place;
}

/* The shim, which stands between L4 header and ciphertext. Values as they lie in memory. */
struct xe_shim {
	__u32 spi;
	__u64 iv;
	__u64 tag[2];
};

XE_INLINE void xe_shim_get(struct xe_shim *shim, const void *bytes)
{
	shim->spi = *(const __u32 *)bytes;
	shim->iv = *(const __u64 *)(bytes + XE_SPI_LEN);
	shim->tag[0] = *(const __u64 *)(bytes + XE_SPI_LEN + XE_IV_LEN);
	shim->tag[1] = *(const __u64 *)(bytes + XE_SPI_LEN + XE_IV_LEN + 8);
}

XE_INLINE void xe_shim_put(const struct xe_shim *shim, void *bytes)
{
	*(__u32 *)bytes = shim->spi;
	*(__u64 *)(bytes + XE_SPI_LEN) = shim->iv;
	*(__u64 *)(bytes + XE_SPI_LEN + XE_IV_LEN) = shim->tag[0];
	*(__u64 *)(bytes + XE_SPI_LEN + XE_IV_LEN + 8) = shim->tag[1];
}

/* Where the shim stands in the linear part; NULL when it does not. */
XE_INLINE void *xe_shim_place(void *ctx, const int skb, __u32 offset)
{
	void *place = xe_data(ctx, skb);

	xe_opaque(offset);
	if (offset > XE_HEADERS_MAX)
		return NULL;
	place += offset;
	return place + XE_SHIM_LEN > xe_data_end(ctx, skb) ? NULL : place;
}

/* Reads the shim at `offset`. Returns 0 or -1. */
XE_INLINE int xe_shim_read(void *ctx, const int skb, struct xe_scratch *s, __u32 offset, struct xe_shim *shim)
{
	void *place = xe_shim_place(ctx, skb, offset);

	if (place) {
		xe_shim_get(shim, place);
		return 0;
	}
	/* By way of the place where the AAD will be. */
	if (xe_load(ctx, skb, offset, s->input, XE_SHIM_LEN))
		return -1;
	xe_shim_get(shim, s->input);
	return 0;
}

/* Writes the shim at `offset`. The AAD is lost. Returns 0 or -1. */
XE_INLINE int xe_shim_write(void *ctx, const int skb, struct xe_scratch *s, __u32 offset, const struct xe_shim *shim)
{
	void *place = xe_shim_place(ctx, skb, offset);

	if (place) {
		xe_shim_put(shim, place);
		return 0;
	}
	xe_shim_put(shim, s->input);
	return xe_store(ctx, skb, offset, s->input, XE_SHIM_LEN) ? -1 : 0;
}

/* ---- sums for checksums (RFC 1071): of words as they lie in memory, so byte order does not matter ---- */

XE_INLINE __u64 xe_sum64(__u64 x)
{
	return (x & 0xffffffff) + (x >> 32);
}

XE_INLINE __u16 xe_fold(__u64 sum)
{
	__u32 half;

	/* A sum plus itself turned by half of its length: the upper half is the sum of both halves, with the carry added again. */
	sum += sum >> 32 | sum << 32;
	half = sum >> 32;
	half += half >> 16 | half << 16;
	return half >> 16;
}

/* The checksum of a header of which 16 bits change (RFC 1624, equation 3). */
XE_INLINE __u16 xe_checksum_update(__u16 checksum, __u16 before, __u16 after)
{
	return ~xe_fold((__u64)(__u16)~checksum + (__u16)~before + after);
}

/* ---- parsing ---- */

enum xe_kind {
	XE_KIND_IP, /* addresses are set; `problem` may be */
	XE_KIND_CONTROL, /* ARP, neighbour and router discovery */
	XE_KIND_OTHER, /* another EtherType */
	XE_KIND_MALFORMED, /* not even addresses */
};

XE_INLINE void xe_set_ipv4(struct xe_address *address, __u32 ipv4)
{
	address->word[0] = 0;
	address->word[1] = 0;
	address->word[2] = bpf_htonl(0xffff);
	address->word[3] = ipv4;
}

/* Reads the L4 header at `p->l4`, of which `rest` bytes are there. Sets `problem` where the inline framing cannot carry it. */
XE_INLINE void xe_parse_l4(void *data, void *data_end, struct xe_packet *p, __u32 rest)
{
	__u32 l4 = *(volatile __u32 *)&p->l4, len;
	__u8 protocol = p->protocol, icmp = p->ipv6 ? XE_PROTO_ICMPV6 : XE_PROTO_ICMP;
	__u8 *header;

	if (l4 > XE_L4_MAX)
		return;
	header = data + l4;
	if (rest < XE_ICMP_LEN || (void *)(header + XE_ICMP_LEN) > data_end) {
		int is_other = protocol != XE_PROTO_TCP && protocol != XE_PROTO_UDP && protocol != icmp;

		p->problem = is_other ? XE_DROP_UNSUPPORTED : XE_DROP_MALFORMED;
		return;
	}
	if (protocol == XE_PROTO_TCP) {
		p->source_port = *(__u16 *)header;
		p->destination_port = *(__u16 *)(header + 2);
		if (rest < XE_TCP_LEN || (void *)(header + XE_TCP_LEN) > data_end) {
			p->problem = XE_DROP_MALFORMED;
			return;
		}
		len = (header[12] >> 4) * 4;
		if (len < XE_TCP_LEN || len > rest) {
			p->problem = XE_DROP_MALFORMED;
			return;
		}
	} else if (protocol == XE_PROTO_UDP) {
		p->source_port = *(__u16 *)header;
		p->destination_port = *(__u16 *)(header + 2);
		len = XE_UDP_LEN;
		if (bpf_ntohs(*(__u16 *)(header + 4)) != rest) {
			p->problem = XE_DROP_MALFORMED;
			return;
		}
	} else {
		__u8 type = header[0];
		int echo = p->ipv6 ? type == XE_ICMPV6_ECHO_REQUEST || type == XE_ICMPV6_ECHO_REPLY
				   : type == XE_ICMP_ECHO_REQUEST || type == XE_ICMP_ECHO_REPLY;

		if (protocol != icmp || !echo) {
			p->problem = XE_DROP_UNSUPPORTED;
			return;
		}
		len = XE_ICMP_LEN;
	}
	p->l4_header_len = len;
	p->text = l4 + len;
	p->text_len = rest - len;
}

/*
 * Parses a frame into `p`. A packet that the inline framing cannot carry still has its addresses read, so that policy comes
 * first: what is unprotected passes whatever it looks like.
 */
XE_INLINE enum xe_kind xe_parse(void *ctx, const int skb, struct xe_packet *p)
{
	void *data, *data_end;
	__u32 l3 = XE_ETH_LEN, ip_len, rest, problem = 0;
	__u16 type;

	p->frame_len = xe_frame_len(ctx, skb);
	__builtin_memset(&p->source, 0, sizeof(p->source));
	__builtin_memset(&p->destination, 0, sizeof(p->destination));
	p->problem = 0;
	p->spi = 0;
	p->text_len = 0;
	p->source_port = 0;
	p->destination_port = 0;
	p->protocol = 0;
	p->tunnel = 0;
	p->segmented = skb && ((struct __sk_buff *)ctx)->gso_segs > 1;
	data = xe_data(ctx, skb);
	data_end = xe_data_end(ctx, skb);
	if (skb && data + XE_HEADERS_MAX + XE_SPI_LEN > data_end && data_end - data < p->frame_len) {
		/* Headers may lie outside of the linear part here. */
		bpf_skb_pull_data(ctx, p->frame_len < XE_HEADERS_MAX + XE_SPI_LEN ? p->frame_len
										  : XE_HEADERS_MAX + XE_SPI_LEN);
		data = xe_data(ctx, skb);
		data_end = xe_data_end(ctx, skb);
	}
	if (data + XE_ETH_LEN > data_end)
		return XE_KIND_MALFORMED;
	type = *(__u16 *)(data + XE_ETH_LEN - 2);
#pragma unroll
	for (int tags = 0; tags < 2; tags++) {
		if (type != bpf_htons(XE_ETH_VLAN) && type != bpf_htons(XE_ETH_QINQ))
			break;
		if (data + l3 + XE_VLAN_LEN > data_end)
			return XE_KIND_MALFORMED;
		type = *(__u16 *)(data + l3 + 2);
		l3 += XE_VLAN_LEN;
	}
	/* By way of memory, so that the verifier walks what follows once and not once for each number of tags. */
	*(volatile __u32 *)&p->l3 = l3;
	if (type == bpf_htons(XE_ETH_ARP))
		return XE_KIND_CONTROL;
	if (type != bpf_htons(XE_ETH_IPV4) && type != bpf_htons(XE_ETH_IPV6))
		return XE_KIND_OTHER;
	l3 = *(volatile __u32 *)&p->l3;
	if (l3 > XE_L3_MAX)
		return XE_KIND_MALFORMED;

	if (type == bpf_htons(XE_ETH_IPV4)) {
		struct xe_ipv4 *ip = data + l3;

		if ((void *)(ip + 1) > data_end)
			return XE_KIND_MALFORMED;
		ip_len = bpf_ntohs(ip->total_len);
		if ((ip->version_ihl >> 4) != 4 || (ip->version_ihl & 15) < 5 || ip_len < XE_IPV4_LEN)
			return XE_KIND_MALFORMED;
		p->ipv6 = 0;
		p->protocol = ip->protocol;
		xe_set_ipv4(&p->source, ip->source);
		xe_set_ipv4(&p->destination, ip->destination);
		*(volatile __u32 *)&p->l4 = l3 + XE_IPV4_LEN;
		rest = ip_len - XE_IPV4_LEN;
		if ((ip->version_ihl & 15) != 5 || (ip->fragment & bpf_htons(0x3fff)))
			problem = XE_DROP_UNSUPPORTED;
		else if (xe_fold((__u64)*(__u32 *)ip + *((__u32 *)ip + 1) + *((__u32 *)ip + 2) + ip->source +
				 ip->destination) != 0xffff)
			problem = XE_DROP_CHECKSUM;
	} else {
		struct xe_ipv6 *ip = data + l3;

		if ((void *)(ip + 1) > data_end)
			return XE_KIND_MALFORMED;
		rest = bpf_ntohs(ip->payload_len);
		ip_len = XE_IPV6_LEN + rest;
		if ((ip->version_class_flow & bpf_htonl(0xf0000000)) != bpf_htonl(0x60000000))
			return XE_KIND_MALFORMED;
		p->ipv6 = 1;
		p->protocol = ip->next_header;
		__builtin_memcpy(&p->source, ip->source, sizeof(p->source));
		__builtin_memcpy(&p->destination, ip->destination, sizeof(p->destination));
		*(volatile __u32 *)&p->l4 = l3 + XE_IPV6_LEN;
		if (ip->next_header == XE_PROTO_ICMPV6) {
			__u8 *icmp = (void *)(ip + 1);

			/* Hop limit 255 cannot come from behind a router (RFC 4861, section 11.2). */
			if ((void *)(icmp + 1) <= data_end && ip->hop_limit == 255 && icmp[0] >= XE_ND_FIRST &&
			    icmp[0] <= XE_ND_LAST)
				return XE_KIND_CONTROL;
		}
	}
	if (l3 + ip_len > p->frame_len)
		return XE_KIND_MALFORMED;
	p->ip_len = ip_len;
	/* Bytes behind the IP packet would stay in clear. */
	if (!problem && l3 + ip_len < p->frame_len)
		problem = XE_DROP_MALFORMED;
	if (p->segmented)
		problem = XE_DROP_UNSUPPORTED;
	p->problem = problem;
	if (!problem)
		xe_parse_l4(data, data_end, p, rest);
	return XE_KIND_IP;
}

/* ---- resizing: XE_SHIM_LEN bytes at the head, headers moved ---- */

/* XDP: makes room between L4 header and payload. Returns 0, or the verdict that says why not. */
XE_INLINE __u32 xe_grow_xdp(struct xdp_md *ctx, __u32 headers)
{
	void *data, *data_end;

	if (bpf_xdp_adjust_head(ctx, -XE_SHIM_LEN))
		return XE_DROP_NO_ROOM;
	data = (void *)(long)ctx->data;
	data_end = (void *)(long)ctx->data_end;
	/* Downwards by more than a word, so word by word from the front; then the last, which may overlap the one before. */
#pragma unroll
	for (__u32 at = 0; at <= XE_HEADERS_MAX - 8; at += 8) {
		if (at + 8 > headers)
			break;
		if (data + at + XE_SHIM_LEN + 8 > data_end)
			return XE_FAULT_PACKET;
		*(__u64 *)(data + at) = *(__u64 *)(data + at + XE_SHIM_LEN);
	}
	headers -= 8;
	xe_opaque(headers);
	if (headers > XE_HEADERS_MAX)
		return XE_FAULT_PACKET;
	xe_opaque(data);
	data += headers;
	if (data + XE_SHIM_LEN + 8 > data_end)
		return XE_FAULT_PACKET;
	*(__u64 *)data = *(__u64 *)(data + XE_SHIM_LEN);
	return 0;
}

/* XDP: takes the shim's room away again. Returns 0, or the verdict that says why not. */
XE_INLINE __u32 xe_shrink_xdp(struct xdp_md *ctx, __u32 headers)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	__u32 last = headers - 8;

	xe_opaque(last);
	if (last > XE_HEADERS_MAX)
		return XE_FAULT_PACKET;
	if (data + last + XE_SHIM_LEN + 8 > data_end)
		return XE_FAULT_PACKET;
	*(__u64 *)(data + last + XE_SHIM_LEN) = *(__u64 *)(data + last);
	/* Upwards: from the back. The check above must not stand in for those below: the verifier would not follow. */
	xe_opaque(data);
#pragma unroll
	for (__u32 end = XE_HEADERS_MAX & ~7; end > 0; end -= 8) {
		if (end > headers)
			continue;
		if (data + end + XE_SHIM_LEN > data_end)
			return XE_FAULT_PACKET;
		*(__u64 *)(data + end - 8 + XE_SHIM_LEN) = *(__u64 *)(data + end - 8);
	}
	if (bpf_xdp_adjust_head(ctx, XE_SHIM_LEN))
		return XE_FAULT_PACKET;
	return 0;
}

/* tcx: the kernel moves everything up to the IP header; the L4 header is written anew, from `header`. */
XE_INLINE __u32 xe_resize_skb(struct __sk_buff *ctx, const struct xe_packet *p, int by, void *header)
{
	__u32 len = p->l4_header_len;

	if (bpf_skb_adjust_room(ctx, by, BPF_ADJ_ROOM_NET, 0))
		return by > 0 ? XE_DROP_NO_ROOM : XE_FAULT_PACKET;
	if (!xe_is_between(len, XE_UDP_LEN, XE_L4_HEADER_MAX))
		return XE_FAULT_PACKET;
	return bpf_skb_store_bytes(ctx, p->l4, header, len, 0) ? XE_FAULT_PACKET : 0;
}

/*
 * xe_patch for tcx, by helpers only. One direct write in a tcx program, and the verifier puts code in front of the program that makes
 * the packet ours alone. Where somebody else holds it as well (a packet socket that listens), kernels to 6.18 lose its metadata then,
 * before the program can read it.
 */
XE_INLINE __u32 xe_patch_skb(struct __sk_buff *ctx, const struct xe_packet *p, __u32 l4_len, __u16 checksum)
{
	__u16 udp[2] = {bpf_htons(l4_len), checksum}, total = bpf_htons(XE_IPV4_LEN + l4_len), before, sum;
	long error;

	if (p->ipv6) {
		error = bpf_skb_store_bytes(ctx, p->l3 + 4, &udp[0], 2, 0);
	} else {
		error = bpf_skb_load_bytes(ctx, p->l3 + 2, &before, 2) | bpf_skb_load_bytes(ctx, p->l3 + 10, &sum, 2);
		sum = xe_checksum_update(sum, before, total);
		error |= bpf_skb_store_bytes(ctx, p->l3 + 2, &total, 2, 0) | bpf_skb_store_bytes(ctx, p->l3 + 10, &sum, 2, 0);
	}
	if (p->protocol == XE_PROTO_UDP)
		error |= bpf_skb_store_bytes(ctx, p->l4 + 4, udp, 4, 0);
	else
		error |= bpf_skb_store_bytes(ctx, p->l4 + (p->protocol == XE_PROTO_TCP ? 16 : 2), &udp[1], 2, 0);
	return error ? XE_FAULT_PACKET : 0;
}

/* Sets the lengths and checksums of a packet whose L4 part has become `l4_len` bytes long. Returns 0 or a verdict. */
XE_INLINE __u32 xe_patch(void *ctx, const int skb, const struct xe_packet *p, __u32 l4_len, __u16 checksum)
{
	void *data = xe_data(ctx, skb), *data_end = xe_data_end(ctx, skb);
	__u32 l3 = p->l3, l4 = p->l4;
	__u8 *header;

	if (skb)
		return xe_patch_skb(ctx, p, l4_len, checksum);
	xe_opaque(l3);
	xe_opaque(l4);
	if (l3 > XE_L3_MAX || l4 > XE_L4_MAX)
		return XE_FAULT_PACKET;
	if (p->ipv6) {
		struct xe_ipv6 *ip = data + l3;

		if ((void *)(ip + 1) > data_end)
			return XE_FAULT_PACKET;
		ip->payload_len = bpf_htons(l4_len);
	} else {
		struct xe_ipv4 *ip = data + l3;
		__u16 before, after;

		if ((void *)(ip + 1) > data_end)
			return XE_FAULT_PACKET;
		before = ip->total_len;
		after = bpf_htons(XE_IPV4_LEN + l4_len);
		ip->total_len = after;
		ip->checksum = xe_checksum_update(ip->checksum, before, after);
	}
	header = data + l4;
	if ((void *)(header + XE_UDP_LEN) > data_end)
		return XE_FAULT_PACKET;
	if (p->protocol == XE_PROTO_UDP) {
		*(__u16 *)(header + 4) = bpf_htons(l4_len);
		*(__u16 *)(header + 6) = checksum;
	} else if (p->protocol == XE_PROTO_TCP) {
		if ((void *)(header + XE_TCP_LEN) > data_end)
			return XE_FAULT_PACKET;
		*(__u16 *)(header + 16) = checksum;
	} else {
		*(__u16 *)(header + 2) = checksum;
	}
	return 0;
}

#endif /* XE_PACKET_BPF_H */
