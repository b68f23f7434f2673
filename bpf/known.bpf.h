/* SPDX-License-Identifier: GPL-2.0-only */
/* Known answers: the cipher that packets use, run on texts that people bring (xdp-encryptor gcm). */
#ifndef XE_KNOWN_BPF_H
#define XE_KNOWN_BPF_H

#include "gcm.bpf.h"

/* Reads AAD and text behind the request into the scratch. Returns 0, or -1 when the packet is too short. */
XE_INLINE int xe_known_load(struct xdp_md *ctx, struct xe_scratch *s)
{
	__u32 aad_len = s->aad_len, text_len = s->text_len, start;

	start = (XE_TEXT_OFFSET - aad_len) & ~(XE_BLOCK - 1);
	if (aad_len > 0) {
		*(__u64 *)(s->input + XE_TEXT_OFFSET - 16) = 0;
		*(__u64 *)(s->input + XE_TEXT_OFFSET - 8) = 0;
		xe_opaque(start);
		if (!xe_is_between(aad_len, 1, XE_AAD_MAX) || start > XE_TEXT_OFFSET)
			return -1;
		if (bpf_xdp_load_bytes(ctx, sizeof(struct xe_gcm_request), s->input + start, aad_len))
			return -1;
	}
	xe_gcm_pad(s, text_len);
	if (text_len > 0) {
		if (!xe_is_between(text_len, 1, XE_GCM_TEXT_MAX))
			return -1;
		if (bpf_xdp_load_bytes(ctx, sizeof(struct xe_gcm_request) + aad_len, s->input + XE_TEXT_OFFSET,
				       text_len))
			return -1;
	}
	return 0;
}

XE_INLINE int xe_known_answer(struct xdp_md *ctx, struct xe_scratch *s)
{
	struct xe_association *association;
	struct xe_gcm_request request;
	struct bpf_crypto_ctx *cipher;
	struct xe_hash_key *hash_key;
	__u32 index, text_len;
	int action = XDP_PASS;

	if (bpf_xdp_load_bytes(ctx, 0, &request, sizeof(request)))
		return XDP_ABORTED;
	if (request.aad_len > XE_AAD_MAX || request.text_len > XE_GCM_TEXT_MAX)
		return XDP_ABORTED;
	index = request.index;
	association = bpf_map_lookup_elem(&associations, &index);
	if (!association)
		return XDP_ABORTED;
	cipher = association->cipher;
	hash_key = association->hash_key;
	if (!cipher || !hash_key)
		return XDP_ABORTED;

	s->aad_len = request.aad_len;
	s->text_len = request.text_len;
	__builtin_memcpy(s->nonce, request.nonce, sizeof(request.nonce));
	__builtin_memcpy(s->tag, request.tag, sizeof(request.tag));
	if (xe_known_load(ctx, s))
		return XDP_ABORTED;
	if (request.operation == XE_GCM_SEAL) {
		if (xe_gcm_seal(s, cipher, hash_key, NULL, NULL))
			return XDP_ABORTED;
		__builtin_memcpy(request.tag, s->tag, sizeof(request.tag));
		if (bpf_xdp_store_bytes(ctx, 0, &request, sizeof(request)))
			return XDP_ABORTED;
	} else {
		int result = xe_gcm_verify(s, cipher, hash_key);

		if (result)
			return result == 1 ? XDP_DROP : XDP_ABORTED;
		if (xe_gcm_decrypt(s, cipher, NULL, NULL))
			return XDP_ABORTED;
	}
	text_len = s->text_len;
	if (xe_is_between(text_len, 1, XE_GCM_TEXT_MAX) &&
	    bpf_xdp_store_bytes(ctx, sizeof(request) + s->aad_len, s->input + XE_TEXT_OFFSET, text_len))
		action = XDP_ABORTED;
	xe_gcm_wipe_text(s);
	return action;
}

#endif /* XE_KNOWN_BPF_H */
