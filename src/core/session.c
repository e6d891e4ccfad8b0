/* SPDX-License-Identifier: MIT
 *
 * The life of a session: a source over the library's rings, and the adapter that it needs.
 */
#include "core/session.h"

#include "core/api.h"
#include "core/backoff.h"
#include "core/log.h"

#include <stdlib.h>

static _Atomic uint64_t sessions_leaked;

typedef enum older
{
    OLDER_GONE,   /* or it is open, and the library will refuse a second one */
    OLDER_ENDING, /* somebody is about to finish that */
    OLDER_PINNED  /* until its last packet is let go */
} older;

static older
older_state(tunring_adapter *adapter)
{
    os_mutex_lock(&adapter->lock);
    const tunring_session *session = adapter->session;
    older state = OLDER_GONE;
    if (session && source_closing(&session->source))
        state = atomic_load(&session->source.counts.pinned_packets) || atomic_load(&session->source.counts.reservations)
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
    while ((state = older_state(adapter)) == OLDER_ENDING)
    {
        deferred_run();
        backoff_pause(&pause);
    }
    return state == OLDER_PINNED;
}

/* The real driver closes the session's device handle when the adapter goes. The library reports that by
 * ERROR_HANDLE_EOF; a packet that the question takes is lost anyway. */
static bool
adapter_is_gone(tunring_session *session)
{
    if (atomic_load(&session->source.removed))
        return true;
    DWORD size;
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

static void
session_end(tunring_source *source)
{
    tunring_session *session = session_of(source);
    if (atomic_load(&session->outlives) || !adapter_is_gone(session))
        session->api->WintunEndSession(session->handle);
    else
    {
        atomic_store(&session->leaked, true);
        count_add(&sessions_leaked, 1);
    }
    give_up_adapter(session);
}

static void
session_detach(tunring_source *source)
{
    tunring_session *session = session_of(source);
    wake_guard_remove(&session->watch);
    session_capture_stop(&source->capture);
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
}

static void
session_free(tunring_source *source)
{
    tunring_session *session = session_of(source);
    os_mutex_destroy(&session->send_lock);
    free(session);
}

static const source_ops session_ops = {
    .receive_many = session_receive_many,
    .report_kept = session_report_kept,
    .give_back = session_give_back,
    .abandon = session_abandon,
    .detach = session_detach,
    .end = session_end,
    .free = session_free,
};

static WINTUN_SESSION_HANDLE
start_with(const tunring_adapter *adapter, DWORD capacity, const tunring_session_options *options)
{
    const tunring_api *api = adapter->api;
    api_prime_last_error();
    return options && api->backend && api->backend->start_session
               ? api->backend->start_session(adapter->handle, capacity, options)
               : api->WintunStartSession(adapter->handle, capacity);
}

/* The caller is in the adapter's door. */
static DWORD
start_session(tunring_adapter *adapter, DWORD capacity, const tunring_session_options *options,
              tunring_session **result)
{
    if (pinned_by_older(adapter))
        return ERROR_BUSY;
    DWORD code = ERROR_NOT_ENOUGH_MEMORY;
    tunring_session *session = calloc(1, sizeof(*session));
    if (!session)
        goto failed;
    if (!source_open(&session->source, &session_ops))
    {
        code = GetLastError();
        log_remember(os_event_refusal);
        goto free_session;
    }
    const tunring_api *api = adapter->api;
    session->handle = start_with(adapter, capacity, options);
    if (!session->handle)
    {
        code = api_last_error();
        goto discard_source;
    }
    session->api = api;
    session->adapter = adapter;
    session->source.read_event = api->WintunGetReadWaitEvent(session->handle);
    /* Our own libraries' events are level-triggered. */
    session->source.auto_reset = !api->backend;
    session->capacity = capacity;
    os_mutex_init(&session->send_lock);
    wake_guard_add(session, &session->watch);
    adapter_attach_session(adapter, session);
    *result = session;
    return ERROR_SUCCESS;

discard_source:
    source_discard(&session->source);
free_session:
    free(session);
failed:
    return code;
}

DWORD
tunring_session_start(tunring_adapter *adapter, DWORD capacity, const tunring_session_options *options,
                      tunring_session **result)
{
    if (tunring_adapter_forked(adapter))
        return ERROR_HANDLE_EOF;
    if (!life_enter(&adapter->door))
        return ERROR_INVALID_HANDLE;
    const DWORD code = start_session(adapter, capacity, options, result);
    life_leave(&adapter->door);
    return code;
}

tunring_source *
tunring_session_source(tunring_session *session)
{
    return &session->source;
}

DWORD
tunring_session_capacity(const tunring_session *session)
{
    return session->capacity;
}

bool
tunring_session_leaked(const tunring_session *session)
{
    return atomic_load(&session->leaked);
}

uint64_t
tunring_sessions_leaked(void)
{
    return atomic_load(&sessions_leaked);
}
