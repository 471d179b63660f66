/* SHA-256 (FIPS 180-4), by the processor's instructions where it has them. */
#pragma once
#include <cpuid.h>
#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct sha256 {
	uint32_t state[8];
	uint8_t block[64];
	uint64_t length;
	int native;
};

static const uint32_t sha256_k[64] __attribute__((aligned(16))) = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static inline uint32_t sha256_rotate(uint32_t x, int n)
{
	return x >> n | x << (32 - n);
}

static void sha256_plain(uint32_t *state, const uint8_t *p, size_t blocks)
{
	for (; blocks; blocks--, p += 64) {
		uint32_t w[64], s[8];

		for (int i = 0; i < 16; i++) {
			memcpy(&w[i], p + 4 * i, 4);
			w[i] = __builtin_bswap32(w[i]);
		}
		for (int i = 16; i < 64; i++) {
			uint32_t a = w[i - 15], b = w[i - 2];

			w[i] = w[i - 16] + w[i - 7] + (sha256_rotate(a, 7) ^ sha256_rotate(a, 18) ^ a >> 3)
				+ (sha256_rotate(b, 17) ^ sha256_rotate(b, 19) ^ b >> 10);
		}
		memcpy(s, state, sizeof s);
		/* The variables stay where they are, and their names move. */
#pragma GCC unroll 8
		for (int i = 0; i < 64; i++) {
			uint32_t a = s[-i & 7], b = s[(1 - i) & 7], c = s[(2 - i) & 7];
			uint32_t e = s[(4 - i) & 7], f = s[(5 - i) & 7], g = s[(6 - i) & 7];
			uint32_t t = s[(7 - i) & 7] + (sha256_rotate(e, 6) ^ sha256_rotate(e, 11) ^ sha256_rotate(e, 25))
				+ ((e & f) ^ (~e & g)) + sha256_k[i] + w[i];

			s[(3 - i) & 7] += t;
			s[(7 - i) & 7] = t + (sha256_rotate(a, 2) ^ sha256_rotate(a, 13) ^ sha256_rotate(a, 22))
				+ ((a & b) ^ (a & c) ^ (b & c));
		}
		for (int i = 0; i < 8; i++)
			state[i] += s[i];
	}
}

/* The instructions want the state as ABEF and CDGH, and do two rounds each. */
__attribute__((target("sha,sse4.1"))) static void sha256_native(uint32_t *state, const uint8_t *p, size_t blocks)
{
	const __m128i order = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
	__m128i t = _mm_shuffle_epi32(_mm_loadu_si128((void *)state), 0xb1);
	__m128i cdgh = _mm_shuffle_epi32(_mm_loadu_si128((void *)(state + 4)), 0x1b);
	__m128i abef = _mm_alignr_epi8(t, cdgh, 8);

	cdgh = _mm_blend_epi16(cdgh, t, 0xf0);
	for (; blocks; blocks--, p += 64) {
		__m128i before_abef = abef, before_cdgh = cdgh, w[4];

#pragma GCC unroll 16
		for (int i = 0; i < 16; i++) {
			__m128i *x = &w[i % 4], k;

			if (i < 4) {
				*x = _mm_shuffle_epi8(_mm_loadu_si128((void *)(p + 16 * i)), order);
			} else {
				*x = _mm_sha256msg1_epu32(*x, w[(i + 1) % 4]);
				*x = _mm_add_epi32(*x, _mm_alignr_epi8(w[(i + 3) % 4], w[(i + 2) % 4], 4));
				*x = _mm_sha256msg2_epu32(*x, w[(i + 3) % 4]);
			}
			k = _mm_add_epi32(*x, _mm_load_si128((void *)(sha256_k + 4 * i)));
			cdgh = _mm_sha256rnds2_epu32(cdgh, abef, k);
			abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(k, 0x0e));
		}
		abef = _mm_add_epi32(abef, before_abef);
		cdgh = _mm_add_epi32(cdgh, before_cdgh);
	}
	t = _mm_shuffle_epi32(abef, 0x1b);
	cdgh = _mm_shuffle_epi32(cdgh, 0xb1);
	_mm_storeu_si128((void *)state, _mm_blend_epi16(t, cdgh, 0xf0));
	_mm_storeu_si128((void *)(state + 4), _mm_alignr_epi8(cdgh, t, 8));
}

static void sha256_blocks(struct sha256 *sum, const uint8_t *p, size_t blocks)
{
	if (sum->native)
		sha256_native(sum->state, p, blocks);
	else
		sha256_plain(sum->state, p, blocks);
}

static void sha256_start(struct sha256 *sum)
{
	static const uint32_t first[8] = {
		0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
	};
	unsigned a, b = 0, c, d;

	memcpy(sum->state, first, sizeof first);
	sum->length = 0;
	sum->native = __get_cpuid_count(7, 0, &a, &b, &c, &d) && b >> 29 & 1;
}

static void sha256_add(struct sha256 *sum, const void *data, size_t n)
{
	const uint8_t *p = data;
	size_t held = sum->length % 64;

	sum->length += n;
	if (held && held + n >= 64) {
		memcpy(sum->block + held, p, 64 - held);
		sha256_blocks(sum, sum->block, 1);
		p += 64 - held;
		n -= 64 - held;
		held = 0;
	}
	if (!held) {
		sha256_blocks(sum, p, n / 64);
		p += n / 64 * 64;
		n %= 64;
	}
	memcpy(sum->block + held, p, n);
}

/* 64 digits and a 0. */
static void sha256_end(struct sha256 *sum, char *text)
{
	static const uint8_t padding[64] = { 0x80 };
	uint64_t bits = __builtin_bswap64(sum->length * 8);

	sha256_add(sum, padding, 1 + (119 - sum->length % 64) % 64);
	sha256_add(sum, &bits, 8);
	for (int i = 0; i < 8; i++)
		sprintf(text + 8 * i, "%08x", sum->state[i]);
}
