/* SPDX-License-Identifier: MIT
 *
 * device.h: the list of devices.
 */
#include "device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "device_handle.h"

/* Indices of real adapters stay below. */
#define FIRST_NUMBER 0x8000u
/* IANA's type of an interface that is none of the others. */
#define INTERFACE_TYPE 53u

static os_mutex lock = OS_MUTEX_INIT;
static device *devices; /* newest first */
static DWORD last_number = FIRST_NUMBER - 1;

void
devices_enter(void)
{
    os_mutex_lock(&lock);
}

void
devices_leave(void)
{
    os_mutex_unlock(&lock);
}

device *
device_numbered(DWORD number)
{
    device *found = devices;
    while (found && found->number != number)
        found = found->next;
    return found;
}

device *
device_with_instance(LPCWSTR instance)
{
    device *found = devices;
    while (found && (!found->present || _wcsicmp(found->instance, instance) != 0))
        found = found->next;
    return found;
}

device *
device_with_guid(const GUID *guid)
{
    device *found = devices;
    while (found && (!found->present || memcmp(&found->guid, guid, sizeof(*guid)) != 0))
        found = found->next;
    return found;
}

device *
device_with_path(LPCWSTR path)
{
    device *found = devices;
    while (found && _wcsicmp(found->path, path) != 0)
        found = found->next;
    return found;
}

device *
device_at(DWORD index)
{
    for (device *found = devices; found; found = found->next)
        if (found->present && index-- == 0)
            return found;
    return NULL;
}

DWORD
device_count(void)
{
    DWORD count = 0;
    for (device *found = devices; found; found = found->next)
        count += found->present;
    return count;
}

static bool
parse_guid(LPCWSTR text, GUID *guid)
{
    unsigned first, second, third, rest[8];
    if (swscanf(text, L"{%8x-%4x-%4x-%2x%2x-%2x%2x%2x%2x%2x%2x}", &first, &second, &third, &rest[0], &rest[1], &rest[2],
                &rest[3], &rest[4], &rest[5], &rest[6], &rest[7]) != 11)
        return false;
    guid->Data1 = first;
    guid->Data2 = (WORD)second;
    guid->Data3 = (WORD)third;
    for (int i = 0; i < 8; i++)
        guid->Data4[i] = (BYTE)rest[i];
    return true;
}

static void
free_device(device *made)
{
    free(made->outgoing);
    free(made->incoming);
    free(made);
}

DWORD
device_create(LPCWSTR instance, LPCWSTR id, LPCWSTR name, DWORD *number)
{
    device *made = calloc(1, sizeof(*made));
    DWORD code = ERROR_NOT_ENOUGH_MEMORY;
    if (!made)
        return code;
    made->outgoing = direction_new(SERVED_BY_DRIVER);
    made->incoming = direction_new(SERVED_BY_DRIVER);
    devices_enter();
    if (!made->outgoing || !made->incoming)
        goto cleanup;
    code = device_with_instance(instance) ? ERROR_ALREADY_EXISTS
           : !parse_guid(id, &made->guid) ? ERROR_INVALID_PARAMETER
                                          : ERROR_SUCCESS;
    if (code != ERROR_SUCCESS)
        goto cleanup;
    os_mutex_init(&made->end_lock);
    made->number = *number = ++last_number;
    lstrcpynW(made->instance, instance, DEVICE_ID_UNITS);
    lstrcpynW(made->name, name, DEVICE_NAME_UNITS);
    swprintf(made->path, DEVICE_PATH_UNITS, L"\\\\?\\STANDIN#WINTUN#%lu", made->number);
    made->present = true;
    made->next = devices;
    devices = made;

cleanup:
    devices_leave();
    if (code != ERROR_SUCCESS)
        free_device(made);
    return code;
}

/* Of this process: others have devices with the same numbers. */
static void
key_path(DWORD number, WCHAR *path, size_t units)
{
    swprintf(path, units, L"Software\\Tunring Stand-in\\%lu-%lu", GetCurrentProcessId(), number);
}

bool
device_remove(DWORD number)
{
    devices_enter();
    device *removed = device_numbered(number);
    bool was_present = removed && removed->present;
    if (was_present)
    {
        removed->present = false;
        device_force_close(removed);
    }
    devices_leave();
    WCHAR path[DEVICE_PATH_UNITS];
    if (was_present)
    {
        device_end_session(removed, NULL);
        key_path(number, path, DEVICE_PATH_UNITS);
        RegDeleteKeyW(HKEY_CURRENT_USER, path);
    }
    return was_present;
}

static void
set_number(HKEY key, LPCWSTR name, DWORD value)
{
    RegSetValueExW(key, name, 0, REG_DWORD, (const BYTE *)&value, sizeof(value));
}

static void
describe(HKEY key, const device *described)
{
    const GUID *guid = &described->guid;
    const BYTE *rest = guid->Data4;
    WCHAR text[39];
    swprintf(text, 39, L"{%08lX-%04X-%04X-%02X%02X-%02X%02X%02X%02X%02X%02X}", guid->Data1, guid->Data2, guid->Data3,
             rest[0], rest[1], rest[2], rest[3], rest[4], rest[5], rest[6], rest[7]);
    RegSetValueExW(key, L"NetCfgInstanceId", 0, REG_SZ, (const BYTE *)text, sizeof(text));
    set_number(key, L"NetLuidIndex", described->number);
    set_number(key, L"*IfType", INTERFACE_TYPE);
}

HKEY
device_open_key(DWORD number)
{
    WCHAR path[DEVICE_PATH_UNITS];
    key_path(number, path, DEVICE_PATH_UNITS);
    HKEY key;
    if (RegCreateKeyExW(HKEY_CURRENT_USER, path, 0, NULL, REG_OPTION_VOLATILE, KEY_ALL_ACCESS, NULL, &key, NULL) != 0)
        return INVALID_HANDLE_VALUE;
    devices_enter();
    const device *described = device_numbered(number);
    if (described)
        describe(key, described);
    devices_leave();
    return key;
}
