/* SPDX-License-Identifier: MIT
 *
 * The core's own view of adapters and sessions, shared by its files.
 */
#ifndef TUNRING_SESSION_H
#define TUNRING_SESSION_H

#include "core/later.h"
#include "platform/os.h"
#include "tunring.h"
#include "core/wake_guard.h"

struct tunring_adapter
{
    const tunring_api *api;
    WINTUN_ADAPTER_HANDLE handle;
    unsigned generation;   /* of the process that made it */
    _Atomic uint32_t refs; /* the caller's, and one of each session that needs the adapter to stay */
    os_mutex lock;         /* guards `session`; never held over anything that waits */
    tunring_session *session;
    later_job job; /* for closing later */
};

/* Relaxed counters: each is exact, but a snapshot is not of one instant. */
typedef struct session_counts
{
    _Atomic uint64_t received_packets, received_bytes, received_batches;
    _Atomic uint64_t sent_packets, sent_bytes, sent_batches;
    _Atomic uint64_t waits, wakes, spins, ring_full, dropped, skipped, fillers;
    _Atomic uint64_t pinned_packets, pinned_bytes, reservations;
} session_counts;

struct tunring_session
{
    const tunring_api *api;
    tunring_adapter *adapter; /* NULL once the session no longer needs it */
    WINTUN_SESSION_HANDLE handle;
    HANDLE read_event;
    DWORD capacity;
    unsigned generation;
    os_event stop;                   /* set for good by the first close */
    _Atomic uint32_t life;           /* SESSION_CLOSING and the number of calls in flight */
    _Atomic uint32_t pins;           /* what keeps the library's session: the open session itself, and each lease */
    _Atomic uint32_t users;          /* what keeps this struct: the caller, each lease, and each alarm */
    _Atomic bool removed;            /* a receive said ERROR_HANDLE_EOF */
    _Atomic bool outlives;           /* detached: the library's session may be ended whatever became of the adapter */
    _Atomic int64_t spin_budget;     /* nanoseconds, see spin.h */
    _Atomic uint32_t spin_rest;      /* sleeps between two spins */
    _Atomic uint32_t spin_rest_left; /* those that are still to come */
    os_mutex send_lock;              /* serialises allocate, fill and commit; never held over a wait */
    wake_watch watch;
    _Atomic unsigned tapped; /* directions that the tap wants, see tap.h */
    os_mutex tap_lock;       /* guards the tap; held over its writes */
    tunring_capture *tap;    /* NULL: none */
    uint32_t tap_interface;  /* the tap's number for this session's adapter */
    session_counts counts;
    _Atomic bool has_last_counters; /* the library's counters as they were at the close */
    tunring_counters last_counters;
    later_job job; /* for closing or ending later */
};

#define SESSION_CLOSING 0x80000000u

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

/* Registers a call. False when the session is closing, or not of this process: then the call must not touch it. */
bool session_enter(tunring_session *session);
void session_leave(tunring_session *session);

static inline bool
session_closing(const tunring_session *session)
{
    return (atomic_load_explicit(&session->life, memory_order_relaxed) & SESSION_CLOSING) != 0;
}

/* A lease pins its session while its call is in flight, and unpins it when its last slot is let go. */
void session_pin(tunring_session *session);
void session_unpin(tunring_session *session);
/* Takes and gives up one use of the struct. */
void session_use(tunring_session *session);
void session_put(tunring_session *session);

/* Takes and gives up the reference that an open session has on its adapter. */
void adapter_attach_session(tunring_adapter *adapter, tunring_session *session);
void adapter_detach_session(tunring_adapter *adapter, tunring_session *session);

#endif
