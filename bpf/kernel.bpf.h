/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What we use of the kernel beyond the UAPI headers: kfuncs, declared by hand so that no vmlinux.h is needed. The oldest
 * kernel with all of it is 6.12.
 */
#ifndef XE_KERNEL_BPF_H
#define XE_KERNEL_BPF_H

#include <linux/bpf.h>
#include <linux/types.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "Words are read from memory as little-endian numbers throughout: x86-64 and arm64 only."
#endif

/* bpf_crypto (kernel/bpf/crypto.c, since 6.10). The context must be defined, not just declared, to be a kptr. */
struct bpf_crypto_ctx {
} __attribute__((preserve_access_index));

struct bpf_crypto_params {
	char type[14];
	__u8 reserved[2];
	char algo[128];
	__u8 key[256];
	__u32 key_len;
	__u32 authsize;
};

struct bpf_crypto_ctx *bpf_crypto_ctx_create(const struct bpf_crypto_params *params, __u32 params__sz, int *err) __ksym;
void bpf_crypto_ctx_release(struct bpf_crypto_ctx *ctx) __ksym;
int bpf_crypto_encrypt(struct bpf_crypto_ctx *ctx, const struct bpf_dynptr *src, const struct bpf_dynptr *dst,
		       const struct bpf_dynptr *siv__nullable) __ksym;

/* Objects of our own types, to be kept as kptrs (since 6.2). */
void *bpf_obj_new_impl(__u64 local_type_id, void *meta) __ksym;
void bpf_obj_drop_impl(void *kptr, void *meta) __ksym;

#define xe_new(type) ((type *)bpf_obj_new_impl(__builtin_btf_type_id(*(type *)0, 0), 0))
#define xe_drop(object) bpf_obj_drop_impl(object, 0)

/* Counted loops that the verifier walks once (since 6.4). */
struct bpf_iter_num {
	__u64 opaque[1];
} __attribute__((aligned(8)));

int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __ksym;
int *bpf_iter_num_next(struct bpf_iter_num *it) __ksym;
void bpf_iter_num_destroy(struct bpf_iter_num *it) __ksym;

/* Runs the statement below it for i = 0 to count - 1. */
#define xe_for(i, count)                                                                                               \
	for (struct bpf_iter_num xe_it __attribute__((cleanup(bpf_iter_num_destroy))),                                 \
	     *xe_once = (bpf_iter_num_new(&xe_it, 0, (count)), (void)bpf_iter_num_destroy, (void *)1);                 \
	     xe_once && ({                                                                                              \
		     int *xe_next = bpf_iter_num_next(&xe_it);                                                         \
		     xe_next ? (i = *xe_next, 1) : 0;                                                                  \
	     });)

/* Hides a value from the optimizer, so that it does not move an index past the check that bounds it. */
#define xe_opaque(value) asm volatile("" : "+r"(value))
/* Keeps the compiler from moving memory accesses across. */
#define xe_barrier() asm volatile("" ::: "memory")

#define XE_INLINE static __always_inline
#define XE_SUBPROGRAM static __noinline

/* errno values (UAPI asm-generic/errno-base.h) */
#define XE_ENOENT 2
#define XE_E2BIG 7
#define XE_ENOMEM 12
#define XE_EBUSY 16
#define XE_EEXIST 17
#define XE_EINVAL 22
#define XE_ESTALE 116

#endif /* XE_KERNEL_BPF_H */
