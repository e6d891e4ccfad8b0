/* SPDX-License-Identifier: MIT
 *
 * The loops of the Internet checksum.
 */
#include "packet/checksum.h"

#include <stdbool.h>

/* With the carry brought round: 64-bit words sum up like 16-bit ones, as 0xFFFF divides 2^64 - 1. */
static inline uint64_t
add(uint64_t sum, uint64_t term)
{
    sum += term;
    return sum + (sum < term);
}

static inline uint64_t
load(const BYTE *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof(word));
    return word;
}

/* Up to 7 bytes; the rest of the last word is 0. */
static inline uint64_t
sum_rest(const BYTE *bytes, uint32_t length, uint64_t sum)
{
    uint64_t rest = 0;
    if (length & 4)
    {
        rest += (uint64_t)packet_load_word(bytes) + packet_load_word(bytes + 2);
        bytes += 4;
    }
    if (length & 2)
    {
        rest += packet_load_word(bytes);
        bytes += 2;
    }
    if (length & 1)
        rest += packet_load_word((const BYTE[2]){*bytes, 0});
    return add(sum, rest);
}

#if defined(__GNUC__) && defined(__x86_64__)

/* With AVX2, where the processor has it: each 64-bit lane sums up 32-bit halves, which can't overflow within 16 GiB.
 * The compiler does not vectorise the loops below, for their carries. */

#include <immintrin.h>

#define WIDE __attribute__((target("avx2")))

/* Below this the plain loops are as fast. */
#define WIDE_ENOUGH 64u

static inline bool
is_wide(uint32_t length)
{
    return length >= WIDE_ENOUGH && __builtin_cpu_supports("avx2");
}

WIDE static inline __m256i
add_halves(__m256i sum, __m256i words)
{
    const __m256i low = _mm256_blend_epi32(words, _mm256_setzero_si256(), 0xAA);
    return _mm256_add_epi64(sum, _mm256_add_epi64(low, _mm256_srli_epi64(words, 32)));
}

WIDE static inline __m256i
load_wide(const BYTE *bytes)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)bytes);
}

WIDE static inline uint64_t
add_lanes(__m256i first, __m256i second, uint64_t sum)
{
    uint64_t lanes[4];
    _mm256_storeu_si256((__m256i *)(void *)lanes, _mm256_add_epi64(first, second));
    return add(sum, lanes[0] + lanes[1] + lanes[2] + lanes[3]);
}

/* Whole blocks of 64 bytes, copied to `place` unless that is NULL. */
WIDE static uint64_t
sum_wide(BYTE *place, const BYTE *bytes, uint32_t length, uint64_t sum)
{
    __m256i first = _mm256_setzero_si256(), second = first;
    for (uint32_t at = 0; at + 64 <= length; at += 64)
    {
        const __m256i one = load_wide(bytes + at), two = load_wide(bytes + at + 32);
        if (place)
        {
            _mm256_storeu_si256((__m256i *)(void *)(place + at), one);
            _mm256_storeu_si256((__m256i *)(void *)(place + at + 32), two);
        }
        first = add_halves(first, one);
        second = add_halves(second, two);
    }
    return add_lanes(first, second, sum);
}

#else

static inline bool
is_wide(uint32_t length)
{
    (void)length;
    return false;
}

static uint64_t
sum_wide(BYTE *place, const BYTE *bytes, uint32_t length, uint64_t sum)
{
    (void)place;
    (void)bytes;
    (void)length;
    return sum;
}

#endif

/* Four sums at once, since each addition waits for the one before it. */

uint64_t
packet_sum(const BYTE *bytes, uint32_t length, uint64_t sum)
{
    uint64_t second = 0, third = 0, fourth = 0;
    if (is_wide(length))
    {
        sum = sum_wide(NULL, bytes, length, sum);
        bytes += length & ~63u;
        length &= 63u;
    }
    for (; length >= 32; length -= 32, bytes += 32)
    {
        sum = add(sum, load(bytes));
        second = add(second, load(bytes + 8));
        third = add(third, load(bytes + 16));
        fourth = add(fourth, load(bytes + 24));
    }
    for (; length >= 8; length -= 8, bytes += 8)
        sum = add(sum, load(bytes));
    return sum_rest(bytes, length, add(add(sum, second), add(third, fourth)));
}

uint64_t
packet_sum_copy(BYTE *place, const BYTE *bytes, uint32_t length, uint64_t sum)
{
    uint64_t second = 0, third = 0, fourth = 0;
    if (is_wide(length))
    {
        sum = sum_wide(place, bytes, length, sum);
        bytes += length & ~63u;
        place += length & ~63u;
        length &= 63u;
    }
    for (; length >= 32; length -= 32, bytes += 32, place += 32)
    {
        const uint64_t words[4] = {load(bytes), load(bytes + 8), load(bytes + 16), load(bytes + 24)};
        memcpy(place, words, sizeof(words));
        sum = add(sum, words[0]);
        second = add(second, words[1]);
        third = add(third, words[2]);
        fourth = add(fourth, words[3]);
    }
    for (; length >= 8; length -= 8, bytes += 8, place += 8)
    {
        const uint64_t word = load(bytes);
        memcpy(place, &word, sizeof(word));
        sum = add(sum, word);
    }
    sum = sum_rest(bytes, length, add(add(sum, second), add(third, fourth)));
    for (uint32_t i = 0; i < length; i++)
        place[i] = bytes[i];
    return sum;
}
