/* SPDX-License-Identifier: MIT
 *
 * The life of a session. Calls register in `life` before they look whether the session is closing, so that close() can
 * wait for every call that may still touch the library's session. What needs ring memory after that, a lease, has
 * taken a pin while its call was in flight. The last pin ends the library's session.
 */
#include "core/session.h"

#include "core/api.h"
#include "core/backoff.h"

#include <stdlib.h>

static _Atomic uint64_t sessions_leaked;
static _Atomic uint64_t sessions_pinned;

typedef enum older
{
    OLDER_GONE,   /* or it is open, and the library will refuse a second one */
    OLDER_ENDING, /* somebody is about to finish that */
    OLDER_PINNED  /* until its last packet is let go */
} older;

static older
look_at_older(tunring_adapter *adapter)
{
    older state = OLDER_GONE;
    os_mutex_lock(&adapter->lock);
    const tunring_session *session = adapter->session;
    if (session && session_closing(session))
        state = atomic_load(&session->counts.pinned_packets) || atomic_load(&session->counts.reservations)
                    ? OLDER_PINNED
                    : OLDER_ENDING;
    os_mutex_unlock(&adapter->lock);
    return state;
}

static bool
pinned_by_older(tunring_adapter *adapter)
{
    backoff pause = {0};
    older state;
    while ((state = look_at_older(adapter)) == OLDER_ENDING)
    {
        later_run();
        backoff_pause(&pause);
    }
    return state == OLDER_PINNED;
}

DWORD
tunring_session_start(tunring_adapter *adapter, DWORD capacity, tunring_session **result)
{
    if (adapter->generation != os_generation())
        return ERROR_HANDLE_EOF;
    if (pinned_by_older(adapter))
        return ERROR_BUSY;
    DWORD code = ERROR_NOT_ENOUGH_MEMORY;
    tunring_session *session = calloc(1, sizeof(*session));
    if (!session)
        goto failed;
    if (!os_event_open(&session->stop))
    {
        code = GetLastError();
        goto free_session;
    }
    const tunring_api *api = adapter->api;
    api_prime_last_error();
    session->handle = api->WintunStartSession(adapter->handle, capacity);
    if (!session->handle)
    {
        code = api_last_error();
        goto close_stop;
    }
    session->api = api;
    session->adapter = adapter;
    session->read_event = api->WintunGetReadWaitEvent(session->handle);
    session->capacity = capacity;
    session->generation = os_generation();
    atomic_init(&session->pins, 1);
    atomic_init(&session->users, 1);
    os_mutex_init(&session->send_lock);
    os_mutex_init(&session->tap_lock);
    wake_guard_add(session, &session->watch);
    adapter_attach_session(adapter, session);
    *result = session;
    return ERROR_SUCCESS;

close_stop:
    os_event_close(&session->stop);
free_session:
    free(session);
failed:
    return code;
}

bool
session_enter(tunring_session *session)
{
    if (session->generation != os_generation())
        return false;
    /* Registers first and looks second: close() sets the bit first and counts second. */
    if (atomic_fetch_add(&session->life, 1) & SESSION_CLOSING)
    {
        session_leave(session);
        return false;
    }
    return true;
}

void
session_leave(tunring_session *session)
{
    atomic_fetch_sub(&session->life, 1);
}

/* The real driver closes the session's device handle when the adapter goes. The library tells by ERROR_HANDLE_EOF; a
 * packet that the question takes is lost anyway. */
static bool
adapter_is_gone(tunring_session *session)
{
    DWORD size;
    if (atomic_load(&session->removed))
        return true;
    const BYTE *packet = session->api->WintunReceivePacket(session->handle, &size);
    if (!packet)
        return GetLastError() == ERROR_HANDLE_EOF;
    session->api->WintunReleaseReceivePacket(session->handle, packet);
    return false;
}

static void
give_up_adapter(tunring_session *session)
{
    tunring_adapter *adapter = session->adapter;
    session->adapter = NULL;
    if (adapter)
        adapter_detach_session(adapter, session);
}

/* The last pin is gone. May block. */
static void
end_session(tunring_session *session)
{
    if (atomic_load(&session->outlives) || !adapter_is_gone(session))
        session->api->WintunEndSession(session->handle);
    else
        count_add(&sessions_leaked, 1);
    give_up_adapter(session);
    session_put(session);
}

static void
end_later(later_job *job)
{
    tunring_session *session = (tunring_session *)((char *)job - offsetof(tunring_session, job));
    if (session->generation == os_generation())
        end_session(session);
}

void
session_pin(tunring_session *session)
{
    atomic_fetch_add(&session->pins, 1);
    session_use(session);
}

void
session_unpin(tunring_session *session)
{
    if (atomic_fetch_sub(&session->pins, 1) == 1)
    {
        count_sub(&sessions_pinned, 1);
        session->job.run = end_later;
        later(&session->job);
    }
    session_put(session);
}

void
session_use(tunring_session *session)
{
    atomic_fetch_add(&session->users, 1);
}

void
session_put(tunring_session *session)
{
    if (atomic_fetch_sub(&session->users, 1) != 1)
        return;
    os_mutex_destroy(&session->send_lock);
    os_mutex_destroy(&session->tap_lock);
    free(session);
}

/* Waits for the calls in flight: they have been woken, and new ones turn back at the door. */
static void
wait_until_quiet(tunring_session *session)
{
    backoff pause = {0};
    while (atomic_load(&session->life) & ~SESSION_CLOSING)
        backoff_pause(&pause);
}

void
tunring_session_close(tunring_session *session)
{
    if (session->generation != os_generation())
        return;
    later_run();
    bool first = !(atomic_fetch_or(&session->life, SESSION_CLOSING) & SESSION_CLOSING);
    if (first)
        os_event_set(&session->stop);
    wait_until_quiet(session);
    if (!first)
        return;
    wake_guard_remove(&session->watch);
    tunring_session_untap(session);
    const tunring_backend *backend = session->api->backend;
    if (backend)
    {
        backend->counters(session->handle, &session->last_counters);
        atomic_store(&session->has_last_counters, true);
    }
    if (backend && backend->detach(session->handle))
    {
        atomic_store(&session->outlives, true);
        give_up_adapter(session);
    }
    os_event_close(&session->stop);
    /* end_session() gives up a use of its own, the caller's stays until tunring_session_drop(). */
    atomic_fetch_add(&session->users, 1);
    count_add(&sessions_pinned, 1);
    if (atomic_fetch_sub(&session->pins, 1) == 1)
    {
        count_sub(&sessions_pinned, 1);
        end_session(session);
    }
}

static void
drop_later(later_job *job)
{
    tunring_session *session = (tunring_session *)((char *)job - offsetof(tunring_session, job));
    if (session->generation != os_generation())
        return;
    tunring_session_close(session);
    session_put(session);
}

void
tunring_session_drop(tunring_session *session)
{
    if (session->generation != os_generation())
        return;
    if (session_closing(session))
    {
        session_put(session);
        return;
    }
    session->job.run = drop_later;
    later(&session->job);
}

tunring_state
tunring_session_state(const tunring_session *session)
{
    if (session->generation != os_generation())
        return TUNRING_FORKED;
    if (atomic_load(&session->removed))
        return TUNRING_REMOVED;
    return session_closing(session) ? TUNRING_CLOSED : TUNRING_OPEN;
}

DWORD
tunring_session_capacity(const tunring_session *session)
{
    return session->capacity;
}

HANDLE
tunring_session_read_event(const tunring_session *session)
{
    return session->read_event;
}

uint64_t
tunring_sessions_leaked(void)
{
    return atomic_load(&sessions_leaked);
}

uint64_t
tunring_sessions_pinned(void)
{
    return atomic_load(&sessions_pinned);
}
