/* SPDX-License-Identifier: MIT
 *
 * The core's own view of adapters and sessions, shared by its files.
 */
#ifndef TUNRING_SESSION_H
#define TUNRING_SESSION_H

#include "core/deferred.h"
#include "core/life.h"
#include "core/source.h"
#include "platform/os.h"
#include "tunring.h"
#include "core/wake_guard.h"

struct tunring_adapter
{
    const tunring_api *api;
    WINTUN_ADAPTER_HANDLE handle;
    unsigned generation;    /* of the process that made it */
    life_word door;         /* sessions that are starting; closing shuts it first */
    life_word life;         /* other calls that use `handle`: they go on until the configuration is undone */
    _Atomic uint32_t pins;  /* keep the library's adapter: one while it is open, one of each loan and of each session
                               that needs it */
    _Atomic uint32_t users; /* keep this struct: the caller, and the pins together */
    os_mutex lock;          /* guards `session`; never held over anything that waits */
    tunring_session *session;
    deferred_job job; /* for closing or ending outside the call */
};

struct tunring_session
{
    tunring_source source; /* first: one address leads to both */
    const tunring_api *api;
    tunring_adapter *adapter; /* NULL once the session no longer needs it */
    WINTUN_SESSION_HANDLE handle;
    DWORD capacity;
    _Atomic bool outlives; /* detached: the library's session may be ended whatever became of the adapter */
    _Atomic bool leaked;   /* the library's session is never ended */
    os_mutex send_lock;    /* serialises allocate, fill and commit; never held over a wait */
    wake_watch watch;
    _Atomic bool has_last_counters; /* the library's counters as they were at the close */
    tunring_counters last_counters;
};

static inline tunring_session *
session_of(tunring_source *source)
{
    return (tunring_session *)source;
}

/* A session's operations as a source, on the library's rings: core/session_ring.c. */
DWORD session_receive_many(tunring_source *source, tunring_lease *lease, uint32_t room);
void session_report_kept(tunring_source *source, bool kept);
void session_give_back(tunring_source *source, const tunring_slot *slots, uint32_t count);
void session_abandon(tunring_source *source, const tunring_slot *slots, uint32_t count);

/* Registers a call on the adapter. False when it is closed, or not of this process: then the call must not touch it. */
bool adapter_enter(tunring_adapter *adapter);
void adapter_leave(tunring_adapter *adapter);

/* Takes and gives up the pin that a session has on its adapter. The former is a part of a call on the adapter; the
 * latter may block. */
void adapter_attach_session(tunring_adapter *adapter, tunring_session *session);
void adapter_detach_session(tunring_adapter *adapter, tunring_session *session);

#endif
