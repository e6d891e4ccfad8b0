/* SPDX-License-Identifier: MIT
 *
 * The registry of loopback adapters, and the life of adapters and sessions.
 */
#include "backends/loopback/loopback.h"

#include "platform/utf16.h"

#include <stdlib.h>
#include <string.h>

static os_mutex lock = OS_MUTEX_INIT;
static loopback_adapter *adapters;
static WINTUN_SESSION_HANDLE stale_sessions;
static uint32_t last_index;
static bool fork_is_handled;
static _Atomic DWORD stale_ends;

/* The parent's threads may have held the lock, and its adapters are the parent's. Assignments only: nothing else may
 * be done here. */
static void
forget_everything(void)
{
    static const os_mutex fresh = OS_MUTEX_INIT;
    lock = fresh;
    adapters = NULL;
    stale_sessions = NULL;
}

void
registry_enter(void)
{
    os_mutex_lock(&lock);
}

void
registry_leave(void)
{
    os_mutex_unlock(&lock);
}

/* ---- Adapters ---- */

static void
drop_adapter(loopback_adapter *adapter)
{
    if (--adapter->references == 0)
    {
        cable_direction_drop(adapter->outgoing);
        cable_direction_drop(adapter->incoming);
        free(adapter);
    }
}

static loopback_adapter *
find_by_name(LPCWSTR name)
{
    loopback_adapter *adapter = adapters;
    while (adapter && !utf16_equal_nocase(adapter->name, name))
        adapter = adapter->next;
    return adapter;
}

/* Finds the other end of the cable. False if both ends are taken. */
static bool
find_peer(const loopback_adapter *self, loopback_adapter **peer)
{
    *peer = NULL;
    for (loopback_adapter *other = adapters; self->has_guid && other; other = other->next)
    {
        if (!other->has_guid || other->simulated || memcmp(&other->guid, &self->guid, sizeof(GUID)) != 0)
            continue;
        if (*peer)
            return false;
        *peer = other;
    }
    return true;
}

/* Takes the free end of the peer's cable, or makes a new cable. */
static DWORD
plug_into(loopback_adapter *self, const loopback_adapter *peer)
{
    if (peer)
    {
        self->outgoing = cable_direction_hold(peer->incoming);
        self->incoming = cable_direction_hold(peer->outgoing);
        return ERROR_SUCCESS;
    }
    self->outgoing = cable_direction_new(false);
    self->incoming = cable_direction_new(false);
    return !self->outgoing || !self->incoming ? ERROR_NOT_ENOUGH_MEMORY : ERROR_SUCCESS;
}

static DWORD
enter_registry(loopback_adapter *self)
{
    loopback_adapter *peer;
    if (find_by_name(self->name) || !find_peer(self, &peer))
        return ERROR_ALREADY_EXISTS;
    DWORD code = plug_into(self, peer);
    if (code != ERROR_SUCCESS)
        return code;
    if (!fork_is_handled)
    {
        os_after_fork_in_child(forget_everything);
        fork_is_handled = true;
    }
    self->index = ++last_index & 0xFFFFFF;
    self->present = true;
    self->next = adapters;
    adapters = self;
    return ERROR_SUCCESS;
}

DWORD
loopback_create(LPCWSTR name, const GUID *guid, WINTUN_ADAPTER_HANDLE *result)
{
    loopback_adapter *adapter = calloc(1, sizeof(*adapter));
    WINTUN_ADAPTER_HANDLE handle = calloc(1, sizeof(*handle));
    DWORD code = ERROR_NOT_ENOUGH_MEMORY;
    if (!adapter || !handle)
    {
        free(adapter);
        goto cleanup;
    }
    memcpy(adapter->name, name, (utf16_length(name, LOOPBACK_NAME_UNITS) + 1) * sizeof(WCHAR));
    if (guid)
    {
        adapter->has_guid = true;
        adapter->guid = *guid;
    }
    adapter->references = 1;
    registry_enter();
    code = enter_registry(adapter);
    if (code != ERROR_SUCCESS)
        drop_adapter(adapter);
    registry_leave();

cleanup:
    if (code != ERROR_SUCCESS)
    {
        free(handle);
        return code;
    }
    handle->adapter = adapter;
    handle->creator = true;
    *result = handle;
    return ERROR_SUCCESS;
}

DWORD
loopback_open(LPCWSTR name, WINTUN_ADAPTER_HANDLE *result)
{
    WINTUN_ADAPTER_HANDLE handle = calloc(1, sizeof(*handle));
    if (!handle)
        return ERROR_NOT_ENOUGH_MEMORY;
    registry_enter();
    handle->adapter = find_by_name(name);
    if (handle->adapter)
        handle->adapter->references++;
    registry_leave();
    if (!handle->adapter)
    {
        free(handle);
        return ERROR_NOT_FOUND;
    }
    *result = handle;
    return ERROR_SUCCESS;
}

static void
keep_stale(WINTUN_SESSION_HANDLE session)
{
    session->stale = true;
    session->next = stale_sessions;
    if (stale_sessions)
        stale_sessions->previous = session;
    stale_sessions = session;
}

void
loopback_remove(loopback_adapter *adapter)
{
    WINTUN_SESSION_HANDLE session = adapter->session;
    for (loopback_adapter **link = &adapters; *link; link = &(*link)->next)
    {
        if (*link == adapter)
        {
            *link = adapter->next;
            break;
        }
    }
    adapter->present = false;
    adapter->session = NULL;
    if (session)
    {
        cable_unplug(&session->end);
        if (adapter->simulated)
            keep_stale(session);
    }
}

void
loopback_close(WINTUN_ADAPTER_HANDLE handle)
{
    registry_enter();
    if (handle->creator && handle->adapter->present)
        loopback_remove(handle->adapter);
    drop_adapter(handle->adapter);
    registry_leave();
    free(handle);
}

bool
loopback_any_adapter(void)
{
    registry_enter();
    bool any = adapters != NULL;
    registry_leave();
    return any;
}

/* ---- Sessions ---- */

DWORD
loopback_start(loopback_adapter *adapter, DWORD capacity, WINTUN_SESSION_HANDLE *result)
{
    WINTUN_SESSION_HANDLE session = NULL;
    registry_enter();
    DWORD code = !adapter->present  ? ERROR_FILE_NOT_FOUND
                 : adapter->session ? ERROR_ALREADY_INITIALIZED
                                    : ERROR_SUCCESS;
    if (code != ERROR_SUCCESS)
        goto cleanup;
    session = calloc(1, sizeof(*session));
    code = !session ? ERROR_NOT_ENOUGH_MEMORY
                    : cable_end_open(&session->end, capacity, adapter->outgoing, adapter->incoming);
    if (code != ERROR_SUCCESS)
    {
        free(session);
        goto cleanup;
    }
    session->adapter = adapter;
    adapter->references++;
    adapter->session = session;
    cable_plug(&session->end);
    *result = session;

cleanup:
    registry_leave();
    return code;
}

static void
unplug(WINTUN_SESSION_HANDLE session)
{
    if (session->adapter->session == session)
    {
        session->adapter->session = NULL;
        cable_unplug(&session->end);
    }
}

bool
loopback_detach(WINTUN_SESSION_HANDLE session)
{
    registry_enter();
    bool detached = !session->adapter->simulated;
    if (detached)
    {
        unplug(session);
        cable_end_close_event(&session->end);
    }
    registry_leave();
    return detached;
}

static void
forget_stale(WINTUN_SESSION_HANDLE session)
{
    if (session->previous)
        session->previous->next = session->next;
    else
        stale_sessions = session->next;
    if (session->next)
        session->next->previous = session->previous;
    atomic_fetch_add(&stale_ends, 1);
}

void
loopback_end(WINTUN_SESSION_HANDLE session)
{
    registry_enter();
    unplug(session);
    if (session->stale)
        forget_stale(session);
    drop_adapter(session->adapter);
    registry_leave();
    cable_end_close(&session->end);
    free(session);
}

DWORD
loopback_stale_ends(void)
{
    return atomic_load(&stale_ends);
}
