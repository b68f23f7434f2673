/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Replay windows: one for each association and lane, a ring of bits over the last `config.window` counters. Looked up before
 * the tag is verified, marked after, so that only authentic packets move them.
 */
#ifndef XE_REPLAY_BPF_H
#define XE_REPLAY_BPF_H

#include "maps.bpf.h"

#define XE_WINDOW_WORDS (XE_WINDOW_MAX / 64)

/* What a new window is made from. Plain words, as no lock may stand in read-only data. */
static const __u64 xe_window_new[sizeof(struct xe_window) / 8];

/* Where a counter stands to a window whose values were read without the lock: good enough to drop, not to accept. */
XE_INLINE __u32 xe_replay_check(const struct xe_window *w, __u64 counter, __u32 size)
{
	__u64 top = *(volatile const __u64 *)&w->top;
	__u32 word = (counter & (size - 1)) / 64;

	if (counter > top)
		return 0;
	if (top - counter >= size)
		return XE_DROP_STALE;
	xe_opaque(word);
	if (word >= XE_WINDOW_WORDS)
		return XE_FAULT_MAP;
	return *(volatile const __u64 *)&w->seen[word] >> (counter & 63) & 1 ? XE_DROP_REPLAY : 0;
}

/*
 * Forgets the ring's bits of the counters in (top, counter), which the window takes in unseen. Runs under the lock, where
 * no call is allowed: a plain loop over whole words, with the first and last masked.
 */
XE_INLINE void xe_replay_advance(struct xe_window *w, __u64 top, __u64 counter, __u32 size)
{
	__u64 from = top + 1;
	__u32 words, word, first, last;

	if (counter - top >= size)
		from = counter - size + 1;
	/* Bits from .. counter, at most `size` of them. The bit of `counter` itself is set by the caller. */
	first = (from & (size - 1)) / 64;
	last = (counter & (size - 1)) / 64;
	words = (__u32)((counter >> 6) - (from >> 6));
	if (words == 0) {
		__u64 mask = ~0ULL << (from & 63) & ~0ULL >> (63 - (counter & 63));

		xe_opaque(first);
		if (first < XE_WINDOW_WORDS)
			w->seen[first] &= ~mask;
		return;
	}
	word = first;
	xe_opaque(word);
	if (word < XE_WINDOW_WORDS)
		w->seen[word] &= ~(~0ULL << (from & 63));
	for (__u32 i = 1; i < XE_WINDOW_WORDS; i++) {
		if (i >= words)
			break;
		word = (first + i) & (size / 64 - 1);
		xe_opaque(word);
		if (word < XE_WINDOW_WORDS)
			w->seen[word] = 0;
	}
	xe_opaque(last);
	if (last < XE_WINDOW_WORDS)
		w->seen[last] &= ~(~0ULL >> (63 - (counter & 63)));
}

/*
 * Marks an authentic packet's counter as seen in window `w`, which is made first if there is none. Returns 0, or the verdict that
 * refuses it after all.
 */
XE_INLINE __u32 xe_replay_mark(const struct xe_window_key *key, struct xe_window *w, __u64 counter, __u32 size)
{
	__u32 word = (counter & (size - 1)) / 64, verdict = 0;
	__u64 bit = 1ULL << (counter & 63);

	if (!w) {
		bpf_map_update_elem(&windows, key, xe_window_new, BPF_NOEXIST);
		w = bpf_map_lookup_elem(&windows, key);
		if (!w)
			return XE_DROP_NO_WINDOW;
	}
	xe_opaque(word);
	if (word >= XE_WINDOW_WORDS)
		return XE_FAULT_MAP;
	bpf_spin_lock(&w->lock);
	if (counter > w->top) {
		xe_replay_advance(w, w->top, counter, size);
		w->top = counter;
		w->seen[word] |= bit;
	} else if (w->top - counter >= size) {
		verdict = XE_DROP_STALE;
	} else if (w->seen[word] & bit) {
		verdict = XE_DROP_REPLAY;
	} else {
		w->seen[word] |= bit;
	}
	bpf_spin_unlock(&w->lock);
	return verdict;
}

#endif /* XE_REPLAY_BPF_H */
