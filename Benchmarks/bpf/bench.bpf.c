// SPDX-License-Identifier: GPL-2.0-only
/*
 * What `make bench-packet` and `make bench-scale` run by BPF_PROG_TEST_RUN, many times a call: the product's own programs, each
 * followed by undoing the resizing and putting a packet there again. Both are measured alone, too, and subtracted.
 */
#include "../../bpf/encryptor.bpf.c"

#define BENCH_FRAME_MAX 2048

/* A frame that a run starts from, and the lane whose window is to be reset after it. */
struct bench_frame {
	__u32 len; /* bytes; the same for all frames of a call */
	__u32 group; /* of its counter, in the window */
	struct xe_window_key window;
	__u8 bytes[BENCH_FRAME_MAX];
};

/* Which frame is in the packet, and of how many the next one is drawn. */
struct bench_state {
	__u32 current;
	__u32 count;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct bench_frame);
	__uint(max_entries, 1);
} bench_frames SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct bench_state);
	__uint(max_entries, 1);
} bench_states SEC(".maps");

/* Forgets that the frame's IV was seen, and stores the next frame. Returns 0, or -1. */
XE_INLINE int bench_restore_frame(struct xdp_md *ctx, const int reset_window)
{
	struct bench_state *state = xe_only(bench_states);
	struct bench_frame *frame;
	__u32 index, len;

	if (!state)
		return -1;
	index = state->current;
	frame = bpf_map_lookup_elem(&bench_frames, &index);
	if (!frame)
		return -1;
	/* Before the next frame is drawn: its window is to be as cold as it would be. */
	if (reset_window) {
		struct xe_window_key key = frame->window;
		struct xe_window *window = bpf_map_lookup_elem(&windows, &key);

		if (window) {
			__u32 group = frame->group;

			window->top = 0;
			xe_opaque(group);
			if (group < XE_WINDOW_GROUPS(XE_WINDOW_DEFAULT))
				window->group[group] = 0;
		}
	}
	if (state->count > 1) {
		index = bpf_get_prandom_u32() % state->count;
		state->current = index;
		frame = bpf_map_lookup_elem(&bench_frames, &index);
		if (!frame)
			return -1;
	}
	len = frame->len;
	xe_opaque(len);
	if (len == 0 || len > BENCH_FRAME_MAX)
		return -1;
	return bpf_xdp_store_bytes(ctx, 0, frame->bytes, len) ? -1 : 0;
}

/* The encrypt program; then a plain packet again. */
SEC("xdp.frags")
int bench_encrypt(struct xdp_md *ctx)
{
	int action = xe_encrypt_xdp(ctx);

	if (action != XDP_PASS || bpf_xdp_adjust_head(ctx, XE_SHIM_LEN) || bench_restore_frame(ctx, 0))
		return XDP_ABORTED;
	return XDP_PASS;
}

/* The decrypt program; then a wire packet again. */
SEC("xdp.frags")
int bench_decrypt(struct xdp_md *ctx)
{
	int action = xe_decrypt_xdp(ctx);

	if (action != XDP_PASS || bpf_xdp_adjust_meta(ctx, sizeof(struct xe_marker)) ||
	    bpf_xdp_adjust_head(ctx, -XE_SHIM_LEN) || bench_restore_frame(ctx, 1))
		return XDP_ABORTED;
	return XDP_PASS;
}

/* What is subtracted from bench_encrypt. */
SEC("xdp.frags")
int bench_restore_plain(struct xdp_md *ctx)
{
	return bench_restore_frame(ctx, 0) ? XDP_ABORTED : XDP_PASS;
}

/* What is subtracted from bench_decrypt of one frame. Of many, the window's reset would cost more here than there. */
SEC("xdp.frags")
int bench_restore_wire(struct xdp_md *ctx)
{
	return bench_restore_frame(ctx, 1) ? XDP_ABORTED : XDP_PASS;
}

/* bench_restore_plain, and twice the calls by which bench_encrypt undoes the resizing. */
SEC("xdp.frags")
int bench_undo_encrypt(struct xdp_md *ctx)
{
	if (bpf_xdp_adjust_head(ctx, -XE_SHIM_LEN) || bpf_xdp_adjust_head(ctx, XE_SHIM_LEN))
		return XDP_ABORTED;
	return bench_restore_frame(ctx, 0) ? XDP_ABORTED : XDP_PASS;
}

/* bench_restore_plain, and twice the calls by which bench_decrypt undoes mark and resizing. */
SEC("xdp.frags")
int bench_undo_decrypt(struct xdp_md *ctx)
{
	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(struct xe_marker)) ||
	    bpf_xdp_adjust_meta(ctx, sizeof(struct xe_marker)) || bpf_xdp_adjust_head(ctx, -XE_SHIM_LEN) ||
	    bpf_xdp_adjust_head(ctx, XE_SHIM_LEN))
		return XDP_ABORTED;
	return bench_restore_frame(ctx, 0) ? XDP_ABORTED : XDP_PASS;
}
