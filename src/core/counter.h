/* SPDX-License-Identifier: MIT
 *
 * The counter of a datagram: 8 bytes of either order, at any address.
 */
#ifndef TUNRING_COUNTER_H
#define TUNRING_COUNTER_H

#include <stdbool.h>
#include <stdint.h>

/* Compilers make one instruction of each of these expressions. */

static inline uint64_t
counter_reversed(uint64_t counter)
{
    counter = (counter & UINT64_C(0x00ff00ff00ff00ff)) << 8 | (counter >> 8 & UINT64_C(0x00ff00ff00ff00ff));
    counter = (counter & UINT64_C(0x0000ffff0000ffff)) << 16 | (counter >> 16 & UINT64_C(0x0000ffff0000ffff));
    return counter << 32 | counter >> 32;
}

static inline void
counter_write(unsigned char *bytes, uint64_t counter, bool big_endian)
{
    const uint64_t value = big_endian ? counter_reversed(counter) : counter;
    /* No loop: byte by byte, whoever reads the number next as a whole would wait for the stores. */
    bytes[0] = (unsigned char)value;
    bytes[1] = (unsigned char)(value >> 8);
    bytes[2] = (unsigned char)(value >> 16);
    bytes[3] = (unsigned char)(value >> 24);
    bytes[4] = (unsigned char)(value >> 32);
    bytes[5] = (unsigned char)(value >> 40);
    bytes[6] = (unsigned char)(value >> 48);
    bytes[7] = (unsigned char)(value >> 56);
}

static inline uint64_t
counter_read(const unsigned char *bytes, bool big_endian)
{
    const uint64_t value = (uint64_t)bytes[0] | (uint64_t)bytes[1] << 8 | (uint64_t)bytes[2] << 16 |
                           (uint64_t)bytes[3] << 24 | (uint64_t)bytes[4] << 32 | (uint64_t)bytes[5] << 40 |
                           (uint64_t)bytes[6] << 48 | (uint64_t)bytes[7] << 56;
    return big_endian ? counter_reversed(value) : value;
}

#endif
