/* SPDX-License-Identifier: MIT
 *
 * The counter of a datagram: 8 bytes of either order, at any address.
 */
#ifndef TUNRING_COUNTER_H
#define TUNRING_COUNTER_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define COUNTER_HOST_BIG_ENDIAN true
#else
#define COUNTER_HOST_BIG_ENDIAN false
#endif

/* Compilers make one instruction of it. */
static inline uint64_t
counter_reversed(uint64_t counter)
{
    counter = (counter & UINT64_C(0x00ff00ff00ff00ff)) << 8 | (counter >> 8 & UINT64_C(0x00ff00ff00ff00ff));
    counter = (counter & UINT64_C(0x0000ffff0000ffff)) << 16 | (counter >> 16 & UINT64_C(0x0000ffff0000ffff));
    return counter << 32 | counter >> 32;
}

/* These copy the number as a whole: byte by byte, whoever reads what was written would wait for all the stores, and not
 * every compiler makes one load of eight. */

static inline void
counter_write(unsigned char *bytes, uint64_t counter, bool big_endian)
{
    const uint64_t value = big_endian == COUNTER_HOST_BIG_ENDIAN ? counter : counter_reversed(counter);
    memcpy(bytes, &value, sizeof(value));
}

static inline uint64_t
counter_read(const unsigned char *bytes, bool big_endian)
{
    uint64_t value;
    memcpy(&value, bytes, sizeof(value));
    return big_endian == COUNTER_HOST_BIG_ENDIAN ? value : counter_reversed(value);
}

#endif
