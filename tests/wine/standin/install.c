/* SPDX-License-Identifier: MIT
 *
 * The functions that wintun.dll finds in kernel32.dll and ntdll.dll instead of Wine's own: calls on devices of ours
 * stay here, and everything else goes through.
 */
#define _WIN32_WINNT 0x0A00
#include "standin.h"

#include "device.h"
#include "redirect.h"
#include "system_state.h"

#include <string.h>
#include <wchar.h>
#include <winternl.h>

system_state standin_system = {true, true, true};

/* Wine's functions of these names. */
static FARPROC create_file, device_io_control, close_handle, set_event, load_library, create_mutex, query_system;

/* ---- Devices ---- */

static HANDLE WINAPI
on_create_file(LPCWSTR name, DWORD access, DWORD share, LPSECURITY_ATTRIBUTES security, DWORD disposition, DWORD flags,
               HANDLE template)
{
    typedef HANDLE(WINAPI * function)(LPCWSTR, DWORD, DWORD, LPSECURITY_ATTRIBUTES, DWORD, DWORD, HANDLE);
    HANDLE opened = name ? device_open(name) : NULL;
    return opened != NULL
               ? opened
               : ((function)(any_function)create_file)(name, access, share, security, disposition, flags, template);
}

static BOOL WINAPI
on_device_io_control(HANDLE handle, DWORD request, LPVOID input, DWORD input_size, LPVOID output, DWORD output_size,
                     LPDWORD returned, LPOVERLAPPED overlapped)
{
    typedef BOOL(WINAPI * function)(HANDLE, DWORD, LPVOID, DWORD, LPVOID, DWORD, LPDWORD, LPOVERLAPPED);
    DWORD code;
    if (!device_control(handle, request, input, input_size, &code))
        return ((function)(any_function)device_io_control)(handle, request, input, input_size, output, output_size,
                                                           returned, overlapped);
    if (returned)
        *returned = 0;
    if (code != ERROR_SUCCESS)
        SetLastError(code);
    return code == ERROR_SUCCESS;
}

static BOOL WINAPI
on_close_handle(HANDLE handle)
{
    typedef BOOL(WINAPI * function)(HANDLE);

    device_forget_handle(handle);
    return ((function)(any_function)close_handle)(handle);
}

static BOOL WINAPI
on_set_event(HANDLE event)
{
    typedef BOOL(WINAPI * function)(HANDLE);

    return device_wake(event) || ((function)(any_function)set_event)(event);
}

/* ---- Modules that Wine lacks, or whose devices are ours ---- */

static HMODULE WINAPI
on_load_library(LPCSTR name, HANDLE file, DWORD flags)
{
    typedef HMODULE(WINAPI * function)(LPCSTR, HANDLE, DWORD);
    static const char *const ours[] = {
        "CFGMGR32.dll",
        "SETUPAPI.dll",
        "nci.dll",
        "VERSION.dll",
        "api-ms-win-devices-query-l1-1-0.dll",
        "api-ms-win-devices-swdevice-l1-1-0.dll",
    };
    HMODULE self = NULL;
    for (size_t i = 0; name && flags == LOAD_LIBRARY_SEARCH_SYSTEM32 && i < sizeof(ours) / sizeof(ours[0]); i++)
    {
        if (_stricmp(name, ours[i]) == 0 &&
            GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS, (LPCWSTR)(void *)&standin_system, &self))
        {
            return self;
        }
    }
    return ((function)(any_function)load_library)(name, file, flags);
}

/* ---- Private namespaces, which Wine lacks: only administrators get into Wintun's ---- */

static char boundary, namespace;

static HANDLE WINAPI
on_create_boundary(LPCWSTR name, ULONG flags)
{
    return &boundary;
}

static BOOL WINAPI
on_add_sid(HANDLE *descriptor, PSID sid)
{
    return TRUE;
}

static HANDLE
enter_namespace(void)
{
    if (!atomic_load(&standin_system.elevated))
    {
        SetLastError(ERROR_ACCESS_DENIED);
        return NULL;
    }
    return &namespace;
}

static HANDLE WINAPI
on_create_namespace(LPSECURITY_ATTRIBUTES security, LPVOID descriptor, LPCWSTR prefix)
{
    return enter_namespace();
}

static HANDLE WINAPI
on_open_namespace(LPVOID descriptor, LPCWSTR prefix)
{
    return enter_namespace();
}

static BOOLEAN WINAPI
on_close_namespace(HANDLE handle, ULONG flags)
{
    return TRUE;
}

static void WINAPI
on_delete_boundary(HANDLE descriptor)
{
}

static HANDLE WINAPI
on_create_mutex(LPSECURITY_ATTRIBUTES security, BOOL owned, LPCWSTR name)
{
    typedef HANDLE(WINAPI * function)(LPSECURITY_ATTRIBUTES, BOOL, LPCWSTR);
    static const WCHAR prefix[] = L"Wintun\\";
    size_t units = sizeof(prefix) / sizeof(prefix[0]) - 1;
    if (name && wcsncmp(name, prefix, units) == 0)
        name += units;
    return ((function)(any_function)create_mutex)(security, owned, name);
}

/* ---- The system ---- */

static void
put_number(ULONG *place, ULONG number)
{
    if (place)
        *place = number;
}

/* Wine may report Windows 7, where wintun.dll would go another way. */
static void WINAPI
on_get_version(ULONG *major, ULONG *minor, ULONG *build)
{
    put_number(major, 10);
    put_number(minor, 0);
    put_number(build, 0xF0000000u | 19045);
}

#define SYSTEM_MODULES 11
#define SIZE_MISMATCH ((NTSTATUS)0xC0000004)

typedef struct system_module
{
    PVOID section, mapped, base;
    ULONG size, flags;
    USHORT load_order, init_order, load_count, name_at;
    char path[256];
} system_module;

typedef struct system_modules
{
    ULONG count;
    system_module modules[2];
} system_modules;

static void
name_module(system_module *module, const char *path)
{
    strcpy(module->path, path);
    module->name_at = (USHORT)(strrchr(path, '\\') + 1 - path);
}

/* The list of kernel modules, by which the driver's version is found. */
static NTSTATUS WINAPI
on_query_system(ULONG class, void *buffer, ULONG size, ULONG *needed)
{
    typedef NTSTATUS(WINAPI * function)(ULONG, void *, ULONG, ULONG *);
    system_modules *list = buffer;
    if (class != SYSTEM_MODULES)
        return ((function)(any_function)query_system)(class, buffer, size, needed);
    if (needed)
        *needed = sizeof(*list);
    if (size < sizeof(*list))
        return SIZE_MISMATCH;
    memset(list, 0, sizeof(*list));
    name_module(&list->modules[0], "\\SystemRoot\\system32\\ntoskrnl.exe");
    name_module(&list->modules[1], "\\SystemRoot\\system32\\drivers\\wintun.sys");
    list->count = atomic_load(&standin_system.driver_loaded) ? 2 : 1;
    return 0;
}

/* ---- Installing ---- */

#define TARGET(function) ((FARPROC)(any_function)(function))

static bool
install(void)
{
    const redirection kernel[] = {
        {"CreateFileW", TARGET(on_create_file), &create_file},
        {"DeviceIoControl", TARGET(on_device_io_control), &device_io_control},
        {"CloseHandle", TARGET(on_close_handle), &close_handle},
        {"SetEvent", TARGET(on_set_event), &set_event},
        {"LoadLibraryExA", TARGET(on_load_library), &load_library},
        {"CreateMutexW", TARGET(on_create_mutex), &create_mutex},
        {"CreateBoundaryDescriptorW", TARGET(on_create_boundary), NULL},
        {"AddSIDToBoundaryDescriptor", TARGET(on_add_sid), NULL},
        {"CreatePrivateNamespaceW", TARGET(on_create_namespace), NULL},
        {"OpenPrivateNamespaceW", TARGET(on_open_namespace), NULL},
        {"ClosePrivateNamespace", TARGET(on_close_namespace), NULL},
        {"DeleteBoundaryDescriptor", TARGET(on_delete_boundary), NULL},
    };
    const redirection native[] = {
        {"NtQuerySystemInformation", TARGET(on_query_system), &query_system},
        {"RtlGetNtVersionNumbers", TARGET(on_get_version), NULL},
    };

    return GetModuleHandleW(L"wintun.dll") == NULL &&
           redirect_exports(GetModuleHandleW(L"kernel32.dll"), kernel, sizeof(kernel) / sizeof(kernel[0])) &&
           redirect_exports(GetModuleHandleW(L"ntdll.dll"), native, sizeof(native) / sizeof(native[0]));
}

BOOL
StandinInstall(void)
{
    static BOOL installed;

    installed = installed || install();
    return installed;
}

BOOL WINAPI
DllMain(HINSTANCE module, DWORD reason, LPVOID reserved)
{
    if (reason == DLL_PROCESS_ATTACH)
        DisableThreadLibraryCalls(module);
    return TRUE;
}
