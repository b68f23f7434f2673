/* SPDX-License-Identifier: GPL-2.0-only */
/* How a packet ends: counted under its verdict, and, when dropped, told to who listens. */
#ifndef XE_VERDICT_BPF_H
#define XE_VERDICT_BPF_H

#include "maps.bpf.h"

#define XE_EVENTS_PER_SECOND 100 /* and CPU */

XE_INLINE int xe_is_pass(__u32 verdict)
{
	return verdict < XE_DROP_CLEARTEXT;
}

XE_INLINE int xe_is_fault(__u32 verdict)
{
	return verdict >= XE_FAULT_SCRATCH;
}

XE_INLINE void xe_count_verdict(__u32 verdict, __u32 bytes)
{
	struct xe_count *count = bpf_map_lookup_elem(&verdicts, &verdict);

	if (count) {
		count->packets += 1;
		count->bytes += bytes;
	}
}

/* Puts a dropped packet into the ring buffer, as long as this second's budget lasts. Returns 0. */
XE_SUBPROGRAM int xe_tell(const struct xe_scratch *s, __u32 verdict, __u32 hook)
{
	struct xe_event_budget *budget = xe_only(event_budget);
	const struct xe_packet *p = &s->packet;
	__u64 now = bpf_ktime_get_ns(), second = now / 1000000000;
	struct xe_event *event;

	if (!budget)
		return 0;
	if (budget->second != second) {
		budget->second = second;
		budget->left = XE_EVENTS_PER_SECOND;
	}
	if (budget->left == 0) {
		budget->missed += 1;
		return 0;
	}
	budget->left -= 1;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		budget->missed += 1;
		return 0;
	}
	event->time = now;
	event->source = p->source;
	event->destination = p->destination;
	event->verdict = verdict;
	event->spi = p->spi;
	event->missed = budget->missed;
	event->length = p->frame_len;
	event->source_port = p->source_port;
	event->destination_port = p->destination_port;
	event->protocol = p->protocol;
	event->hook = hook;
	event->reserved = 0;
	bpf_ringbuf_submit(event, 0);
	budget->missed = 0;
	return 0;
}

#endif /* XE_VERDICT_BPF_H */
