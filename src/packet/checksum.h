/* SPDX-License-Identifier: MIT
 *
 * The Internet checksum. A sum here is one of 16-bit words as they lie in memory: a one's complement sum comes out the
 * same in either byte order, so no byte of a packet is ever swapped.
 */
#ifndef TUNRING_CHECKSUM_H
#define TUNRING_CHECKSUM_H

#include "wintun.h"

#include <stdint.h>
#include <string.h>

/* The sum and these bytes; those after an odd number of bytes would need a swap, so only the last may be odd. */
uint64_t packet_sum(const BYTE *bytes, uint32_t length, uint64_t sum);
/* The same, and copies them on the way. */
uint64_t packet_sum_copy(BYTE *place, const BYTE *bytes, uint32_t length, uint64_t sum);

/* The sum as one word. It is 0 only if everything was 0, and 0xFFFF for something that holds its own checksum. */
static inline uint16_t
packet_fold(uint64_t sum)
{
    sum = (sum & 0xFFFFFFFFu) + (sum >> 32);
    sum = (sum & 0xFFFFFFFFu) + (sum >> 32);
    sum = (sum & 0xFFFFu) + (sum >> 16);
    sum = (sum & 0xFFFFu) + (sum >> 16);
    return (uint16_t)sum;
}

/* A word of a sum, as it lies in memory. */
static inline uint16_t
packet_load_word(const BYTE *place)
{
    uint16_t word;
    memcpy(&word, place, sizeof(word));
    return word;
}

static inline void
packet_store_word(BYTE *place, uint16_t word)
{
    memcpy(place, &word, sizeof(word));
}

/* Numbers in network order. */

static inline uint16_t
packet_get16(const BYTE *place)
{
    return (uint16_t)(place[0] << 8 | place[1]);
}

static inline uint32_t
packet_get32(const BYTE *place)
{
    return (uint32_t)packet_get16(place) << 16 | packet_get16(place + 2);
}

static inline void
packet_put16(BYTE *place, uint32_t value)
{
    place[0] = (BYTE)(value >> 8);
    place[1] = (BYTE)value;
}

static inline void
packet_put32(BYTE *place, uint32_t value)
{
    packet_put16(place, value >> 16);
    packet_put16(place + 2, value);
}

/* The word that a 16-bit number is in memory. */
static inline uint16_t
packet_word(uint32_t value)
{
    BYTE bytes[2];
    packet_put16(bytes, value);
    return packet_load_word(bytes);
}

#endif
