/* SPDX-License-Identifier: MIT
 *
 * Copying packets, many of which are small.
 */
#ifndef TUNRING_COPY_H
#define TUNRING_COPY_H

#include <stdint.h>
#include <string.h>

#define COPY_WORD 16u
/* Below this size in bytes, starting a call of memcpy takes longer than the whole loop. */
#define COPY_SMALL 128u

static inline void
copy_packet(unsigned char *to, const unsigned char *from, uint32_t length)
{
    if (length < COPY_WORD || length > COPY_SMALL)
    {
        memcpy(to, from, length);
        return;
    }
    /* The last word overlaps the one before, as far as the length is not a multiple. */
    const uint32_t last = length - COPY_WORD;
    for (uint32_t at = 0; at < last; at += COPY_WORD)
        memcpy(to + at, from + at, COPY_WORD);
    memcpy(to + last, from + last, COPY_WORD);
}

#endif
