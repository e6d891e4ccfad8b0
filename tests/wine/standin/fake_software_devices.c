/* SPDX-License-Identifier: MIT
 *
 * The parts that wintun.dll needs of the modules by which software devices are made, looked for, named, and asked for
 * their version. Wine has only version.dll of these modules.
 */
#include "device.h"
#include "fakes.h"
#include "system_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

/* ---- api-ms-win-devices-swdevice ---- */

typedef struct software_device
{
    ULONG size;
    PCWSTR id, hardware_ids, compatible_ids;
    const GUID *container;
    ULONG capabilities;
    PCWSTR description, location;
    void *security;
} software_device;

typedef struct device_property
{
    GUID format;
    ULONG number, store;
    PCWSTR locale;
    ULONG type, size;
    void *buffer;
} device_property;

typedef void(WINAPI *created_callback)(void *device, HRESULT result, void *context, PCWSTR instance);

typedef struct created_call
{
    created_callback callback;
    void *device, *context;
    WCHAR instance[DEVICE_ID_UNITS];
} created_call;

/* The handle of a device that exists only so that the driver is installed. Others' are their numbers. */
#define INSTALLER_DEVICE ((void *)1)

static DWORD WINAPI
say_created(void *argument)
{
    created_call *call = argument;
    call->callback(call->device, S_OK, call->context, call->instance);
    free(call);
    return 0;
}

/* The name among the properties, which only an adapter has. */
static LPCWSTR
find_name(ULONG count, const device_property *properties)
{
    LPCWSTR name = NULL;
    for (ULONG i = 0; i < count; i++)
        if (properties[i].format.Data1 == NAME_PROPERTY)
            name = properties[i].buffer;
    return name;
}

FAKE HRESULT WINAPI
SwDeviceCreate(PCWSTR enumerator, PCWSTR parent, const software_device *wanted, ULONG count,
               const device_property *properties, created_callback callback, void *context, void **result)
{
    LPCWSTR name = find_name(count, properties);
    created_call *call = calloc(1, sizeof(*call));
    DWORD number = 0, code = ERROR_SUCCESS;
    if (!call)
        return HRESULT_FROM_WIN32(ERROR_NOT_ENOUGH_MEMORY);
    swprintf(call->instance, DEVICE_ID_UNITS, L"SWD\\%ls\\%ls", enumerator, wanted->id);
    if (name)
        code = device_create(call->instance, wanted->id, name, &number);
    if (code != ERROR_SUCCESS)
    {
        free(call);
        return HRESULT_FROM_WIN32(code);
    }
    atomic_store(&standin_system.driver_loaded, true);
    *result = name ? (void *)(uintptr_t)number : INSTALLER_DEVICE;
    call->callback = callback;
    call->device = *result;
    call->context = context;
    /* The system reports on a thread of its own. */
    HANDLE thread = CreateThread(NULL, 0, say_created, call, 0, NULL);
    if (!thread)
    {
        say_created(call);
        return S_OK;
    }
    CloseHandle(thread);
    return S_OK;
}

FAKE void WINAPI
SwDeviceClose(void *handle)
{
    device_remove((DWORD)(uintptr_t)handle);
}

/* ---- api-ms-win-devices-query ---- */

typedef void(WINAPI *query_callback)(void *query, void *context, const void *action);

/* Every device that is asked for is there at once. */
FAKE HRESULT WINAPI
DevCreateObjectQuery(ULONG type, ULONG flags, ULONG wanted_count, const void *wanted, ULONG filter_count,
                     const void *filter, query_callback callback, void *context, void **query)
{
    static const ULONG completed[16] = {1};
    *query = (void *)completed;
    callback(*query, context, completed);
    return S_OK;
}

FAKE void WINAPI
DevCloseObjectQuery(void *query)
{
}

/* ---- nci.dll ---- */

FAKE DWORD WINAPI
NciSetConnectionName(const GUID *guid, LPCWSTR name)
{
    devices_enter();
    device *named = device_with_guid(guid);
    DWORD code = ERROR_SUCCESS;
    for (DWORD i = 0; i < device_count(); i++)
    {
        const device *other = device_at(i);
        if (other != named && _wcsicmp(other->name, name) == 0)
            code = ERROR_DUP_NAME;
    }
    if (code == ERROR_SUCCESS && named)
        lstrcpynW(named->name, name, DEVICE_NAME_UNITS);
    devices_leave();
    return code;
}

/* ---- version.dll ---- */

FAKE DWORD WINAPI
GetFileVersionInfoSizeW(LPCWSTR file, LPDWORD ignored)
{
    return sizeof(VS_FIXEDFILEINFO);
}

FAKE BOOL WINAPI
GetFileVersionInfoW(LPCWSTR file, DWORD ignored, DWORD size, LPVOID block)
{
    VS_FIXEDFILEINFO *info = block;
    memset(info, 0, sizeof(*info));
    info->dwFileVersionMS = 14; /* 0.14 */
    return TRUE;
}

FAKE BOOL WINAPI
VerQueryValueW(LPCVOID block, LPCWSTR path, LPVOID *value, PUINT size)
{
    *value = (void *)(uintptr_t)block;
    *size = sizeof(VS_FIXEDFILEINFO);
    return TRUE;
}
