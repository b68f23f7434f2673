/* SPDX-License-Identifier: GPL-2.0-only */
/* How keys come into the kernel and leave it: the bodies of the two syscall programs. */
#ifndef XE_INSTALL_BPF_H
#define XE_INSTALL_BPF_H

#include "ghash.bpf.h"

/* A context for ecb(aes), the one block cipher that stock kernels' bpf_crypto offers. A subprogram for its stack. */
XE_SUBPROGRAM struct bpf_crypto_ctx *xe_cipher_new(struct xe_install *request)
{
	struct bpf_crypto_params params = {.type = "skcipher", .algo = "ecb(aes)"};
	struct bpf_crypto_ctx *cipher;
	int error = 0;

	params.key_len = request->key_len;
	__builtin_memcpy(params.key, request->key, XE_KEY_LEN);
	cipher = bpf_crypto_ctx_create(&params, sizeof(params), &error);
	__builtin_memset(params.key, 0, XE_KEY_LEN);
	xe_barrier();
	request->error = cipher ? 0 : error ? error : -XE_ENOMEM;
	return cipher;
}

/* Everything but wiping the request. Returns 0 or a negative errno. */
XE_INLINE int xe_install_key(struct xe_install *request)
{
	struct xe_config *settings = xe_only(config);
	__u32 index = request->index, epoch = request->epoch, spi = request->spi;
	__u8 key_id[XE_KEY_ID_LEN], h[XE_BLOCK];
	struct xe_association *association;
	struct bpf_crypto_ctx *cipher;
	struct xe_hash_key *hash_key;

	__builtin_memcpy(key_id, request->key_id, sizeof(key_id));
	association = bpf_map_lookup_elem(&associations, &index);
	if (!settings || !association || epoch == 0)
		return -XE_EINVAL;
	if (request->key_len != 16 && request->key_len != 32)
		return -XE_EINVAL;
	if (epoch < settings->epoch_floor)
		return -XE_ESTALE;
	/* Replacing a key under the eyes of running programs could mix old and new: it must have been removed before. */
	if (association->epoch != 0)
		return -XE_EBUSY;
	/* The rule "no nonce twice": counters and windows of a key start afresh, so no key comes twice. */
	if (bpf_map_update_elem(&key_uses, key_id, &epoch, BPF_NOEXIST))
		return bpf_map_lookup_elem(&key_uses, key_id) ? -XE_EEXIST : -XE_ENOMEM;

	cipher = xe_cipher_new(request);
	if (!cipher)
		return request->error;
	hash_key = xe_new(struct xe_hash_key);
	if (!hash_key) {
		bpf_crypto_ctx_release(cipher);
		return -XE_ENOMEM;
	}
	__builtin_memcpy(h, request->hash_key, sizeof(h));
	xe_ghash_expand(hash_key, h);
	__builtin_memset(h, 0, sizeof(h));
	xe_barrier();

	cipher = bpf_kptr_xchg(&association->cipher, cipher);
	if (cipher)
		bpf_crypto_ctx_release(cipher);
	hash_key = bpf_kptr_xchg(&association->hash_key, hash_key);
	if (hash_key)
		xe_drop(hash_key);
	association->spi = spi;
	association->peer_node = request->peer_node;
	association->engine = XE_ENGINE_ECB;
	__builtin_memcpy(association->key_id, key_id, sizeof(key_id));
	if ((index >> 1 & 1) == XE_RECEIVE && bpf_map_update_elem(&spis, &spi, &index, BPF_ANY))
		return -XE_ENOMEM;
	__sync_lock_test_and_set(&association->id, __sync_fetch_and_add(&settings->last_association, 1) + 1);
	/* From here on packets use it. */
	__sync_lock_test_and_set(&association->epoch, epoch);
	return 0;
}

XE_INLINE int xe_remove_key(__u32 index)
{
	struct xe_association *association = bpf_map_lookup_elem(&associations, &index);
	struct bpf_crypto_ctx *cipher;
	struct xe_hash_key *hash_key;
	__u32 spi, *owner;

	if (!association)
		return -XE_EINVAL;
	__sync_lock_test_and_set(&association->epoch, 0);
	__sync_lock_test_and_set(&association->id, 0);
	spi = association->spi;
	owner = bpf_map_lookup_elem(&spis, &spi);
	if (owner && *owner == index)
		bpf_map_delete_elem(&spis, &spi);
	cipher = bpf_kptr_xchg(&association->cipher, NULL);
	if (cipher)
		bpf_crypto_ctx_release(cipher);
	hash_key = bpf_kptr_xchg(&association->hash_key, NULL);
	if (hash_key)
		xe_drop(hash_key);
	association->spi = 0;
	association->engine = XE_ENGINE_NONE;
	association->peer_node = 0;
	__builtin_memset(association->key_id, 0, sizeof(association->key_id));
	return 0;
}

#endif /* XE_INSTALL_BPF_H */
