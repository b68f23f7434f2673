/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Replay windows: one for each association and lane. Looked up before the tag is verified, marked after, so that only authentic
 * packets move them.
 *
 * No lock: a counter belongs to one group of 32, and a group is one word, in which the group's *lap* stands beside the bits. The
 * ring has one group more than the window is long, so what is inside of the window always finds its own group in its place,
 * or an older one that may be forgotten. Accepting is one compare-and-swap of that word: of two equal packets on two CPUs one
 * wins, and the other then sees its bit.
 */
#ifndef XE_REPLAY_BPF_H
#define XE_REPLAY_BPF_H

#include "maps.bpf.h"

#define XE_REPLAY_TRIES 16 /* against other CPUs that mark counters of the same group at the same time */

/* What a new window is made from. */
static const __u64 xe_window_new[XE_WINDOW_BYTES(XE_WINDOW_MAX) / 8];

/* Where a counter has its bit. */
struct xe_replay_place {
	__u32 index; /* of the group in the ring */
	__u32 lap; /* how often the ring had gone round before */
	__u32 bit;
};

XE_INLINE struct xe_replay_place xe_replay_place(__u64 counter)
{
	__u64 number = counter / XE_WINDOW_GROUP, groups = xe_window_groups;

	return (struct xe_replay_place){
		.index = number % groups,
		.lap = number / groups,
		.bit = 1U << (counter % XE_WINDOW_GROUP),
	};
}

/*
 * What a group says of a place: 0 (not seen), or the verdict that refuses it. Laps are cut to 32 bits, so one that is 2^31 behind
 * looks like a newer one; for the highest counter of all (`is_top`) no group can be newer.
 */
XE_INLINE __u32 xe_replay_look(__u64 group, const struct xe_replay_place *place, int is_top)
{
	__s32 newer = (__u32)(group >> 32) - place->lap;

	if (newer == 0)
		return (__u32)group & place->bit ? XE_DROP_REPLAY : 0;
	return newer > 0 && !is_top ? XE_DROP_STALE : 0;
}

/* Whether a window refuses a counter, before anything is known of the packet. Returns 0 or the verdict. */
XE_INLINE __u32 xe_replay_check(struct xe_window *w, __u64 counter, __u32 size)
{
	struct xe_replay_place place = xe_replay_place(counter);
	__u64 top = *(volatile __u64 *)&w->top;

	if (counter > top)
		return 0;
	if (top - counter >= size)
		return XE_DROP_STALE;
	xe_opaque(place.index);
	if (place.index >= xe_window_groups)
		return XE_FAULT_MAP;
	return xe_replay_look(*(volatile __u64 *)&w->group[place.index], &place, counter == top);
}

/*
 * Marks an authentic packet's counter as seen in window `w`, which is made first if there is none. Returns 0, or the verdict that
 * refuses it after all.
 */
XE_INLINE __u32 xe_replay_mark(const struct xe_window_key *key, struct xe_window *w, __u64 counter, __u32 size)
{
	struct xe_replay_place place = xe_replay_place(counter);
	__u64 top, before, after;
	__u32 verdict;

	if (!w) {
		bpf_map_update_elem(&windows, key, xe_window_new, BPF_NOEXIST);
		w = bpf_map_lookup_elem(&windows, key);
		if (!w)
			return XE_DROP_NO_WINDOW;
	}
	xe_opaque(place.index);
	if (place.index >= xe_window_groups)
		return XE_FAULT_MAP;
	/* The top first, and only ever upwards: so no group is of a later lap than the top's. */
	for (int tries = 0; tries < XE_REPLAY_TRIES; tries++) {
		top = *(volatile __u64 *)&w->top;
		if (counter <= top || __sync_val_compare_and_swap(&w->top, top, counter) == top)
			break;
	}
	for (int tries = 0; tries < XE_REPLAY_TRIES; tries++) {
		top = *(volatile __u64 *)&w->top;
		if (top > counter && top - counter >= size)
			return XE_DROP_STALE;
		before = *(volatile __u64 *)&w->group[place.index];
		verdict = xe_replay_look(before, &place, counter == top);
		if (verdict)
			return verdict;
		after = (__u64)place.lap << 32 | place.bit;
		if ((__u32)(before >> 32) == place.lap)
			after |= before;
		if (__sync_val_compare_and_swap(&w->group[place.index], before, after) == before)
			return 0;
	}
	return XE_DROP_REPLAY;
}

#endif /* XE_REPLAY_BPF_H */
