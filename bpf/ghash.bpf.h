/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * GHASH (NIST SP 800-38D, section 6.4) in constant time, without a carry-less multiply instruction.
 *
 * Integer multiplication with holes: split each operand into four by bit position modulo 4, so that three zero bits stand
 * between any two bits of a part. At most 16 ones meet at any bit of a product, and the carries of such a sum stay in the holes
 * but for the top bit, whose carry leaves the word. So masking a product's own class of bits gives the low half of the
 * polynomial product. Its high half is the low half of the product of the bit-reversed operands. (The method is Thomas
 * Pornin's, of BearSSL.)
 *
 * A 128-bit product takes three 64-bit ones (Karatsuba), each in both bit orders: six words an operand. Four blocks share one
 * reduction: Y' = (Y + X1) H^4 + X2 H^3 + X3 H^2 + X4 H. All of H is masked beforehand, at key installation.
 */
#ifndef XE_GHASH_BPF_H
#define XE_GHASH_BPF_H

#include "maps.bpf.h"

#define XE_CLASS0 0x1111111111111111ULL
#define XE_CLASS1 0x2222222222222222ULL
#define XE_CLASS2 0x4444444444444444ULL
#define XE_CLASS3 0x8888888888888888ULL

/* Reverses the bits of each byte. */
XE_INLINE __u64 xe_reverse_in_bytes(__u64 x)
{
	x = ((x & 0x5555555555555555ULL) << 1) | ((x >> 1) & 0x5555555555555555ULL);
	x = ((x & 0x3333333333333333ULL) << 2) | ((x >> 2) & 0x3333333333333333ULL);
	return ((x & 0x0f0f0f0f0f0f0f0fULL) << 4) | ((x >> 4) & 0x0f0f0f0f0f0f0f0fULL);
}

/* Reverses all 64 bits. */
XE_INLINE __u64 xe_reverse(__u64 x)
{
	return __builtin_bswap64(xe_reverse_in_bytes(x));
}

/*
 * The six words of a block given as it lies in memory: low, high and their sum, then the same with their bits reversed.
 */
XE_INLINE void xe_ghash_operand(__u64 word[6], __u64 first, __u64 second)
{
	word[0] = bpf_be64_to_cpu(second);
	word[1] = bpf_be64_to_cpu(first);
	word[2] = word[0] ^ word[1];
	word[3] = xe_reverse_in_bytes(second);
	word[4] = xe_reverse_in_bytes(first);
	word[5] = word[3] ^ word[4];
}

/*
 * One class of bits of an operand, times the four parts of word `w` of a power of H, added to four sums. Spelt out, because clang
 * would keep much of it on the stack: the loop's cost is the number of its instructions.
 */
#define XE_MULTIPLY_ADD(n_class, sum_a, sum_b, sum_c, sum_d)                                                                 \
	do {                                                                                                           \
		__u64 xe_part, xe_t;                                                                                   \
		asm volatile("%[part] = *(u64 *)(%[key] + %[mask])\n\t"                                                \
			     "%[part] &= %[x]\n\t"                                                                     \
			     "%[t] = *(u64 *)(%[key] + %[h] + 0)\n\t"                                                  \
			     "%[t] *= %[part]\n\t"                                                                     \
			     "%[a] ^= %[t]\n\t"                                                                        \
			     "%[t] = *(u64 *)(%[key] + %[h] + 8)\n\t"                                                  \
			     "%[t] *= %[part]\n\t"                                                                     \
			     "%[b] ^= %[t]\n\t"                                                                        \
			     "%[t] = *(u64 *)(%[key] + %[h] + 16)\n\t"                                                 \
			     "%[t] *= %[part]\n\t"                                                                     \
			     "%[c] ^= %[t]\n\t"                                                                        \
			     "%[t] = *(u64 *)(%[key] + %[h] + 24)\n\t"                                                 \
			     "%[t] *= %[part]\n\t"                                                                     \
			     "%[d] ^= %[t]"                                                                            \
			     : [part] "=&r"(xe_part), [t] "=&r"(xe_t), [a] "+r"(sum_a), [b] "+r"(sum_b),               \
			       [c] "+r"(sum_c), [d] "+r"(sum_d)                                                        \
			     : [x] "r"(x), [key] "r"(key), [mask] "i"(__builtin_offsetof(struct xe_hash_key, class[n_class])), \
			       [h] "i"(__builtin_offsetof(struct xe_hash_key, power[n - 1 - b][w])));                   \
	} while (0)

/* Word `w` of the sum over the group's `n` blocks of block times power of H; low 64 bits. */
XE_INLINE __u64 xe_ghash_word(const struct xe_ghash_state *s, const struct xe_hash_key *key, const int w, const int n)
{
	__u64 sum0 = 0, sum1 = 0, sum2 = 0, sum3 = 0;

#pragma unroll
	for (int b = 0; b < n; b++) {
		__u64 x = *(volatile const __u64 *)&s->operand[b][w];

		XE_MULTIPLY_ADD(0, sum0, sum1, sum2, sum3);
		XE_MULTIPLY_ADD(1, sum1, sum2, sum3, sum0);
		XE_MULTIPLY_ADD(2, sum2, sum3, sum0, sum1);
		XE_MULTIPLY_ADD(3, sum3, sum0, sum1, sum2);
	}
	return (sum0 & XE_CLASS0) | (sum1 & XE_CLASS1) | (sum2 & XE_CLASS2) | (sum3 & XE_CLASS3);
}

/*
 * Joins the six words of a product to its 255 bits and reduces them modulo x^128 + x^7 + x^2 + x + 1; the shift by one is
 * because GCM numbers bits from the left.
 */
XE_INLINE void xe_ghash_reduce(struct xe_ghash_state *s)
{
	const __u64 *p = s->product;
	__u64 middle = p[2] ^ p[0] ^ p[1];
	__u64 middle_high = xe_reverse(p[5] ^ p[3] ^ p[4]) >> 1;
	__u64 v0 = p[0];
	__u64 v1 = (xe_reverse(p[3]) >> 1) ^ middle;
	__u64 v2 = p[1] ^ middle_high;
	__u64 v3 = xe_reverse(p[4]) >> 1;

	v3 = (v3 << 1) | (v2 >> 63);
	v2 = (v2 << 1) | (v1 >> 63);
	v1 = (v1 << 1) | (v0 >> 63);
	v0 = v0 << 1;

	v2 ^= v0 ^ (v0 >> 1) ^ (v0 >> 2) ^ (v0 >> 7);
	v1 ^= (v0 << 63) ^ (v0 << 62) ^ (v0 << 57);
	v3 ^= v1 ^ (v1 >> 1) ^ (v1 >> 2) ^ (v1 >> 7);
	v2 ^= (v1 << 63) ^ (v1 << 62) ^ (v1 << 57);

	s->hash[0] = bpf_cpu_to_be64(v3);
	s->hash[1] = bpf_cpu_to_be64(v2);
}

/* hash = (hash + block[0]) H^n + block[1] H^(n-1) + ... + block[n-1] H */
XE_INLINE void xe_ghash_group(struct xe_ghash_state *s, const struct xe_hash_key *key, const __u64 *block,
			      const int n)
{
#pragma unroll
	for (int b = 0; b < n; b++) {
		__u64 first = block[2 * b], second = block[2 * b + 1];

		if (b == 0) {
			first ^= s->hash[0];
			second ^= s->hash[1];
		}
		xe_ghash_operand(s->operand[b], first, second);
	}
	xe_barrier();
#pragma unroll
	for (int w = 0; w < 6; w++) {
		s->product[w] = xe_ghash_word(s, key, w, n);
		xe_barrier();
	}
	xe_ghash_reduce(s);
}

/*
 * GHASH of `count` blocks of `input`, from block `first` (at least XE_LEAD_BLOCKS); the result is in `ghash.hash`. What else it leaves in `ghash` is wiped by
 * xe_ghash_wipe: H could be worked out from it. Returns 0.
 */
XE_SUBPROGRAM int xe_ghash(struct xe_scratch *s, const struct xe_hash_key *key, __u32 first, __u32 count)
{
	const __u32 last = sizeof(s->input) / XE_BLOCK - 4;
	__u32 odd = count & 3, end = first + count, at;
	__u64 *block;

	s->ghash.hash[0] = 0;
	s->ghash.hash[1] = 0;
	xe_opaque(first);
	if (first < XE_LEAD_BLOCKS || first > last)
		return 0;
	block = (__u64 *)(s->input + first * XE_BLOCK);
	if (odd == 1) {
		xe_ghash_group(&s->ghash, key, block, 1);
		first += 1;
	} else if (count == 3) {
		/* A packet without payload or TCP options: often enough. */
		xe_ghash_group(&s->ghash, key, block, 3);
		return 0;
	} else if (odd) {
		/* Zero blocks in front change nothing; code for groups of two and three would cost more, in the instruction cache. */
#pragma unroll
		for (int i = 1; i <= 2 * XE_LEAD_BLOCKS; i++)
			block[-i] = 0;
		first -= 4 - odd;
	}
	xe_loop(at, s->zero, first, end, 4)
	{
		if (at > last)
			break;
		xe_ghash_group(&s->ghash, key, (const __u64 *)(s->input + at * XE_BLOCK), 4);
	}
	return 0;
}

/* Forgets everything from which H could be worked out. */
XE_INLINE void xe_ghash_wipe(struct xe_ghash_state *s)
{
	__builtin_memset(s, 0, sizeof(*s));
	xe_barrier();
}

/* Writes H^(n + 1), given as the running value, into its place. */
XE_INLINE void xe_ghash_store_power(struct xe_hash_key *key, const struct xe_ghash_state *s, const int n)
{
	__u64 word[6];

	xe_ghash_operand(word, s->hash[0], s->hash[1]);
#pragma unroll
	for (int w = 0; w < 6; w++) {
		key->power[n][w][0] = word[w] & XE_CLASS0;
		key->power[n][w][1] = word[w] & XE_CLASS1;
		key->power[n][w][2] = word[w] & XE_CLASS2;
		key->power[n][w][3] = word[w] & XE_CLASS3;
	}
	__builtin_memset(word, 0, sizeof(word));
	xe_barrier();
}

/* Fills `key` from H, given as its 16 bytes lie in memory. Runs once a key, in the install program. Returns 0. */
XE_SUBPROGRAM int xe_ghash_expand(struct xe_hash_key *key, const __u8 *h)
{
	const __u64 zero[2] = {0, 0};
	struct xe_ghash_state s;

	key->class[0] = XE_CLASS0;
	key->class[1] = XE_CLASS1;
	key->class[2] = XE_CLASS2;
	key->class[3] = XE_CLASS3;
	__builtin_memset(&s, 0, sizeof(s));
	__builtin_memcpy(s.hash, h, XE_BLOCK);
	xe_ghash_store_power(key, &s, 0);
	/* From here on, a group of one zero block multiplies the running value by H. */
	xe_ghash_group(&s, key, zero, 1);
	xe_ghash_store_power(key, &s, 1);
	xe_ghash_group(&s, key, zero, 1);
	xe_ghash_store_power(key, &s, 2);
	xe_ghash_group(&s, key, zero, 1);
	xe_ghash_store_power(key, &s, 3);
	xe_ghash_wipe(&s);
	return 0;
}

#endif /* XE_GHASH_BPF_H */
