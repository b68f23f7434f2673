/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How the programs of a new build take over the keys of an earlier one, without user space ever seeing a key.
 *
 * Maps are shared between builds, except for `associations`: the kernel ties kptrs of our own types (struct xe_hash_key) to the
 * object that declared them, so that map is each build's own. A cipher is a kptr of the kernel's type and may be held by both; H
 * is computed again with it. Ids stay, and with them counters and windows: while links are swapped one by one, both builds
 * count on in the same places.
 *
 * Two steps, because ciphers are acquired in syscall programs only and used in packet programs only.
 */
#ifndef XE_UPGRADE_BPF_H
#define XE_UPGRADE_BPF_H

#include "gcm.bpf.h"

void bpf_rcu_read_lock(void) __ksym;
void bpf_rcu_read_unlock(void) __ksym;
struct bpf_crypto_ctx *bpf_crypto_ctx_acquire(struct bpf_crypto_ctx *ctx) __ksym;

/* struct xe_association as an earlier build made it: its hash key is of a type that is not ours. */
struct xe_earlier_association {
	struct bpf_crypto_ctx __kptr *cipher;
	__u64 hash_key;
	__u64 id;
	__u32 spi;
	__u32 epoch;
	__u32 engine;
	__u32 peer_node;
	__u8 key_id[XE_KEY_ID_LEN];
};

_Static_assert(sizeof(struct xe_earlier_association) == sizeof(struct xe_association), "one layout");

/* Stands for the earlier build's `associations`, which user space puts in its place before loading. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct xe_earlier_association);
	__uint(max_entries, 1);
} earlier SEC(".maps");

/* First step: the cipher, and everything but the hash key. The association stays unused. Returns 0 or a negative errno. */
XE_INLINE int xe_take_cipher(__u32 index)
{
	struct xe_earlier_association *from = bpf_map_lookup_elem(&earlier, &index);
	struct xe_association *to = bpf_map_lookup_elem(&associations, &index);
	struct bpf_crypto_ctx *cipher;

	if (!from || !to || from->epoch == 0)
		return -XE_EINVAL;
	if (to->epoch != 0)
		return -XE_EBUSY;
	bpf_rcu_read_lock();
	cipher = from->cipher;
	if (cipher)
		cipher = bpf_crypto_ctx_acquire(cipher);
	bpf_rcu_read_unlock();
	if (!cipher)
		return -XE_ENOENT;
	cipher = bpf_kptr_xchg(&to->cipher, cipher);
	if (cipher)
		bpf_crypto_ctx_release(cipher);
	to->spi = from->spi;
	to->engine = from->engine;
	to->peer_node = from->peer_node;
	__builtin_memcpy(to->key_id, from->key_id, sizeof(to->key_id));
	__sync_lock_test_and_set(&to->id, from->id);
	return 0;
}

/* Second step: H = AES_key(0^128), its powers, and from then on packets may use the association. Returns 0 or a negative errno. */
XE_INLINE int xe_take_hash_key(struct xe_scratch *s, __u32 index)
{
	struct xe_earlier_association *from = bpf_map_lookup_elem(&earlier, &index);
	struct xe_association *to = bpf_map_lookup_elem(&associations, &index);
	struct xe_hash_key *hash_key;
	__u64 *block = (__u64 *)s->stream;
	int error;

	if (!from || !to || from->epoch == 0 || to->epoch != 0 || to->id != from->id)
		return -XE_EINVAL;
	block[0] = 0;
	block[1] = 0;
	error = xe_gcm_aes(s, to->cipher, 0, 1);
	if (error)
		return error;
	hash_key = xe_new(struct xe_hash_key);
	if (hash_key) {
		xe_ghash_expand(hash_key, s->stream);
		hash_key = bpf_kptr_xchg(&to->hash_key, hash_key);
		if (hash_key)
			xe_drop(hash_key);
	} else {
		error = -XE_ENOMEM;
	}
	block[0] = 0;
	block[1] = 0;
	xe_barrier();
	if (!error)
		__sync_lock_test_and_set(&to->epoch, from->epoch);
	return error;
}

#endif /* XE_UPGRADE_BPF_H */
