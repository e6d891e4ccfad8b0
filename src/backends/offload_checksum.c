/* SPDX-License-Identifier: MIT
 *
 * The loops of the Internet checksum.
 */
#include "offload_checksum.h"

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

/* Up to 7 bytes; what lacks of the last word is 0. */
static inline uint64_t
sum_rest(const BYTE *bytes, uint32_t length, uint64_t sum)
{
    uint64_t rest = 0;
    if (length & 4)
    {
        rest += (uint64_t)offload_load_word(bytes) + offload_load_word(bytes + 2);
        bytes += 4;
    }
    if (length & 2)
    {
        rest += offload_load_word(bytes);
        bytes += 2;
    }
    if (length & 1)
        rest += offload_load_word((const BYTE[2]){*bytes, 0});
    return add(sum, rest);
}

/* Four sums at once, since each addition waits for the one before it. */

uint64_t
offload_sum(const BYTE *bytes, uint32_t length, uint64_t sum)
{
    uint64_t second = 0, third = 0, fourth = 0;
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
offload_sum_copy(BYTE *place, const BYTE *bytes, uint32_t length, uint64_t sum)
{
    uint64_t second = 0, third = 0, fourth = 0;
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
