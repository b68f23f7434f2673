/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * GHASH (NIST SP 800-38D, section 6.4) in constant time, without a carry-less multiply instruction.
 *
 * Integer multiplication with holes: split each operand by bit position modulo 4 into its four *classes*, so that three zero bits
 * stand between any two bits of a class. At most 16 ones meet at any bit of a product, and the carries of such a sum stay in the
 * holes but for the top bit, whose carry leaves the word. So masking a product's own class of bits gives the low half of the
 * polynomial product. Its high half is the low half of the product of the reversed operands. (The method is Thomas Pornin's, of
 * BearSSL.)
 *
 * Three products do instead of four, by Karatsuba, at three levels: a block is two words, a word two pairs of classes (0 and 1, 2
 * and 3), a pair two classes. That makes 27 products a block, and as many for the high half. Eight blocks share one reduction:
 * Y' = (Y + X1) H^8 + X2 H^7 + ... + X8 H. All that is needed of H is worked out beforehand, at key installation.
 *
 * What it costs is the number of instructions, so the sum of products is spelt out (clang would spill much of it), and it is in a
 * loop over words, so that the code of a group stays small: it is read from memory for every packet in real traffic.
 */
#ifndef XE_GHASH_BPF_H
#define XE_GHASH_BPF_H

#include "maps.bpf.h"

#define XE_CLASS0 0x1111111111111111ULL
#define XE_CLASS1 0x2222222222222222ULL

/* Swaps the halves of each byte. */
XE_INLINE __u64 xe_swap_nibbles(__u64 x)
{
	return ((x & 0x0f0f0f0f0f0f0f0fULL) << 4) | ((x >> 4) & 0x0f0f0f0f0f0f0f0fULL);
}

/*
 * The six words of a block given as it lies in memory: low, high and their sum, then the same reversed. Only the order of nibbles
 * is: that a nibble's classes stand the other way round, too, is seen to where a product is put together.
 */
XE_INLINE void xe_ghash_words(__u64 word[6], __u64 first, __u64 second)
{
	word[0] = bpf_be64_to_cpu(second);
	word[1] = bpf_be64_to_cpu(first);
	word[2] = word[0] ^ word[1];
	word[3] = xe_swap_nibbles(second);
	word[4] = xe_swap_nibbles(first);
	word[5] = word[3] ^ word[4];
}

/*
 * Sums of products, as text for the assembler. Registers: `v` and `t` are the classes of a word of a block, moved to the same
 * place in a nibble; `h` is what they are multiplied with. A pair's sums are s0 (of its lower classes), s1 (of its higher ones) and
 * s2, which is s0 + s1 + what belongs between them.
 *
 * Pairs: A is classes 0 and 1 of the word, read at bit 1 of each nibble; B classes 2 and 3, at bit 3; C the sum of A and B, at bit 3.
 * Doubling and not shifting: fewer of the CPU's units can shift, and they have the products to work on.
 */
#define XE_PAIR_A ""
#define XE_PAIR_B ""
#define XE_PAIR_C                                                                                                      \
	"%[t] = %[v]\n\t"                                                                                              \
	"%[t] <<= 2\n\t"                                                                                               \
	"%[v] ^= %[t]\n\t"

/* Bytes from a word's parts of H to those of a pair. */
#define XE_AT_A "0"
#define XE_AT_B "192"
#define XE_AT_C "384"

/* sum = or += factor times one part of H. */
#define XE_SET(sum, factor, at)                                                                                        \
	"%[" #sum "] = *(u64 *)(%[key] + %[power] + " at ")\n\t"                                                       \
	"%[" #sum "] *= %[" #factor "]\n\t"
#define XE_ADD(sum, factor, at)                                                                                        \
	"%[h] = *(u64 *)(%[key] + %[power] + " at ")\n\t"                                                              \
	"%[h] *= %[" #factor "]\n\t"                                                                                   \
	"%[" #sum "] ^= %[h]\n\t"

/* The products of a pair of block `b`; `low`, `high` and `middle` say whether sums begin with it (SET) or go on (ADD). */
#define XE_TERM(pair, b, low, high, middle)                                                                            \
	"%[v] = *(u64 *)(%[word] + 8 * " #b ")\n\t"                                                                    \
	XE_PAIR_##pair                                                                                                 \
	"%[t] = %[v]\n\t"                                                                                              \
	"%[v] += %[v]\n\t"                                                                                             \
	"%[v] &= %[mask]\n\t"                                                                                          \
	"%[t] &= %[mask]\n\t"                                                                                          \
	XE_##low(s0, v, XE_AT_##pair " + 24 * " #b)                                                                    \
	XE_##high(s1, t, XE_AT_##pair " + 24 * " #b " + 8")                                                            \
	"%[v] ^= %[t]\n\t"                                                                                             \
	XE_##middle(s2, v, XE_AT_##pair " + 24 * " #b " + 16")

#define XE_TERMS_1(pair, low, high, middle) XE_TERM(pair, 0, low, high, middle)
#define XE_TERMS_4(pair, low, high, middle)                                                                            \
	XE_TERMS_1(pair, low, high, middle)                                                                            \
	XE_TERM(pair, 1, ADD, ADD, ADD)                                                                                \
	XE_TERM(pair, 2, ADD, ADD, ADD)                                                                                \
	XE_TERM(pair, 3, ADD, ADD, ADD)
#define XE_TERMS_8(pair, low, high, middle)                                                                            \
	XE_TERMS_4(pair, low, high, middle)                                                                            \
	XE_TERM(pair, 4, ADD, ADD, ADD)                                                                                \
	XE_TERM(pair, 5, ADD, ADD, ADD)                                                                                \
	XE_TERM(pair, 6, ADD, ADD, ADD)                                                                                \
	XE_TERM(pair, 7, ADD, ADD, ADD)

/*
 * The product of a word, from the sums a0, a1, a2 of pair A (by rising place: s0, s0 + s1 + s2, s1), b0, b1, b2 and c0, c1, c2. As
 * polynomials in the class, with x^4 worth the next nibble:
 *
 *     (a0 + a1 x + a2 x^2) (1 + x^2) + (c0 + c1 x + c2 x^2) x^2 + (b0 + b1 x + b2 x^2) (x^2 + x^4)
 *
 * To have fewer values at a time, B's sums start from a2, and C's from what of A and B is added to them.
 */
#define XE_PRODUCT_BEGIN(n)                                                                                            \
	XE_TERMS_##n(A, SET, SET, SET)                                                                                 \
	"%[s0] <<= 2\n\t"                                                                                              \
	"%[s1] <<= 2\n\t"                                                                                              \
	"%[s2] <<= 2\n\t"                                                                                              \
	"%[mask] <<= 2\n\t"                                                                                            \
	"%[s2] ^= %[s0]\n\t"                                                                                           \
	"%[s2] ^= %[s1]\n\t"                                                                                           \
	"*(u64 *)(%[word] + %[product]) = %[s2]\n\t" /* a1 */                                                          \
	"%[x] = %[s0]\n\t" /* a0 */                                                                                    \
	"%[s0] = %[s1]\n\t"                                                                                            \
	"%[s2] = %[s1]\n\t"                                                                                            \
	XE_TERMS_##n(B, ADD, SET, ADD)                                                                                 \
	"%[s2] ^= %[s0]\n\t"                                                                                           \
	"%[s2] ^= %[s1]\n\t"                                                                                           \
	"%[h] = *(u64 *)(%[word] + %[product])\n\t"

/* s0 = a2 + b0, s1 = b2, s2 = b1, h = a1, x = a0. Leaves class 1 in `product`, and in the sums what C's products are added to. */
#define XE_PRODUCT_JOIN                                                                                                \
	"%[t] = %[s2]\n\t"                                                                                             \
	"%[t] <<= 4\n\t"                                                                                               \
	"%[t] ^= %[h]\n\t"                                                                                             \
	"%[t] &= %[mask]\n\t"                                                                                          \
	"%[t] >>= 2\n\t"                                                                                               \
	"*(u64 *)(%[word] + %[product]) = %[t]\n\t"                                                                    \
	"%[s2] ^= %[h]\n\t"                                                                                            \
	"%[v] = %[s1]\n\t"                                                                                             \
	"%[v] <<= 4\n\t"                                                                                               \
	"%[v] ^= %[x]\n\t"                                                                                             \
	"%[s1] ^= %[s0]\n\t"                                                                                           \
	"%[s0] ^= %[v]\n\t"                                                                                            \
	"%[s2] ^= %[s0]\n\t"                                                                                           \
	"%[s2] ^= %[s1]\n\t"

/* Classes 3, 2 and 0. */
#define XE_PRODUCT_END                                                                                                 \
	"%[s2] &= %[mask]\n\t"                                                                                         \
	"%[s0] &= %[mask]\n\t"                                                                                         \
	"%[s0] >>= 1\n\t"                                                                                              \
	"%[s1] <<= 4\n\t"                                                                                              \
	"%[s1] ^= %[x]\n\t"                                                                                            \
	"%[s1] &= %[mask]\n\t"                                                                                         \
	"%[s1] >>= 3\n\t"

/* The same where classes stand the other way round: for x^k in the sums above, x^(6 - k). Leaves class 2 in `product`. */
#define XE_PRODUCT_JOIN_REVERSED                                                                                       \
	"%[t] = %[h]\n\t"                                                                                              \
	"%[t] <<= 4\n\t"                                                                                               \
	"%[t] ^= %[s2]\n\t"                                                                                            \
	"%[t] &= %[mask]\n\t"                                                                                          \
	"%[t] >>= 1\n\t"                                                                                               \
	"*(u64 *)(%[word] + %[product]) = %[t]\n\t"                                                                    \
	"%[s2] ^= %[h]\n\t"                                                                                            \
	"%[v] = %[x]\n\t"                                                                                              \
	"%[x] = %[s1]\n\t"                                                                                             \
	"%[s1] ^= %[s0]\n\t"                                                                                           \
	"%[s0] ^= %[v]\n\t"                                                                                            \
	"%[v] <<= 4\n\t"                                                                                               \
	"%[s1] ^= %[v]\n\t"                                                                                            \
	"%[s2] ^= %[s0]\n\t"                                                                                           \
	"%[s2] ^= %[s1]\n\t"

/* Classes 0, 1 and 3. */
#define XE_PRODUCT_END_REVERSED                                                                                        \
	"%[s2] &= %[mask]\n\t"                                                                                         \
	"%[s2] >>= 3\n\t"                                                                                              \
	"%[s1] &= %[mask]\n\t"                                                                                         \
	"%[s1] >>= 2\n\t"                                                                                              \
	"%[s0] <<= 4\n\t"                                                                                              \
	"%[s0] ^= %[x]\n\t"                                                                                            \
	"%[s0] &= %[mask]\n\t"

#define XE_PRODUCT(n, reversed)                                                                                        \
	asm volatile(XE_PRODUCT_BEGIN(n)                                                                               \
		     XE_PRODUCT_JOIN##reversed                                                                         \
		     XE_TERMS_##n(C, ADD, ADD, ADD)                                                                    \
		     "%[s2] ^= %[s0]\n\t"                                                                              \
		     "%[s2] ^= %[s1]\n\t"                                                                              \
		     XE_PRODUCT_END##reversed                                                                          \
		     "%[h] = *(u64 *)(%[word] + %[product])\n\t"                                                       \
		     "%[s0] |= %[s1]\n\t"                                                                              \
		     "%[s2] |= %[h]\n\t"                                                                               \
		     "%[s0] |= %[s2]\n\t"                                                                              \
		     "*(u64 *)(%[word] + %[product]) = %[s0]"                                                          \
		     : [v] "=&r"(v), [t] "=&r"(t), [h] "=&r"(h), [x] "=&r"(x), [s0] "=&r"(s0), [s1] "=&r"(s1),         \
		       [s2] "=&r"(s2), [mask] "+r"(mask)                                                               \
		     : [key] "r"(key), [word] "r"(word),                                                               \
		       [power] "i"(__builtin_offsetof(struct xe_hash_word, part[0][XE_GROUP - (n)])),                  \
		       [product] "i"(__builtin_offsetof(struct xe_ghash_word, product))                                \
		     : "memory")

_Static_assert(__builtin_offsetof(struct xe_ghash_word, operand[1]) == 8, "XE_TERM");
_Static_assert(__builtin_offsetof(struct xe_hash_word, part[0][1][0]) == 24, "XE_TERM");
_Static_assert(__builtin_offsetof(struct xe_hash_word, part[1]) == 192, "XE_AT_B");
_Static_assert(__builtin_offsetof(struct xe_hash_word, part[2]) == 384, "XE_AT_C");

/* product = the sum over the group's `n` blocks of block times power of H; low 64 bits. */
XE_INLINE void xe_ghash_product(struct xe_ghash_word *word, const struct xe_hash_word *key, const int reversed,
				const int n)
{
	__u64 v, t, h, x, s0, s1, s2, mask = XE_CLASS1;

	if (n == 8 && reversed)
		XE_PRODUCT(8, _REVERSED);
	else if (n == 8)
		XE_PRODUCT(8, );
	else if (n == 4 && reversed)
		XE_PRODUCT(4, _REVERSED);
	else if (n == 4)
		XE_PRODUCT(4, );
	else if (reversed)
		XE_PRODUCT(1, _REVERSED);
	else
		XE_PRODUCT(1, );
}

/* Reverses the order of nibbles. */
XE_INLINE __u64 xe_reverse(__u64 x)
{
	return __builtin_bswap64(xe_swap_nibbles(x));
}

/*
 * Joins the six words of a product to its 255 bits and reduces them modulo x^128 + x^7 + x^2 + x + 1; the shift by one is
 * because GCM numbers bits from the left.
 */
XE_INLINE void xe_ghash_reduce(struct xe_ghash_state *s)
{
	const struct xe_ghash_word *w = s->word;
	__u64 v0 = w[0].product, v2 = w[1].product, v3 = w[4].product;
	__u64 middle = w[2].product ^ v0 ^ v2;
	__u64 middle_high = w[5].product ^ w[3].product ^ v3;
	__u64 v1 = (xe_reverse(w[3].product) >> 1) ^ middle;

	v2 ^= xe_reverse(middle_high) >> 1;
	v3 = xe_reverse(v3) >> 1;

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

/* hash = (hash + block[0]) H^n + block[1] H^(n-1) + ... + block[n-1] H; `n` is 1, 4 or XE_GROUP. */
XE_INLINE void xe_ghash_group(struct xe_ghash_state *s, const struct xe_hash_key *key, const __u64 *block,
			      const int n)
{
	const struct xe_hash_word *part = key->word;
	struct xe_ghash_word *word = s->word;

#pragma unroll
	for (int b = 0; b < n; b++) {
		__u64 first = block[2 * b], second = block[2 * b + 1], words[6];

		if (b == 0) {
			first ^= s->hash[0];
			second ^= s->hash[1];
		}
		xe_ghash_words(words, first, second);
#pragma unroll
		for (int w = 0; w < 6; w++)
			s->word[w].operand[b] = words[w];
	}
	xe_barrier();
#pragma nounroll
	for (int w = 0; w < 3; w++)
		xe_ghash_product(word++, part++, 0, n);
#pragma nounroll
	for (int w = 3; w < 6; w++)
		xe_ghash_product(word++, part++, 1, n);
	xe_barrier();
	xe_ghash_reduce(s);
}

/*
 * GHASH of `count` blocks of `input`, from block `first` (at least XE_LEAD_BLOCKS); the result is in `ghash.hash`. What else it
 * leaves in `ghash` is wiped by xe_ghash_wipe: H could be worked out from it. Returns 0.
 */
XE_INLINE int xe_ghash(struct xe_scratch *s, const struct xe_hash_key *key, __u32 first, __u32 count)
{
	const __u32 last = sizeof(s->input) / XE_BLOCK - XE_GROUP;
	__u32 odd = count % XE_GROUP, end = first + count, at;
	__u64 *block;

	s->ghash.hash[0] = 0;
	s->ghash.hash[1] = 0;
	xe_opaque(first);
	if (first < XE_LEAD_BLOCKS || first > XE_TEXT_OFFSET / XE_BLOCK)
		return 0;
	block = (__u64 *)(s->input + first * XE_BLOCK);
	if (odd % 4 == 1) {
		xe_ghash_group(&s->ghash, key, block, 1);
		block += 2;
		first += 1;
		odd -= 1;
	} else if (odd % 4) {
		/* Zero blocks in front change nothing; code for groups of two and three would cost more, in the instruction cache. */
		__u32 lead = 4 - odd % 4;

#pragma unroll
		for (int i = 1; i <= 2 * XE_LEAD_BLOCKS; i++)
			block[-i] = 0;
		first -= lead;
		odd += lead;
		block = (__u64 *)(s->input + first * XE_BLOCK);
	}
	if (odd == 4) {
		xe_ghash_group(&s->ghash, key, block, 4);
		first += 4;
	}
	xe_loop(at, s->zero, first, end, XE_GROUP)
	{
		if (at > last)
			break;
		xe_ghash_group(&s->ghash, key, (const __u64 *)(s->input + at * XE_BLOCK), XE_GROUP);
	}
	return 0;
}

/* Forgets everything from which H could be worked out; all other operands are text of the packet as it is on the wire. */
XE_INLINE void xe_ghash_wipe(struct xe_ghash_state *s)
{
	s->hash[0] = 0;
	s->hash[1] = 0;
#pragma unroll
	for (int w = 0; w < 6; w++) {
		s->word[w].operand[0] = 0;
		s->word[w].product = 0;
	}
	xe_barrier();
}

/* Writes the running value, a power of H, to its place in the first word, `to`, and in the others. */
XE_INLINE void xe_ghash_store_power(const struct xe_ghash_state *s, __u64 *to)
{
	__u64 word[6];

	xe_ghash_words(word, s->hash[0], s->hash[1]);
#pragma unroll
	for (int w = 0; w < 6; w++) {
		__u64 pair[3] = {word[w], word[w] >> 2, word[w] ^ word[w] >> 2};

#pragma unroll
		for (int i = 0; i < 3; i++) {
			__u64 *part = to + (w * 3 + i) * XE_GROUP * 3;

			part[0] = pair[i] & XE_CLASS0;
			part[1] = pair[i] >> 1 & XE_CLASS0;
			part[2] = part[0] ^ part[1];
		}
	}
	__builtin_memset(word, 0, sizeof(word));
	xe_barrier();
}

/* Fills `key` from H, given as its 16 bytes lie in memory. Runs once a key, in the install program. Returns 0. */
XE_SUBPROGRAM int xe_ghash_expand(struct xe_hash_key *key, const __u8 *h)
{
	__u64 *power = key->word[0].part[0][XE_GROUP - 1];
	const __u64 zero[2] = {0, 0};

	__builtin_memcpy(key->work.hash, h, XE_BLOCK);
	xe_ghash_store_power(&key->work, power);
#pragma nounroll
	for (int n = 2; n <= XE_GROUP; n++) {
		/* A group of one zero block multiplies the running value by H. */
		xe_ghash_group(&key->work, key, zero, 1);
		power -= 3;
		xe_ghash_store_power(&key->work, power);
	}
	xe_ghash_wipe(&key->work);
	return 0;
}

#endif /* XE_GHASH_BPF_H */
