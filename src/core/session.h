/* SPDX-License-Identifier: MIT
 *
 * The core's own view of adapters and sessions, shared by its files.
 */
#ifndef TUNRING_SESSION_H
#define TUNRING_SESSION_H

#include "core/later.h"
#include "core/source.h"
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

struct tunring_session
{
    tunring_source source; /* first: one address leads to both */
    const tunring_api *api;
    tunring_adapter *adapter; /* NULL once the session no longer needs it */
    WINTUN_SESSION_HANDLE handle;
    DWORD capacity;
    _Atomic bool outlives; /* detached: the library's session may be ended whatever became of the adapter */
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
void session_give_back(tunring_source *source, const tunring_slot *slots, uint32_t count);
void session_abandon(tunring_source *source, const tunring_slot *slots, uint32_t count);

/* Takes and gives up the reference that an open session has on its adapter. */
void adapter_attach_session(tunring_adapter *adapter, tunring_session *session);
void adapter_detach_session(tunring_adapter *adapter, tunring_session *session);

#endif
