/* SPDX-License-Identifier: MIT
 *
 * A source lends slots: a session's ring, a socket's chunks, a Sealer's. Leases, receive, waiting and notifiers know
 * only this much of either.
 */
#ifndef TUNRING_SOURCE_H
#define TUNRING_SOURCE_H

#include "core/deferred.h"
#include "core/life.h"
#include "core/session_capture.h"
#include "platform/os.h"
#include "tunring.h"

typedef struct source_ops
{
    /* Appends packets to the lease, which has room for `room` slots in all. 0: the room is used up.
     * ERROR_NO_MORE_ITEMS: no more packets wait. Another code will come again; what was taken before it is in the
     * lease. NULL: nothing is received. The caller is in a call on the source. */
    DWORD (*receive_many)(tunring_source *source, tunring_lease *lease, uint32_t room);
    /* Writes the packets of a lease to the capture. NULL: they are captured as they are. */
    void (*capture_received)(tunring_source *source, const tunring_lease *lease, tunring_captured *packets);
    /* Makes the read event report that packets are kept, or no longer kept: see tunring_gather(). The
     * caller is in a call on the source, and no other thread in this one. NULL: nothing is received. */
    void (*report_kept)(tunring_source *source, bool kept);
    /* Received slots are no longer used. May be called at any time. */
    void (*give_back)(tunring_source *source, const tunring_slot *slots, uint32_t count);
    /* Reserved slots were given up. May be called at any time. NULL: nothing is reserved. */
    void (*abandon)(tunring_source *source, const tunring_slot *slots, uint32_t count);
    /* Part of the first close, when no call is in flight any more. */
    void (*detach)(tunring_source *source);
    /* The last pin is gone: no slot is out, and the source is closed. May block. */
    void (*end)(tunring_source *source);
    /* Frees the struct: nothing uses it any more. */
    void (*free)(tunring_source *source);
} source_ops;

/* Relaxed counters: each is exact, but a snapshot is not of one instant. */
typedef struct source_counts
{
    TUNRING_SOURCE_COUNTS(TUNRING_ATOMIC_FIELD)
} source_counts;

/* Embedded as the first member of what lends the slots. */
struct tunring_source
{
    const source_ops *ops;
    unsigned generation;             /* of the process that made it */
    bool auto_reset;                 /* the read event is Windows' auto-reset one: see wait_rearm() */
    HANDLE read_event;               /* NULL: nothing is received */
    os_event stop;                   /* set for good by the first close; none if nothing is received */
    life_word life;                  /* calls in flight, and closing */
    _Atomic uint32_t pins;           /* what keeps the memory of slots: the open source itself, and each lease */
    _Atomic uint32_t users;          /* what keeps this struct: the caller, the pins together, and each notifier */
    _Atomic bool removed;            /* a call failed with ERROR_HANDLE_EOF although nobody closed the source */
    _Atomic int64_t spin_budget;     /* nanoseconds, see spin.h */
    _Atomic uint32_t spin_rest;      /* sleeps between two spins */
    _Atomic uint32_t spin_rest_left; /* those that are still to come */
    _Atomic uint32_t brief_rest;     /* brief waits to come that don't sleep */
    os_mutex kept_lock;              /* guards `kept` and `kept_reported`; taken before any other lock */
    tunring_lease *kept;             /* what was gathered, bound to no source; NULL: nothing */
    bool kept_reported;              /* the read event reports it */
    _Atomic uint32_t kept_count;     /* packets of it */
    session_capture capture;
    source_counts counts;
    deferred_job job; /* for closing or ending outside the call */
};

static inline uint64_t
count_read(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static inline void
count_add(_Atomic uint64_t *counter, uint64_t amount)
{
    atomic_fetch_add_explicit(counter, amount, memory_order_relaxed);
}

static inline void
count_sub(_Atomic uint64_t *counter, uint64_t amount)
{
    atomic_fetch_sub_explicit(counter, amount, memory_order_relaxed);
}

/* Opens zeroed memory with one pin and one user, the caller's. False with the last error. */
bool source_open(tunring_source *source, const source_ops *ops);
/* Undoes source_open() before anybody else knows the source; it frees nothing but what source_open() made. */
void source_discard(tunring_source *source);

/* Registers a call. False when the source is closing, or not of this process: then the call must not touch it. */
bool source_enter(tunring_source *source);
void source_leave(tunring_source *source);

static inline bool
source_closing(const tunring_source *source)
{
    return life_closing(&source->life);
}

/* A wait failed: returns why, by the last error. A handle of ours that somebody else has closed ends the source with
 * ERROR_HANDLE_EOF, as nothing can be waited for any more. */
DWORD source_waiting_failed(tunring_source *source);

/* A lease pins its source while its call is in flight, and unpins it when its last slot is let go: afterwards it must
 * not touch the source. */
void source_pin(tunring_source *source);
void source_unpin(tunring_source *source);
/* Takes and gives up one use of the struct. */
void source_use(tunring_source *source);
void source_put(tunring_source *source);

#endif
