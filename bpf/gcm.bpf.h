/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * AES-GCM (NIST SP 800-38D, section 7) on the scratch: AES by the kernel's ecb(aes) over counter blocks, GHASH by ghash.bpf.h.
 *
 * The caller has put AAD and text into `input` and their lengths, the nonce and (to open) the tag beside it. Text in clear is
 * better left in the packet, where it is read from or written to: that saves two copies and wiping one.
 */
#ifndef XE_GCM_BPF_H
#define XE_GCM_BPF_H

#include "ghash.bpf.h"

#define XE_STEP 64 /* bytes that one turn of a loop works on: four blocks */

/*
 * Texts up to here (8 blocks) are opened with one call of the cipher, for the tag's mask and the key stream at once: a call costs as much as
 * half a block, and more where it switches to vector registers. Longer ones are verified first, so that a forged packet costs no more AES than
 * this; and with that it costs less than a forged one of full size, for which all of GHASH has to be done.
 */
#define XE_AT_ONCE_MAX (8 * XE_BLOCK)

/* Writes counter blocks from block `first` of `stream`, numbered from `counter`, in steps of four. Returns 0. */
XE_INLINE int xe_gcm_count(struct xe_scratch *s, __u32 first, __u32 count, __u32 counter)
{
	const __u32 last = sizeof(s->stream) / XE_BLOCK - 4;
	__u64 low = s->nonce[0], high = s->nonce[1] & 0xffffffff;
	__u32 at;

	counter -= first;
	xe_loop(at, s->zero, first, first + count, 4)
	{
		__u32 number = counter + at;
		__u64 *block;

		if (at > last)
			break;
		block = (__u64 *)(s->stream + at * XE_BLOCK);
#pragma unroll
		for (int b = 0; b < 4; b++) {
			block[2 * b] = low;
			block[2 * b + 1] = high | (__u64)bpf_htonl(number + b) << 32;
		}
	}
	return 0;
}

/* Encrypts `count` blocks of `stream` in place, from block `first` (0 or 1). Returns 0, or the kernel's error. */
XE_INLINE int xe_gcm_aes(struct xe_scratch *s, struct bpf_crypto_ctx *cipher, __u32 first, __u32 count)
{
	struct bpf_dynptr blocks;
	__u32 len = count * XE_BLOCK;
	int error;

	if (!cipher)
		return -XE_EINVAL;
	if (!xe_is_between(len, 1, XE_BLOCK + XE_TEXT_MAX))
		return -XE_E2BIG;
	if (first == 0)
		error = bpf_dynptr_from_mem(s->stream, len, 0, &blocks);
	else
		error = bpf_dynptr_from_mem(s->stream + XE_BLOCK, len, 0, &blocks);
	if (error)
		return error;
	return bpf_crypto_encrypt(cipher, &blocks, &blocks, 0);
}

/* Zeroes one step, in words: of the bytes' alignment clang knows nothing. */
XE_INLINE void xe_zero64(__u8 *bytes)
{
#pragma unroll
	for (int i = 0; i < XE_STEP / 8; i++)
		((__u64 *)bytes)[i] = 0;
}

/* Zeroes a block behind the text: GHASH works on whole ones. */
XE_INLINE void xe_gcm_pad(struct xe_scratch *s, __u32 text_len)
{
	__u64 *end;

	xe_opaque(text_len);
	if (text_len > XE_TEXT_MAX)
		return;
	end = (__u64 *)(s->input + XE_TEXT_OFFSET + text_len);
	end[0] = 0;
	end[1] = 0;
}

/* Where a text stands in clear: like the ciphertext in `input`, or in the packet's linear part, as encryption and decryption have it. */
enum xe_text_place {
	XE_IN_INPUT,
	XE_FROM_PACKET,
	XE_TO_PACKET,
};

/*
 * A sum of 32-bit words, for checksums, made of 64-bit ones: these, modulo 2^64, and their upper halves. What those do not account
 * for is the sum of the lower halves.
 */
struct xe_text_sum {
	__u64 words;
	__u64 upper;
};

XE_INLINE void xe_text_sum_add(struct xe_text_sum *sum, __u64 word)
{
	sum->words += word;
	sum->upper += word >> 32;
}

XE_INLINE __u64 xe_text_sum(const struct xe_text_sum *sum)
{
	return sum->words - (sum->upper << 32) + sum->upper;
}

/* Reads the last `len` (1 to 7) bytes of a text in the packet, as a word. Returns 0 or -1. */
XE_INLINE int xe_rest_read(const void *from, const void *data_end, __u32 len, __u64 *word)
{
	__u32 shift = 0;
	__u64 x = 0;

	if (len & 4) {
		if (from + 4 > data_end)
			return -1;
		x = *(__u32 *)from;
		from += 4;
		shift = 32;
	}
	if (len & 2) {
		if (from + 2 > data_end)
			return -1;
		x |= (__u64)*(__u16 *)from << shift;
		from += 2;
		shift += 16;
	}
	if (len & 1) {
		if (from + 1 > data_end)
			return -1;
		x |= (__u64)*(__u8 *)from << shift;
	}
	*word = x;
	return 0;
}

/* Writes them, likewise. Returns 0 or -1. */
XE_INLINE int xe_rest_write(void *to, const void *data_end, __u32 len, __u64 word)
{
	if (len & 4) {
		if (to + 4 > data_end)
			return -1;
		*(__u32 *)to = word;
		to += 4;
		word >>= 32;
	}
	if (len & 2) {
		if (to + 2 > data_end)
			return -1;
		*(__u16 *)to = word;
		to += 2;
		word >>= 16;
	}
	if (len & 1) {
		if (to + 1 > data_end)
			return -1;
		*(__u8 *)to = word;
	}
	return 0;
}

/* What `count` words do on their way through the key stream: see xe_gcm_xor. */
XE_INLINE void xe_gcm_xor_words(__u64 *text, __u64 *stream, __u64 *there, const int place, const int count,
				struct xe_text_sum *before, struct xe_text_sum *after)
{
#pragma unroll
	for (int w = 0; w < count; w++) {
		__u64 x = place == XE_FROM_PACKET ? there[w] : text[w], y = x ^ stream[w];

		stream[w] = 0;
		if (place == XE_TO_PACKET)
			there[w] = y;
		else
			text[w] = y;
		xe_text_sum_add(before, x);
		xe_text_sum_add(after, y);
	}
}

/*
 * text ^= key stream; the key stream is zeroed behind it. `packet` is where the text stands in the packet, if `place` says that it
 * does. Sums the text before and after. Returns 0, or -1 when the packet ends before the text.
 */
XE_INLINE int xe_gcm_xor(struct xe_scratch *s, __u32 text_len, const int place, void *packet, void *data_end)
{
	__u32 at, steps = text_len & ~(XE_STEP - 1), words = text_len & ~7, rest = text_len & 7;
	struct xe_text_sum before = {0, 0}, after = {0, 0};
	__u64 *text, *stream;
	void *there;

	xe_loop(at, s->zero, 0, steps, XE_STEP)
	{
		there = packet + at;
		if (at > XE_TEXT_MAX || (place != XE_IN_INPUT && there + XE_STEP > data_end))
			return -1;
		text = (__u64 *)(s->input + XE_TEXT_OFFSET + at);
		stream = (__u64 *)(s->stream + XE_BLOCK + at);
		xe_gcm_xor_words(text, stream, there, place, XE_STEP / 8, &before, &after);
	}
	xe_loop(at, s->zero, steps, words, 8)
	{
		there = packet + at;
		if (at > XE_TEXT_MAX || (place != XE_IN_INPUT && there + 8 > data_end))
			return -1;
		text = (__u64 *)(s->input + XE_TEXT_OFFSET + at);
		stream = (__u64 *)(s->stream + XE_BLOCK + at);
		xe_gcm_xor_words(text, stream, there, place, 1, &before, &after);
	}
	xe_opaque(words);
	if (words > XE_TEXT_MAX)
		return -1;
	stream = (__u64 *)(s->stream + XE_BLOCK + words);
	if (rest) {
		__u64 mask = ~0ULL >> (64 - 8 * rest), x, y;

		text = (__u64 *)(s->input + XE_TEXT_OFFSET + words);
		there = packet + words;
		x = *text & mask;
		if (place == XE_FROM_PACKET && xe_rest_read(there, data_end, rest, &x))
			return -1;
		y = (x ^ *stream) & mask;
		if (place != XE_TO_PACKET)
			*text = y;
		else if (xe_rest_write(there, data_end, rest, y))
			return -1;
		xe_text_sum_add(&before, x);
		xe_text_sum_add(&after, y);
	}
	/* What of the last block's key stream the text has not used. */
	stream[0] = 0;
	stream[1] = 0;
	s->sum_before = xe_text_sum(&before);
	s->sum_after = xe_text_sum(&after);
	return 0;
}

/* Zeroes the text. Returns 0. */
XE_INLINE int xe_gcm_wipe_text(struct xe_scratch *s)
{
	__u32 at;

	xe_loop(at, s->zero, 0, s->text_len, XE_STEP)
	{
		if (at > XE_TEXT_MAX)
			break;
		xe_zero64(s->input + XE_TEXT_OFFSET + at);
	}
	return 0;
}

/* Zeroes the key stream of the text. Returns 0. */
XE_SUBPROGRAM int xe_gcm_wipe_stream(struct xe_scratch *s)
{
	__u32 at;

	xe_loop(at, s->zero, 0, XE_BLOCK + s->text_len, XE_STEP)
	{
		if (at > XE_TEXT_MAX)
			break;
		xe_zero64(s->stream + at);
	}
	return 0;
}

/* GHASH over AAD, ciphertext and their lengths. */
XE_INLINE void xe_gcm_authenticate(struct xe_scratch *s, const struct xe_hash_key *key)
{
	__u32 aad_blocks = (s->aad_len + XE_BLOCK - 1) / XE_BLOCK;
	__u32 text_blocks = (s->text_len + XE_BLOCK - 1) / XE_BLOCK;
	__u32 at = text_blocks * XE_BLOCK, first;
	__u64 *lengths;

	if (aad_blocks > XE_AAD_BLOCKS)
		return;
	xe_opaque(at);
	if (at > XE_TEXT_MAX)
		return;
	lengths = (__u64 *)(s->input + XE_TEXT_OFFSET + at);
	lengths[0] = bpf_cpu_to_be64((__u64)s->aad_len * 8);
	lengths[1] = bpf_cpu_to_be64((__u64)s->text_len * 8);
	first = XE_TEXT_OFFSET / XE_BLOCK - aad_blocks;
	xe_ghash(s, key, first, aad_blocks + text_blocks + 1);
}

/*
 * Encrypts the text, from `input` or the packet to `input`, and leaves the tag in `tag`. Returns 0, or the kernel's error; then the
 * text has been wiped. Nothing but ciphertext stays in the scratch.
 */
XE_INLINE int xe_gcm_seal(struct xe_scratch *s, struct bpf_crypto_ctx *cipher, const struct xe_hash_key *key,
			  void *packet, void *data_end)
{
	__u32 text_len = s->text_len, blocks = (text_len + XE_BLOCK - 1) / XE_BLOCK;
	__u64 *stream = (__u64 *)s->stream;
	int error;

	if (text_len > XE_TEXT_MAX)
		return -XE_E2BIG;
	xe_gcm_count(s, 0, blocks + 1, 1);
	error = xe_gcm_aes(s, cipher, 0, blocks + 1);
	if (!error)
		error = packet ? xe_gcm_xor(s, text_len, XE_FROM_PACKET, packet, data_end)
			       : xe_gcm_xor(s, text_len, XE_IN_INPUT, NULL, NULL);
	if (error) {
		xe_gcm_wipe_stream(s);
		xe_gcm_wipe_text(s);
		return error;
	}
	xe_gcm_pad(s, text_len);
	xe_gcm_authenticate(s, key);
	s->tag[0] = s->ghash.hash[0] ^ stream[0];
	s->tag[1] = s->ghash.hash[1] ^ stream[1];
	stream[0] = 0;
	stream[1] = 0;
	xe_ghash_wipe(&s->ghash);
	return 0;
}

/*
 * Verifies `tag` over what is in `input`, without touching the text. Returns 0 when it is authentic (of a short text the key stream waits in
 * `stream` then, for xe_gcm_decrypt), 1 when it is not, or the kernel's error.
 */
XE_INLINE int xe_gcm_verify(struct xe_scratch *s, struct bpf_crypto_ctx *cipher, const struct xe_hash_key *key)
{
	__u32 text_len = s->text_len, blocks = 0;
	__u64 *stream = (__u64 *)s->stream;
	__u64 difference;
	int error;

	if (text_len > XE_TEXT_MAX)
		return -XE_E2BIG;
	if (text_len <= XE_AT_ONCE_MAX)
		blocks = (text_len + XE_BLOCK - 1) / XE_BLOCK;
	xe_gcm_count(s, 0, blocks + 1, 1);
	error = xe_gcm_aes(s, cipher, 0, blocks + 1);
	if (error) {
		xe_gcm_wipe_stream(s);
		return error;
	}
	xe_gcm_authenticate(s, key);
	difference = (s->ghash.hash[0] ^ stream[0] ^ s->tag[0]) | (s->ghash.hash[1] ^ stream[1] ^ s->tag[1]);
	stream[0] = 0;
	stream[1] = 0;
	xe_ghash_wipe(&s->ghash);
	if (difference == 0)
		return 0;
	if (blocks)
		xe_gcm_wipe_stream(s);
	return 1;
}

/*
 * Decrypts the text after it has been verified, from `input` to there, where the caller wipes it after use, or to the packet. Returns
 * 0 or the kernel's error.
 */
XE_INLINE int xe_gcm_decrypt(struct xe_scratch *s, struct bpf_crypto_ctx *cipher, void *packet, void *data_end)
{
	__u32 text_len = s->text_len, blocks = (text_len + XE_BLOCK - 1) / XE_BLOCK;
	int error = 0;

	s->sum_before = 0;
	s->sum_after = 0;
	if (text_len == 0)
		return 0;
	if (text_len > XE_TEXT_MAX)
		return -XE_E2BIG;
	if (text_len > XE_AT_ONCE_MAX) {
		xe_gcm_count(s, 1, blocks, 2);
		error = xe_gcm_aes(s, cipher, 1, blocks);
	}
	if (!error)
		error = packet ? xe_gcm_xor(s, text_len, XE_TO_PACKET, packet, data_end)
			       : xe_gcm_xor(s, text_len, XE_IN_INPUT, NULL, NULL);
	if (error)
		xe_gcm_wipe_stream(s);
	return error;
}

#endif /* XE_GCM_BPF_H */
