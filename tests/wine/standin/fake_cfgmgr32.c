/* SPDX-License-Identifier: MIT
 *
 * The part of cfgmgr32.dll that wintun.dll needs: device nodes, their keys and their interfaces.
 */
#define _WIN32_WINNT 0x0A00
/* These functions are defined here, not imported. */
#define CMAPI
#define _CFGMGR32_
#include "device.h"
#include "fakes.h"

#include <cfgmgr32.h>
#include <string.h>
#include <wchar.h>

/* The root of the tree of devices, as everything that is none of ours. */
#define ROOT_NODE 1u
/* Of a device that has a driver, runs, and can be removed. */
#define STATUS_RUNNING 0x0180200Au

FAKE CONFIGRET WINAPI
CM_Locate_DevNodeW(PDEVINST node, DEVINSTID_W instance, ULONG flags)
{
    devices_enter();
    const device *found = instance ? device_with_instance(instance) : NULL;
    *node = found ? found->number : ROOT_NODE;
    devices_leave();
    return CR_SUCCESS;
}

FAKE CONFIGRET WINAPI
CM_Get_Device_IDW(DEVINST node, PWCHAR buffer, ULONG units, ULONG flags)
{
    lstrcpynW(buffer, L"HTREE\\ROOT\\0", (int)units);
    return CR_SUCCESS;
}

FAKE CONFIGRET WINAPI
CM_Open_DevNode_Key(DEVINST node, REGSAM access, ULONG profile, REGDISPOSITION disposition, PHKEY key, ULONG flags)
{
    *key = device_open_key(node);
    return *key == INVALID_HANDLE_VALUE ? CR_FAILURE : CR_SUCCESS;
}

FAKE CONFIGRET WINAPI
CM_Get_DevNode_Status(PULONG status, PULONG problem, DEVINST node, ULONG flags)
{
    *status = STATUS_RUNNING;
    *problem = 0;
    return CR_SUCCESS;
}

FAKE DWORD WINAPI
CM_MapCrToWin32Err(CONFIGRET code, DWORD otherwise)
{
    return code == CR_SUCCESS ? ERROR_SUCCESS : otherwise;
}

/* A list of texts: the path of the device, if there is one, and an empty text. */
FAKE CONFIGRET WINAPI
CM_Get_Device_Interface_List_SizeW(PULONG units, LPGUID class, DEVINSTID_W instance, ULONG flags)
{
    devices_enter();
    const device *found = instance ? device_with_instance(instance) : NULL;
    *units = found ? (ULONG)wcslen(found->path) + 2 : 1;
    devices_leave();
    return CR_SUCCESS;
}

FAKE CONFIGRET WINAPI
CM_Get_Device_Interface_ListW(LPGUID class, DEVINSTID_W instance, PZZWSTR buffer, ULONG units, ULONG flags)
{
    memset(buffer, 0, units * sizeof(*buffer));
    devices_enter();
    const device *found = instance ? device_with_instance(instance) : NULL;
    if (found && wcslen(found->path) + 2 <= units)
        wcscpy(buffer, found->path);
    devices_leave();
    return CR_SUCCESS;
}
