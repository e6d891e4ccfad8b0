/* SPDX-License-Identifier: MIT
 *
 * Handles to devices: events of no other use, whose values nobody else can have while we keep them open. So a handle
 * that was closed by force is recognized when it is closed again.
 */
#include "device_handle.h"

#include <stdlib.h>

typedef struct device_handle
{
    struct device_handle *next;
    HANDLE value;
    device *device;
    bool closed_by_force;
} device_handle;

/* Guarded by the devices' lock. */
static device_handle *handles;
static _Atomic DWORD stale_closes;

static device_handle **
find_handle(HANDLE value)
{
    device_handle **link = &handles;
    while (*link && (*link)->value != value)
        link = &(*link)->next;
    return link;
}

HANDLE
device_open(LPCWSTR path)
{
    device_handle *made = calloc(1, sizeof(*made));
    devices_enter();
    device *opened = device_with_path(path);
    HANDLE value = NULL;
    if (opened && (!opened->present || !made))
    {
        SetLastError(made ? ERROR_FILE_NOT_FOUND : ERROR_NOT_ENOUGH_MEMORY);
        value = INVALID_HANDLE_VALUE;
    }
    else if (opened)
    {
        value = made->value = CreateEventW(NULL, TRUE, FALSE, NULL);
        made->device = opened;
        made->next = handles;
        handles = made;
        made = NULL;
    }
    devices_leave();
    free(made);
    return value;
}

static DWORD
register_rings(device *of, HANDLE owner, const void *input, DWORD size)
{
    if (!of->present)
        return ERROR_FILE_NOT_FOUND;
    if (of->session)
        return ERROR_ALREADY_INITIALIZED;
    if (size != sizeof(registered_rings))
        return ERROR_INVALID_PARAMETER;
    return driver_register(input, owner, of->outgoing, of->incoming, &of->counters, &of->session);
}

bool
device_control(HANDLE handle, DWORD request, const void *input, DWORD size, DWORD *code)
{
    devices_enter();
    device_handle *found = *find_handle(handle);
    if (found)
        *code = found->closed_by_force            ? ERROR_INVALID_HANDLE
                : request == IOCTL_REGISTER_RINGS ? register_rings(found->device, handle, input, size)
                                                  : ERROR_INVALID_FUNCTION;
    devices_leave();
    return found != NULL;
}

void
device_force_close(const device *removed)
{
    for (device_handle *handle = handles; handle; handle = handle->next)
        handle->closed_by_force = handle->closed_by_force || handle->device == removed;
}

void
device_end_session(device *of, HANDLE owner)
{
    /* The second one waits: it may free the rings as soon as it returns. */
    os_mutex_lock(&of->end_lock);
    devices_enter();
    registration *session;
    session = of->session;
    devices_leave();
    if (session && (!owner || session->owner == owner))
    {
        driver_unregister(session);
        devices_enter();
        of->session = NULL;
        devices_leave();
        driver_free(session);
    }
    os_mutex_unlock(&of->end_lock);
}

void
device_forget_handle(HANDLE value)
{
    devices_enter();
    device_handle **link = find_handle(value);
    device_handle *forgotten = *link;
    if (forgotten)
        *link = forgotten->next;
    devices_leave();
    if (!forgotten)
        return;
    if (forgotten->closed_by_force)
        atomic_fetch_add(&stale_closes, 1);
    device_end_session(forgotten->device, value);
    free(forgotten);
}

DWORD
device_stale_closes(void)
{
    return atomic_load(&stale_closes);
}

void
device_settle(void)
{
    devices_enter();
    for (const device_handle *handle = handles; handle; handle = handle->next)
    {
        const registration *session = handle->device->session;
        if (session)
        {
            direction_enter(session->outgoing);
            driver_move(session->outgoing);
            direction_leave(session->outgoing);
        }
    }
    devices_leave();
}

bool
device_wake(HANDLE send_event)
{
    devices_enter();
    direction *outgoing = NULL;
    for (const device_handle *handle = handles; handle && !outgoing; handle = handle->next)
    {
        const registration *session = handle->device->session;
        if (session && session->send_event == send_event && session->outgoing->service == SERVED_BY_CABLE)
            outgoing = session->outgoing;
    }
    devices_leave();
    if (!outgoing)
        return false;
    direction_enter(outgoing);
    driver_move(outgoing);
    direction_leave(outgoing);
    return true;
}
