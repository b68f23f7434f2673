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

/*
 * A loop that the verifier walks once: while `at` < `end`, in steps of `step`. `zero` is a __u32 in a map value that is always 0.
 * The verifier does not know that, so to it the first `at` is any number, and each later turn is a case of the one it has walked.
 * The may_goto instruction (since 6.9) tells it that the loop ends; unlike bpf_for it costs no call, and a call costs as much as
 * GHASH of half a block.
 */
#define xe_loop(at, zero, start, end, step)                                                                            \
	for ((at) = (start) + *(volatile __u32 *)&(zero); xe_may_go_on() && ({                                         \
		     xe_opaque(at);                                                                                     \
		     (at) < (end);                                                                                      \
	     });                                                                                                        \
	     (at) += (step))

#define xe_may_go_on()                                                                                                 \
	({                                                                                                             \
		__label__ xe_stop, xe_go;                                                                              \
		int xe_on = 1;                                                                                         \
		asm volatile goto("may_goto %l[xe_stop]" : : : : xe_stop);                                             \
		goto xe_go;                                                                                            \
	xe_stop:                                                                                                       \
		xe_on = 0;                                                                                             \
	xe_go:;                                                                                                        \
		xe_on;                                                                                                 \
	})

/* Hides a value from the optimizer, so that it does not move an index past the check that bounds it. */
#define xe_opaque(value) asm volatile("" : "+r"(value))
/*
 * Whether `value`, an unsigned variable, lies in [low, high], told so that the verifier knows it afterwards: it is compared after
 * `low` has been subtracted, and made again from what was compared. Two comparisons would not do: clang makes one of them, on a
 * copy (6.12 does not follow it), and "not zero" is no lower bound to 7.3.
 */
#define xe_is_between(value, low, high)                                                                                \
	({                                                                                                             \
		__u32 xe_above = (value) - (low);                                                                      \
		int xe_inside = 0;                                                                                     \
		xe_opaque(xe_above);                                                                                   \
		if (xe_above <= (high) - (low)) {                                                                      \
			xe_opaque(xe_above);                                                                           \
			(value) = xe_above + (low);                                                                    \
			xe_inside = 1;                                                                                 \
		}                                                                                                      \
		xe_inside;                                                                                             \
	})

/* What the fast path does not do: its code goes behind. */
#define xe_unlikely(condition) __builtin_expect(!!(condition), 0)

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
