/* SPDX-License-Identifier: MIT
 *
 * Adapters: the library's handle and its uses. A call that uses the handle registers in `door` or `life`, as
 * a session's calls do, and uses beyond a call have a pin. The last pin closes the library's adapter.
 */
#include "core/session.h"

#include "core/api.h"

#include <stdlib.h>

static DWORD
wrap_handle(const tunring_api *api, WINTUN_ADAPTER_HANDLE handle, tunring_adapter *adapter, tunring_adapter **result)
{
    if (!handle)
    {
        DWORD code = api_last_error();
        free(adapter);
        return code;
    }
    adapter->api = api;
    adapter->handle = handle;
    adapter->generation = os_generation();
    atomic_init(&adapter->pins, 1);
    atomic_init(&adapter->users, 2);
    os_mutex_init(&adapter->lock);
    *result = adapter;
    return ERROR_SUCCESS;
}

DWORD
tunring_adapter_create(const tunring_api *api, LPCWSTR name, LPCWSTR tunnel_type, const GUID *guid,
                       const tunring_adapter_options *options, tunring_adapter **adapter)
{
    deferred_run();
    tunring_adapter *made = calloc(1, sizeof(*made));
    if (!made)
        return ERROR_NOT_ENOUGH_MEMORY;
    api_prime_last_error();
    const WINTUN_ADAPTER_HANDLE handle = options && api->backend && api->backend->create_adapter
                                             ? api->backend->create_adapter(name, tunnel_type, guid, options)
                                             : api->WintunCreateAdapter(name, tunnel_type, guid);
    return wrap_handle(api, handle, made, adapter);
}

DWORD
tunring_adapter_open(const tunring_api *api, LPCWSTR name, tunring_adapter **adapter)
{
    deferred_run();
    tunring_adapter *made = calloc(1, sizeof(*made));
    if (!made)
        return ERROR_NOT_ENOUGH_MEMORY;
    api_prime_last_error();
    return wrap_handle(api, api->WintunOpenAdapter(name), made, adapter);
}

DWORD
tunring_adapter_adopt(const tunring_api *api, int descriptor, tunring_adapter **adapter)
{
    deferred_run();
    if (!api->backend || !api->backend->adopt)
        return ERROR_NOT_SUPPORTED;
    tunring_adapter *made = calloc(1, sizeof(*made));
    if (!made)
        return ERROR_NOT_ENOUGH_MEMORY;
    WINTUN_ADAPTER_HANDLE handle = NULL;
    const DWORD code = api->backend->adopt(descriptor, &handle);
    if (code != ERROR_SUCCESS)
        SetLastError(code);
    return wrap_handle(api, handle, made, adapter);
}

int
tunring_adapter_system_error(const tunring_api *api)
{
    return api->backend && api->backend->system_error ? api->backend->system_error() : 0;
}

bool
adapter_enter(tunring_adapter *adapter)
{
    return !OS_FOREIGN(adapter) && life_enter(&adapter->life);
}

void
adapter_leave(tunring_adapter *adapter)
{
    life_leave(&adapter->life);
}

/* ---- Questions ---- */

DWORD
tunring_adapter_luid(tunring_adapter *adapter, NET_LUID *luid)
{
    if (!adapter_enter(adapter))
        return ERROR_INVALID_HANDLE;
    adapter->api->WintunGetAdapterLUID(adapter->handle, luid);
    adapter_leave(adapter);
    return ERROR_SUCCESS;
}

DWORD
tunring_adapter_name(tunring_adapter *adapter, char *name, DWORD size)
{
    const tunring_backend *backend = adapter->api->backend;
    if (!adapter_enter(adapter))
        return ERROR_INVALID_HANDLE;
    const DWORD code = backend ? backend->adapter_name(adapter->handle, name, size) : ERROR_NOT_SUPPORTED;
    adapter_leave(adapter);
    return code;
}

DWORD
tunring_adapter_index(tunring_adapter *adapter, DWORD *index)
{
    const tunring_backend *backend = adapter->api->backend;
    if (!adapter_enter(adapter))
        return ERROR_INVALID_HANDLE;
    const DWORD code = backend ? backend->adapter_index(adapter->handle, index) : ERROR_NOT_SUPPORTED;
    adapter_leave(adapter);
    return code;
}

DWORD
tunring_adapter_namespace(tunring_adapter *adapter, int *descriptor)
{
    const tunring_backend *backend = adapter->api->backend;
    if (!adapter_enter(adapter))
        return ERROR_INVALID_HANDLE;
    *descriptor = backend ? backend->adapter_namespace(adapter->handle) : -1;
    adapter_leave(adapter);
    return ERROR_SUCCESS;
}

DWORD
tunring_adapter_descriptor(tunring_adapter *adapter, bool leave, int *descriptor)
{
    const tunring_backend *backend = adapter->api->backend;
    if (!adapter_enter(adapter))
        return ERROR_INVALID_HANDLE;
    const DWORD code = backend && backend->adapter_descriptor
                           ? backend->adapter_descriptor(adapter->handle, leave, descriptor)
                           : ERROR_NOT_SUPPORTED;
    adapter_leave(adapter);
    return code;
}

bool
tunring_adapter_shared(tunring_adapter *adapter)
{
    const tunring_backend *backend = adapter->api->backend;
    if (!adapter_enter(adapter))
        return false;
    const bool shared = backend && backend->adapter_shared && backend->adapter_shared(adapter->handle);
    adapter_leave(adapter);
    return shared;
}

bool
tunring_adapter_forked(const tunring_adapter *adapter)
{
    return OS_FOREIGN(adapter);
}

bool
tunring_adapter_is_shut(const tunring_adapter *adapter)
{
    return life_closing(&adapter->door);
}

uint64_t
tunring_adapter_pinned(const tunring_adapter *adapter)
{
    tunring_adapter *self = (tunring_adapter *)adapter;
    if (OS_FOREIGN(adapter))
        return 0;
    os_mutex_lock(&self->lock);
    uint64_t pinned = 0;
    if (self->session && source_closing(&self->session->source))
        pinned = atomic_load(&self->session->source.counts.pinned_packets);
    os_mutex_unlock(&self->lock);
    return pinned;
}

/* ---- The end ---- */

static void
put(tunring_adapter *adapter)
{
    if (atomic_fetch_sub(&adapter->users, 1) != 1)
        return;
    os_mutex_destroy(&adapter->lock);
    free(adapter);
}

/* The last pin is gone. May block. */
static void
end_adapter(tunring_adapter *adapter)
{
    adapter->api->WintunCloseAdapter(adapter->handle);
    put(adapter);
}

static void
end_deferred(deferred_job *job)
{
    tunring_adapter *adapter = DEFERRED_OWNER(tunring_adapter, job);
    if (!OS_FOREIGN(adapter))
        end_adapter(adapter);
}

/* True when the caller gave up the last pin and has to end the adapter. */
static bool
unpin(tunring_adapter *adapter)
{
    return atomic_fetch_sub(&adapter->pins, 1) == 1;
}

void
tunring_adapter_shut(tunring_adapter *adapter)
{
    if (OS_FOREIGN(adapter))
        return;
    (void)life_shut(&adapter->door);
    life_await_calls(&adapter->door);
}

/* Closes the session that the adapter has, which the lock and then a use of ours keep. */
static void
close_session(tunring_adapter *adapter)
{
    os_mutex_lock(&adapter->lock);
    tunring_session *session = adapter->session;
    if (session)
        source_use(&session->source);
    os_mutex_unlock(&adapter->lock);
    if (!session)
        return;
    tunring_source_close(&session->source);
    source_put(&session->source);
}

void
tunring_adapter_close(tunring_adapter *adapter)
{
    if (OS_FOREIGN(adapter))
        return;
    deferred_run();
    tunring_adapter_shut(adapter);
    close_session(adapter);
    if (!life_shut(&adapter->life))
    {
        life_await_end(&adapter->life);
        return;
    }
    life_await_calls(&adapter->life);
    if (unpin(adapter))
        end_adapter(adapter);
    life_end(&adapter->life);
}

static void
drop_deferred(deferred_job *job)
{
    tunring_adapter *adapter = DEFERRED_OWNER(tunring_adapter, job);
    if (OS_FOREIGN(adapter))
        return;
    tunring_adapter_close(adapter);
    put(adapter);
}

void
tunring_adapter_drop(tunring_adapter *adapter)
{
    if (OS_FOREIGN(adapter))
        return;
    if (life_closing(&adapter->life))
    {
        put(adapter);
        return;
    }
    adapter->job.run = drop_deferred;
    defer(&adapter->job);
}

/* ---- Pins ---- */

DWORD
tunring_adapter_lend(tunring_adapter *adapter, WINTUN_ADAPTER_HANDLE *handle)
{
    if (!adapter_enter(adapter))
        return ERROR_INVALID_HANDLE;
    atomic_fetch_add(&adapter->pins, 1);
    adapter_leave(adapter);
    *handle = adapter->handle;
    return ERROR_SUCCESS;
}

void
tunring_adapter_give_back(tunring_adapter *adapter)
{
    if (OS_FOREIGN(adapter) || !unpin(adapter))
        return;
    adapter->job.run = end_deferred;
    defer(&adapter->job);
}

void
adapter_attach_session(tunring_adapter *adapter, tunring_session *session)
{
    atomic_fetch_add(&adapter->pins, 1);
    os_mutex_lock(&adapter->lock);
    adapter->session = session;
    os_mutex_unlock(&adapter->lock);
}

void
adapter_detach_session(tunring_adapter *adapter, tunring_session *session)
{
    os_mutex_lock(&adapter->lock);
    if (adapter->session == session)
        adapter->session = NULL;
    /* With the lock, so that a close which finds no session finds no pin of one either. */
    const bool last = unpin(adapter);
    os_mutex_unlock(&adapter->lock);
    if (last)
        end_adapter(adapter);
}
