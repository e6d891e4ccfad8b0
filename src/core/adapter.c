/* SPDX-License-Identifier: MIT
 *
 * Adapters: the library's handle and who still needs it.
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
    atomic_init(&adapter->refs, 1);
    os_mutex_init(&adapter->lock);
    *result = adapter;
    return ERROR_SUCCESS;
}

DWORD
tunring_adapter_create(const tunring_api *api, LPCWSTR name, LPCWSTR tunnel_type, const GUID *guid,
                       tunring_adapter **adapter)
{
    later_run();
    tunring_adapter *made = calloc(1, sizeof(*made));
    if (!made)
        return ERROR_NOT_ENOUGH_MEMORY;
    api_prime_last_error();
    return wrap_handle(api, api->WintunCreateAdapter(name, tunnel_type, guid), made, adapter);
}

DWORD
tunring_adapter_open(const tunring_api *api, LPCWSTR name, tunring_adapter **adapter)
{
    later_run();
    tunring_adapter *made = calloc(1, sizeof(*made));
    if (!made)
        return ERROR_NOT_ENOUGH_MEMORY;
    api_prime_last_error();
    return wrap_handle(api, api->WintunOpenAdapter(name), made, adapter);
}

DWORD
tunring_adapter_adopt(const tunring_api *api, int descriptor, tunring_adapter **adapter)
{
    WINTUN_ADAPTER_HANDLE handle = NULL;
    later_run();
    if (!api->backend || !api->backend->adopt)
        return ERROR_NOT_SUPPORTED;
    tunring_adapter *made = calloc(1, sizeof(*made));
    if (!made)
        return ERROR_NOT_ENOUGH_MEMORY;
    const DWORD code = api->backend->adopt(descriptor, &handle);
    if (code != ERROR_SUCCESS)
        SetLastError(code);
    return wrap_handle(api, handle, made, adapter);
}

WINTUN_ADAPTER_HANDLE
tunring_adapter_handle(const tunring_adapter *adapter)
{
    return adapter->handle;
}

bool
tunring_adapter_forked(const tunring_adapter *adapter)
{
    return adapter->generation != os_generation();
}

uint64_t
tunring_adapter_pinned(const tunring_adapter *adapter)
{
    tunring_adapter *self = (tunring_adapter *)adapter;
    uint64_t pinned = 0;
    if (adapter->generation != os_generation())
        return 0;
    os_mutex_lock(&self->lock);
    if (self->session && source_closing(&self->session->source))
        pinned = atomic_load(&self->session->source.counts.pinned_packets);
    os_mutex_unlock(&self->lock);
    return pinned;
}

/* True when the caller gave up the last reference and has to free the adapter. */
static bool
give_up(tunring_adapter *adapter)
{
    return adapter->generation == os_generation() && atomic_fetch_sub(&adapter->refs, 1) == 1;
}

static void
free_adapter(tunring_adapter *adapter)
{
    adapter->api->WintunCloseAdapter(adapter->handle);
    os_mutex_destroy(&adapter->lock);
    free(adapter);
}

static void
free_later(later_job *job)
{
    tunring_adapter *adapter = (tunring_adapter *)((char *)job - offsetof(tunring_adapter, job));
    if (adapter->generation == os_generation())
        free_adapter(adapter);
}

void
tunring_adapter_close(tunring_adapter *adapter)
{
    later_run();
    if (give_up(adapter))
        free_adapter(adapter);
}

void
tunring_adapter_drop(tunring_adapter *adapter)
{
    if (!give_up(adapter))
        return;
    adapter->job.run = free_later;
    later(&adapter->job);
}

void
adapter_attach_session(tunring_adapter *adapter, tunring_session *session)
{
    atomic_fetch_add(&adapter->refs, 1);
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
    os_mutex_unlock(&adapter->lock);
    if (give_up(adapter))
        free_adapter(adapter);
}
