/* SPDX-License-Identifier: MIT
 *
 * The window of counters that were accepted, as RFC 6479 describes it: a ring of words, one bit for each counter, in
 * which whole words are cleared as the highest counter moves on. The caller holds the lock.
 */
#ifndef TUNRING_REPLAY_H
#define TUNRING_REPLAY_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef struct replay_window
{
    uint64_t highest; /* counter that was accepted */
    bool begun;       /* one was */
    uint32_t size;    /* counters up to the highest that can be accepted */
    uint32_t words;   /* a power of two: room for `size` bits wherever they begin in a word */
    uint64_t *bits;
} replay_window;

static inline uint32_t
replay_words(uint32_t size)
{
    uint32_t words = 2;
    while (words < size / 64 + 2)
        words *= 2;
    return words;
}

/* The words between are for counters that were never seen. */
static inline void
replay_move(replay_window *window, uint64_t counter)
{
    const uint64_t from = window->highest / 64;
    uint64_t count = counter / 64 - from;
    if (count > window->words)
        count = window->words;
    for (uint64_t i = 1; i <= count; i++)
        window->bits[(from + i) & (window->words - 1)] = 0;
    window->highest = counter;
}

/* True if the counter is new: it is not new from then on. */
static inline bool
replay_accept(replay_window *window, uint64_t counter)
{
    if (!window->begun)
    {
        window->begun = true;
        window->highest = counter;
    }
    else if (counter > window->highest)
        replay_move(window, counter);
    else if (window->highest - counter >= window->size)
        return false;
    uint64_t *word = &window->bits[counter / 64 & (window->words - 1)];
    const uint64_t bit = UINT64_C(1) << (counter & 63);
    if (*word & bit)
        return false;
    *word |= bit;
    return true;
}

#endif
