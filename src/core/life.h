/* SPDX-License-Identifier: MIT
 *
 * The life of something that any thread may use until any thread closes it: the calls in flight and how far closing has
 * come, in one atomic word. A call registers first and looks second; closing sets the bit first and counts second. So
 * either the call turns back, or the close waits for it.
 */
#ifndef TUNRING_LIFE_H
#define TUNRING_LIFE_H

#include "core/backoff.h"
#include "platform/wait.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define LIFE_CLOSING 0x80000000u /* no call begins any more */
#define LIFE_CLOSED 0x40000000u  /* the close that came first is done */
#define LIFE_CALLS 0x3FFFFFFFu   /* the number of calls in flight */

typedef _Atomic uint32_t life_word;

/* Registers a call. False once closing has begun: the call must turn back. */
static inline bool
life_enter(life_word *life)
{
    if (!(atomic_fetch_add(life, 1) & LIFE_CLOSING))
        return true;
    atomic_fetch_sub(life, 1);
    return false;
}

static inline void
life_leave(life_word *life)
{
    atomic_fetch_sub(life, 1);
}

static inline bool
life_closing(const life_word *life)
{
    return (atomic_load_explicit(life, memory_order_relaxed) & LIFE_CLOSING) != 0;
}

/* Lets no call begin any more. True for the first caller. */
static inline bool
life_shut(life_word *life)
{
    return !(atomic_fetch_or(life, LIFE_CLOSING) & LIFE_CLOSING);
}

/* wait_any() for a call in flight, the first of whose handles is the event that closing sets. It also ends, with 0, if
 * that could not be set: a program may have closed its descriptor. */
static inline int
life_wait(const life_word *life, const HANDLE *handles, unsigned count, int64_t deadline)
{
    for (;;)
    {
        const int ready = wait_once(handles, count, deadline);
        if (ready != WAIT_NOTHING)
            return ready;
        if (life_closing(life))
            return 0;
        if (os_now() >= deadline)
            return WAIT_NOTHING;
    }
}

/* Waits for the calls in flight. The caller has shut the door, and is in none of them. */
static inline void
life_await_calls(life_word *life)
{
    backoff pause = {0};
    while (atomic_load(life) & LIFE_CALLS)
        backoff_pause(&pause);
}

/* Wakes the callers of life_await_end(): the first close is done. */
static inline void
life_end(life_word *life)
{
    atomic_fetch_or(life, LIFE_CLOSED);
}

static inline void
life_await_end(life_word *life)
{
    backoff pause = {0};
    while (!(atomic_load(life) & LIFE_CLOSED))
        backoff_pause(&pause);
}

#endif
