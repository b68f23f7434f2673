// SPDX-License-Identifier: GPL-2.0-only
/* Entry points. */
#include "install.bpf.h"
#include "known.bpf.h"

SEC("syscall")
int xe_install(struct xe_install *request)
{
	request->error = xe_install_key(request);
	__builtin_memset(request->key, 0, sizeof(request->key));
	__builtin_memset(request->hash_key, 0, sizeof(request->hash_key));
	return 0;
}

SEC("syscall")
int xe_remove(struct xe_remove *request)
{
	request->error = xe_remove_key(request->index);
	return 0;
}

SEC("xdp")
int xe_gcm(struct xdp_md *ctx)
{
	struct xe_scratch *s = xe_only(scratch);
	int action;

	if (!s || s->busy)
		return XDP_ABORTED;
	s->busy = 1;
	xe_barrier();
	action = xe_known_answer(ctx, s);
	xe_barrier();
	s->busy = 0;
	return action;
}

char LICENSE[] SEC("license") = "GPL";
