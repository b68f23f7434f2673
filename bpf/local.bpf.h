/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Packets under the address of a pod of this node. They are in clear, so nothing in them proves where they come from; the way that
 * they came does. A packet from the network under such an address is forged.
 *
 * Two places look, because there are two ways into a pod. On the ordinary one, through the host's end of its veth, the kernel still
 * knows by which device the packet came into the host's namespace (xe_local). bpf_redirect_peer goes past that, straight to the pod's
 * guard, but keeps the metadata that xe_encrypt has put on what left a pod in clear (enum xe_mark).
 */
#ifndef XE_LOCAL_BPF_H
#define XE_LOCAL_BPF_H

#include "packet.bpf.h"

/* A packet under the address of `source`, a pod of this node, that has not come out of one: what happens with it. */
XE_INLINE __u32 xe_receive_forged(const struct xe_packet *p, const struct xe_endpoint *source)
{
	struct xe_endpoint *destination = bpf_map_lookup_elem(&endpoints, &p->destination);
	__u32 flags = source->flags | (destination ? destination->flags : 0);

	if (flags & XE_ENDPOINT_WITHDRAWING)
		return XE_PASS_WITHDRAWING;
	return flags & XE_ENDPOINT_STRICT ? XE_DROP_SPOOFED : XE_PASS_CLEARTEXT;
}

XE_INLINE struct xe_endpoint *xe_local_endpoint(const struct xe_address *address)
{
	struct xe_endpoint *endpoint = bpf_map_lookup_elem(&endpoints, address);

	return endpoint && endpoint->flags & XE_ENDPOINT_LOCAL ? endpoint : NULL;
}

/* Whether a frame for a pod came into the host's namespace from a protected pod, by what the kernel remembers. 0: the host sent it. */
XE_INLINE int xe_is_from_pod(struct __sk_buff *ctx)
{
	__u32 device = ctx->ingress_ifindex;

	return bpf_map_lookup_elem(&host_ends, &device) != NULL;
}

/*
 * Tells most frames apart whose source is no pod of this node, without parsing them: 1. For the others, 0, or when that takes a closer
 * look: tags, headers that are not in the linear part.
 */
XE_INLINE int xe_is_foreign(struct __sk_buff *ctx)
{
	void *data = xe_data(ctx, 1), *data_end = xe_data_end(ctx, 1);
	struct xe_address source;

	if (data + XE_ETH_LEN + XE_IPV4_LEN > data_end)
		return 0;
	if (*(__u16 *)(data + XE_ETH_LEN - 2) == bpf_htons(XE_ETH_IPV4)) {
		xe_set_ipv4(&source, ((struct xe_ipv4 *)(data + XE_ETH_LEN))->source);
	} else if (*(__u16 *)(data + XE_ETH_LEN - 2) == bpf_htons(XE_ETH_IPV6)) {
		if (data + XE_ETH_LEN + XE_IPV6_LEN > data_end)
			return 0;
		__builtin_memcpy(&source, ((struct xe_ipv6 *)(data + XE_ETH_LEN))->source, sizeof(source));
	} else {
		return 0;
	}
	return xe_local_endpoint(&source) == NULL;
}

#define XE_NOT_LOCAL XE_VERDICTS /* no verdict: the pod's own programs will have one */

/* The verdict on a frame for a pod that has not come out of one. */
XE_INLINE __u32 xe_receive_from_outside(struct __sk_buff *ctx, struct xe_scratch *s)
{
	struct xe_packet *p = &s->packet;
	struct xe_endpoint *source;

	if (xe_parse(ctx, 1, p) != XE_KIND_IP)
		return XE_NOT_LOCAL;
	source = xe_local_endpoint(&p->source);
	return source ? xe_receive_forged(p, source) : XE_NOT_LOCAL;
}

#endif /* XE_LOCAL_BPF_H */
