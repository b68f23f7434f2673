// SPDX-License-Identifier: GPL-2.0-only
/*
 * Entry points of the kernel half. Start here, then:
 *
 *     encrypt.bpf.h, decrypt.bpf.h   what happens to a packet, in order
 *     tunnel.bpf.h                   packets that are encrypted as a whole
 *     local.bpf.h                    packets under the address of a pod of this node
 *     packet.bpf.h, aad.bpf.h        reading packets, resizing them, checksums
 *     gcm.bpf.h, ghash.bpf.h         the cipher
 *     iv.bpf.h, replay.bpf.h         the next IV; windows of those that have come
 *     install.bpf.h                  keys in and out
 *     upgrade.bpf.h                  keys from one build of these programs to the next
 *     verdict.bpf.h                  counters and events
 *     maps.bpf.h, wire.h             every map and its values
 */
#include "decrypt.bpf.h"
#include "encrypt.bpf.h"
#include "install.bpf.h"
#include "known.bpf.h"
#include "local.bpf.h"
#include "upgrade.bpf.h"
#include "verdict.bpf.h"

/* tcx verdicts (linux/bpf.h since 6.6) */
#define XE_TCX_NEXT -1
#define XE_TCX_DROP 2

/* Metadata that XDP puts before a frame, for the guard of the pod that it reaches. */
struct xe_marker {
	__u64 value; /* xe_marker_value: nobody but our programs knows one */
};

enum xe_mark {
	XE_MARK_NONE,
	/* xe_decrypt has judged this frame on the same interface: nothing is left to be done. */
	XE_MARK_JUDGED,
	/*
	 * It left a protected pod of this node in clear. Says where a frame comes from and nothing else: the guard asks for it only
	 * when the source is a pod of this node. It also covers what may stand there when a pod forwards a frame with its metadata:
	 * a frame that was judged at one pod must not count as judged at the next.
	 */
	XE_MARK_LEFT_POD,
};

/* Takes this CPU's scratch; NULL when somebody has it, which cannot be. */
XE_INLINE struct xe_scratch *xe_scratch_take(void)
{
	struct xe_scratch *s = xe_only(scratch);

	if (!s || s->busy)
		return NULL;
	s->busy = 1;
	xe_barrier();
	return s;
}

XE_INLINE void xe_scratch_give(struct xe_scratch *s)
{
	xe_barrier();
	s->busy = 0;
}

/* Counts a verdict, tells of a drop, and gives the scratch back. */
XE_INLINE void xe_finish(struct xe_scratch *s, __u32 verdict, const __u32 hook)
{
	xe_count_verdict(verdict, s->packet.frame_len);
	if (!xe_is_pass(verdict))
		xe_tell(s, verdict, hook);
	xe_scratch_give(s);
}

XE_INLINE int xe_xdp_action(__u32 verdict)
{
	return xe_is_pass(verdict) ? XDP_PASS : xe_is_fault(verdict) ? XDP_ABORTED : XDP_DROP;
}

XE_INLINE int xe_tcx_action(__u32 verdict)
{
	return xe_is_pass(verdict) ? XE_TCX_NEXT : XE_TCX_DROP;
}

/* Two values of one secret that are never equal. */
XE_INLINE __u64 xe_marker_value(const struct xe_config *settings, const enum xe_mark mark)
{
	return mark == XE_MARK_JUDGED ? settings->marker : ~settings->marker;
}

/* Marks a frame. Returns 0, or a verdict. */
XE_INLINE __u32 xe_set_mark(struct xdp_md *ctx, const enum xe_mark mark)
{
	struct xe_config *settings = xe_only(config);
	struct xe_marker *marker;

	if (!settings)
		return XE_FAULT_MAP;
	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*marker)))
		return XE_FAULT_PACKET;
	marker = (void *)(long)ctx->data_meta;
	if ((void *)(marker + 1) > (void *)(long)ctx->data)
		return XE_FAULT_PACKET;
	marker->value = xe_marker_value(settings, mark);
	return 0;
}

XE_INLINE enum xe_mark xe_mark_of(struct __sk_buff *ctx)
{
	struct xe_config *settings = xe_only(config);
	struct xe_marker *marker = (void *)(long)ctx->data_meta;

	if (!settings || settings->marker == 0 || (void *)(marker + 1) > (void *)(long)ctx->data)
		return XE_MARK_NONE;
	if (marker->value == xe_marker_value(settings, XE_MARK_JUDGED))
		return XE_MARK_JUDGED;
	return marker->value == xe_marker_value(settings, XE_MARK_LEFT_POD) ? XE_MARK_LEFT_POD : XE_MARK_NONE;
}

XE_INLINE int xe_encrypt_xdp(struct xdp_md *ctx)
{
	struct xe_scratch *s = xe_scratch_take();
	__u32 verdict, fault;

	if (!s) {
		xe_count_verdict(XE_FAULT_SCRATCH, 0);
		return XDP_ABORTED;
	}
	verdict = xe_send(ctx, 0, s);
	if (xe_is_pass(verdict) && verdict != XE_ENCRYPTED) {
		fault = xe_set_mark(ctx, XE_MARK_LEFT_POD);
		if (fault)
			verdict = fault;
	}
	xe_finish(s, verdict, XE_HOOK_ENCRYPT);
	return xe_xdp_action(verdict);
}

XE_INLINE int xe_decrypt_xdp(struct xdp_md *ctx)
{
	struct xe_scratch *s = xe_scratch_take();
	__u32 verdict, fault;

	if (!s) {
		xe_count_verdict(XE_FAULT_SCRATCH, 0);
		return XDP_ABORTED;
	}
	/* What came through the host's end of the veth has been looked at there. */
	verdict = xe_receive(ctx, 0, s, 1);
	if (xe_is_pass(verdict)) {
		fault = xe_set_mark(ctx, XE_MARK_JUDGED);
		if (fault)
			verdict = fault;
	}
	xe_finish(s, verdict, XE_HOOK_DECRYPT);
	return xe_xdp_action(verdict);
}

/* XDP on the host's end of a pod's veth: what arrives there leaves the pod. */
SEC("xdp.frags")
int xe_encrypt(struct xdp_md *ctx)
{
	return xe_encrypt_xdp(ctx);
}

/* XDP on the pod's interface: what arrives there enters the pod. */
SEC("xdp.frags")
int xe_decrypt(struct xdp_md *ctx)
{
	return xe_decrypt_xdp(ctx);
}

/*
 * tcx ingress on the pod's interface, behind xe_decrypt. Frames that were redirected past XDP (bpf_redirect_peer, as Cilium's
 * host routing does) are judged here; marked ones were.
 */
SEC("tc")
int xe_guard(struct __sk_buff *ctx)
{
	enum xe_mark mark = xe_mark_of(ctx);
	struct xe_scratch *s;
	__u32 verdict;

	if (mark == XE_MARK_JUDGED)
		return XE_TCX_NEXT;
	s = xe_scratch_take();
	if (!s) {
		xe_count_verdict(XE_FAULT_SCRATCH, 0);
		return XE_TCX_DROP;
	}
	verdict = xe_receive(ctx, 1, s, mark == XE_MARK_LEFT_POD);
	xe_finish(s, verdict, XE_HOOK_DECRYPT);
	return xe_tcx_action(verdict);
}

/*
 * tcx egress on the host's end of a pod's veth: what goes into the pod, on its way to xe_decrypt. Refuses what goes under the address
 * of a pod of this node and has not come out of one.
 */
SEC("tc")
int xe_local(struct __sk_buff *ctx)
{
	struct xe_scratch *s;
	__u32 verdict;

	if (xe_is_from_pod(ctx) || xe_is_foreign(ctx))
		return XE_TCX_NEXT;
	s = xe_scratch_take();
	if (!s) {
		xe_count_verdict(XE_FAULT_SCRATCH, 0);
		return XE_TCX_DROP;
	}
	verdict = xe_receive_from_outside(ctx, s);
	if (verdict == XE_NOT_LOCAL) {
		xe_scratch_give(s);
		return XE_TCX_NEXT;
	}
	xe_finish(s, verdict, XE_HOOK_DECRYPT);
	return xe_tcx_action(verdict);
}

/* tcx, for devices that take no XDP: what leaves a pod. */
SEC("tc")
int xe_encrypt_tc(struct __sk_buff *ctx)
{
	struct xe_scratch *s = xe_scratch_take();
	__u32 verdict;

	if (!s) {
		xe_count_verdict(XE_FAULT_SCRATCH, 0);
		return XE_TCX_DROP;
	}
	verdict = xe_send(ctx, 1, s);
	xe_finish(s, verdict, XE_HOOK_ENCRYPT);
	return xe_tcx_action(verdict);
}

/* Puts a key into the kernel. Always returns 0: see `error` in the context. */
SEC("syscall")
int xe_install(struct xe_install *request)
{
	request->error = xe_install_key(request);
	__builtin_memset(request->key, 0, sizeof(request->key));
	__builtin_memset(request->hash_key, 0, sizeof(request->hash_key));
	return 0;
}

/* Takes a key out of the kernel. Always returns 0: see `error` in the context. */
SEC("syscall")
int xe_remove(struct xe_remove *request)
{
	request->error = xe_remove_key(request->index);
	return 0;
}

/* Upgrade, first step. Always returns 0: see `error` in the context. */
SEC("syscall")
int xe_upgrade_cipher(struct xe_upgrade *request)
{
	request->error = xe_take_cipher(request->index);
	return 0;
}

/* Upgrade, second step. The packet is a struct xe_upgrade. */
SEC("xdp")
int xe_upgrade_hash_key(struct xdp_md *ctx)
{
	struct xe_upgrade *request = (void *)(long)ctx->data;
	struct xe_scratch *s;
	int error;

	if ((void *)(request + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	s = xe_scratch_take();
	if (!s)
		return XDP_ABORTED;
	error = xe_take_hash_key(s, request->index);
	xe_scratch_give(s);
	request->error = error;
	return error ? XDP_DROP : XDP_PASS;
}

/* Seals or opens one text: `struct xe_gcm_request`. */
SEC("xdp")
int xe_gcm(struct xdp_md *ctx)
{
	struct xe_scratch *s = xe_scratch_take();
	int action;

	if (!s)
		return XDP_ABORTED;
	action = xe_known_answer(ctx, s);
	xe_scratch_give(s);
	return action;
}

/* The floor that benchmarks measure against: the AES of `text_len` bytes and the tag, and nothing else. */
SEC("xdp")
int xe_floor(struct xdp_md *ctx)
{
	struct xe_gcm_request *request = (void *)(long)ctx->data;
	struct xe_association *association;
	struct bpf_crypto_ctx *cipher;
	struct xe_scratch *s;
	__u32 index;
	int error;

	if ((void *)(request + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	index = request->index;
	association = bpf_map_lookup_elem(&associations, &index);
	if (!association)
		return XDP_ABORTED;
	cipher = association->cipher;
	s = xe_scratch_take();
	if (!s)
		return XDP_ABORTED;
	error = xe_gcm_aes(s, cipher, 0, 1 + (request->text_len + XE_BLOCK - 1) / XE_BLOCK);
	xe_scratch_give(s);
	return error ? XDP_ABORTED : XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
