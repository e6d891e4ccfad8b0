/* SPDX-License-Identifier: MIT
 *
 * The part of setupapi.dll that wintun.dll needs: lists of devices, of which one kind has ours, and a driver store with
 * one driver.
 */
#define _WIN32_WINNT 0x0A00
/* These functions are defined here, not imported. */
#define _SETUPAPI_
#include "device.h"
#include "fakes.h"
#include "system_state.h"

#include <setupapi.h>
#include <stdlib.h>
#include <wchar.h>

/* Version 0.14 of the driver, as in its INF file. */
#define DRIVER_VERSION ((DWORDLONG)14 << 32)
#define DRIVER_DATE 0x01F00000
/* Where wintun.dll finds its adapters from Windows 10 on. */
#define ENUMERATOR L"SWD\\Wintun"
/* The node of a device that exists only while a driver is sought for it. */
#define NO_DEVICE 1u
/* Of setupapi.h, where they are signed. */
#define NO_SUCH_DEVICE 0xE000020Bu
#define INF_IN_USE_BY_DEVICES 0xE000023Du

typedef struct device_list
{
    bool has_adapters;
} device_list;

static HDEVINFO
make_list(bool has_adapters)
{
    device_list *list = malloc(sizeof(*list));
    if (!list)
    {
        SetLastError(ERROR_NOT_ENOUGH_MEMORY);
        return INVALID_HANDLE_VALUE;
    }
    list->has_adapters = has_adapters;
    return list;
}

FAKE HDEVINFO WINAPI
SetupDiGetClassDevsExW(const GUID *class, PCWSTR enumerator, HWND window, DWORD flags, HDEVINFO list, PCWSTR machine,
                       PVOID reserved)
{
    return make_list(enumerator != NULL && _wcsicmp(enumerator, ENUMERATOR) == 0);
}

FAKE HDEVINFO WINAPI
SetupDiCreateDeviceInfoListExW(const GUID *class, HWND window, PCWSTR machine, PVOID reserved)
{
    return make_list(false);
}

FAKE BOOL WINAPI
SetupDiDestroyDeviceInfoList(HDEVINFO list)
{
    free(list);
    return TRUE;
}

FAKE BOOL WINAPI
SetupDiEnumDeviceInfo(HDEVINFO list, DWORD index, PSP_DEVINFO_DATA info)
{
    devices_enter();
    const device *found = NULL;
    if (((device_list *)list)->has_adapters)
        found = device_at(index);
    if (found)
        info->DevInst = found->number;
    devices_leave();
    if (!found)
        SetLastError(ERROR_NO_MORE_ITEMS);
    return found != NULL;
}

FAKE BOOL WINAPI
SetupDiOpenDeviceInfoW(HDEVINFO list, PCWSTR instance, HWND window, DWORD flags, PSP_DEVINFO_DATA info)
{
    devices_enter();
    const device *found = device_with_instance(instance);
    if (found)
        info->DevInst = found->number;
    devices_leave();
    if (!found)
        SetLastError(NO_SUCH_DEVICE);
    return found != NULL;
}

/* The one property that is asked for is the adapter's name. */
FAKE BOOL WINAPI
SetupDiGetDevicePropertyW(HDEVINFO list, PSP_DEVINFO_DATA info, const DEVPROPKEY *key, DEVPROPTYPE *type, PBYTE buffer,
                          DWORD size, PDWORD needed, DWORD flags)
{
    devices_enter();
    const device *found = device_numbered(info->DevInst);
    DWORD code = ERROR_NOT_FOUND;
    if (found && key->fmtid.Data1 == NAME_PROPERTY)
        code = (wcslen(found->name) + 1) * sizeof(WCHAR) > size ? ERROR_INSUFFICIENT_BUFFER : ERROR_SUCCESS;
    if (code == ERROR_SUCCESS)
    {
        *type = STRING_PROPERTY;
        wcscpy((WCHAR *)(void *)buffer, found->name);
    }
    devices_leave();
    if (code != ERROR_SUCCESS)
        SetLastError(code);
    return code == ERROR_SUCCESS;
}

FAKE BOOL WINAPI
SetupDiSetDevicePropertyW(HDEVINFO list, PSP_DEVINFO_DATA info, const DEVPROPKEY *key, DEVPROPTYPE type,
                          const BYTE *buffer, DWORD size, DWORD flags)
{
    devices_enter();
    device *found = device_numbered(info->DevInst);
    if (found && key->fmtid.Data1 == NAME_PROPERTY)
        lstrcpynW(found->name, (LPCWSTR)(const void *)buffer, DEVICE_NAME_UNITS);
    devices_leave();
    return TRUE;
}

FAKE BOOL WINAPI
SetupDiGetDeviceInstanceIdW(HDEVINFO list, PSP_DEVINFO_DATA info, PWSTR buffer, DWORD units, PDWORD needed)
{
    devices_enter();
    const device *found = device_numbered(info->DevInst);
    if (found)
        lstrcpynW(buffer, found->instance, (int)units);
    devices_leave();
    return found != NULL;
}

FAKE HKEY WINAPI
SetupDiOpenDevRegKey(HDEVINFO list, PSP_DEVINFO_DATA info, DWORD scope, DWORD profile, DWORD type, REGSAM access)
{
    return device_open_key(info->DevInst);
}

FAKE BOOL WINAPI
SetupDiGetDeviceRegistryPropertyW(HDEVINFO list, PSP_DEVINFO_DATA info, DWORD property, PDWORD type, PBYTE buffer,
                                  DWORD size, PDWORD needed)
{
    SetLastError(ERROR_INVALID_DATA);
    return FALSE;
}

FAKE BOOL WINAPI
SetupDiSetDeviceRegistryPropertyW(HDEVINFO list, PSP_DEVINFO_DATA info, DWORD property, const BYTE *buffer, DWORD size)
{
    return TRUE;
}

FAKE BOOL WINAPI
SetupDiCreateDeviceInfoW(HDEVINFO list, PCWSTR name, const GUID *class, PCWSTR description, HWND window, DWORD flags,
                         PSP_DEVINFO_DATA info)
{
    info->DevInst = NO_DEVICE;
    return TRUE;
}

/* ---- The driver store ---- */

FAKE BOOL WINAPI
SetupDiBuildDriverInfoList(HDEVINFO list, PSP_DEVINFO_DATA info, DWORD type)
{
    return TRUE;
}

FAKE BOOL WINAPI
SetupDiDestroyDriverInfoList(HDEVINFO list, PSP_DEVINFO_DATA info, DWORD type)
{
    return TRUE;
}

FAKE BOOL WINAPI
SetupDiEnumDriverInfoW(HDEVINFO list, PSP_DEVINFO_DATA info, DWORD type, DWORD index, PSP_DRVINFO_DATA_W driver)
{
    if (index > 0 || !atomic_load(&standin_system.driver_in_store))
    {
        SetLastError(ERROR_NO_MORE_ITEMS);
        return FALSE;
    }
    driver->DriverVersion = DRIVER_VERSION;
    driver->DriverDate.dwHighDateTime = DRIVER_DATE;
    return TRUE;
}

FAKE BOOL WINAPI
SetupDiGetDriverInfoDetailW(HDEVINFO list, PSP_DEVINFO_DATA info, PSP_DRVINFO_DATA_W driver,
                            PSP_DRVINFO_DETAIL_DATA_W detail, DWORD size, PDWORD needed)
{
    wcscpy(detail->InfFileName, L"C:\\windows\\inf\\oem0.inf");
    return TRUE;
}

FAKE BOOL WINAPI
SetupUninstallOEMInfW(PCWSTR name, DWORD flags, PVOID reserved)
{
    devices_enter();
    bool in_use = device_count() > 0;
    devices_leave();
    if (in_use && !(flags & SUOI_FORCEDELETE))
    {
        SetLastError(INF_IN_USE_BY_DEVICES);
        return FALSE;
    }
    atomic_store(&standin_system.driver_in_store, false);
    atomic_store(&standin_system.driver_loaded, false);
    return TRUE;
}

FAKE BOOL WINAPI
SetupCopyOEMInfW(PCWSTR source, PCWSTR media, DWORD media_type, DWORD style, PWSTR name, DWORD units, PDWORD needed,
                 PWSTR *component)
{
    if (GetFileAttributesW(source) == INVALID_FILE_ATTRIBUTES)
        return FALSE;
    atomic_store(&standin_system.driver_in_store, true);
    return TRUE;
}

/* ---- The class installer ---- */

FAKE BOOL WINAPI
SetupDiSetClassInstallParamsW(HDEVINFO list, PSP_DEVINFO_DATA info, PSP_CLASSINSTALL_HEADER parameters, DWORD size)
{
    return TRUE;
}

FAKE BOOL WINAPI
SetupDiCallClassInstaller(DI_FUNCTION function, HDEVINFO list, PSP_DEVINFO_DATA info)
{
    if (function == DIF_REMOVE)
        device_remove(info->DevInst);
    return TRUE;
}

FAKE BOOL WINAPI
SetupDiGetDeviceInstallParamsW(HDEVINFO list, PSP_DEVINFO_DATA info, PSP_DEVINSTALL_PARAMS_W parameters)
{
    return TRUE;
}

FAKE BOOL WINAPI
SetupDiSetDeviceInstallParamsW(HDEVINFO list, PSP_DEVINFO_DATA info, PSP_DEVINSTALL_PARAMS_W parameters)
{
    return TRUE;
}

FAKE BOOL WINAPI
SetupDiSetSelectedDevice(HDEVINFO list, PSP_DEVINFO_DATA info)
{
    return TRUE;
}

FAKE BOOL WINAPI
SetupDiSetSelectedDriverW(HDEVINFO list, PSP_DEVINFO_DATA info, PSP_DRVINFO_DATA_W driver)
{
    return TRUE;
}
