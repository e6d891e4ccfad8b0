/* SPDX-License-Identifier: MIT
 *
 * Waiting for something that no event announces (room in a send ring, calls in flight): spins first, then yields, then
 * sleeps, 50 microseconds at first and never more than a millisecond, so that neither latency nor the processor
 * suffers much.
 */
#ifndef TUNRING_BACKOFF_H
#define TUNRING_BACKOFF_H

#include "platform/os.h"

typedef struct backoff
{
    unsigned turn; /* 0 before the first pause */
} backoff;

/* Nanoseconds to sleep this time. 0: it has spun or yielded, look again. */
static inline int64_t
backoff_next(backoff *pause)
{
    enum
    {
        SPINS = 32,
        YIELDS = 32,
        SHORTEST = 50000,
        LONGEST = 1000000
    };
    unsigned turn = pause->turn++;
    if (turn < SPINS)
    {
        os_relax();
        return 0;
    }
    if (turn < SPINS + YIELDS)
    {
        os_yield();
        return 0;
    }
    unsigned doublings = (turn - SPINS - YIELDS) / 4;
    return doublings < 5 ? (int64_t)SHORTEST << doublings : LONGEST;
}

static inline void
backoff_pause(backoff *pause)
{
    int64_t nanoseconds = backoff_next(pause);
    if (nanoseconds)
        os_sleep(nanoseconds);
}

#endif
