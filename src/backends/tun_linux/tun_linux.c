/* SPDX-License-Identifier: MIT
 *
 * tun_linux: the 14 functions of the Wintun ABI over Linux' /dev/net/tun, and tunring's own table.
 *
 * What differs from the official library:
 * - CreateAdapter: TunnelType becomes the interface's alias, cut to 255 bytes of UTF-8. RequestedGUID is ignored: an
 *   interface of Linux has no such identity. Names follow the kernel's rules, see tun_device.c.
 * - OpenAdapter attaches to a TUN interface that exists, say a persistent one of the calling user; it never removes it.
 *   ERROR_ALREADY_INITIALIZED if another process is attached to it.
 * - GetAdapterLUID is the interface's index with IANA type 53 (propVirtual), as Wintun's own.
 * - GetRunningDriverVersion is the kernel's version, since the driver is part of it, if /dev/net/tun can be opened;
 *   else ERROR_FILE_NOT_FOUND or ERROR_ACCESS_DENIED.
 * - DeleteDriver succeeds and does nothing, for nothing was installed; ERROR_BUSY while this process has adapters.
 * - After a fork, handles of the parent do nothing in the child.
 */
#include "backends/common/backend_log.h"
#include "backends/common/exports.h"
#include "backends/tun_linux/tun_adapter.h"
#include "backends/tun_linux/tun_device.h"
#include "platform/utf16.h"

#include <string.h>

#define MAX_NAME_UNITS 127
#define MAX_TUNNEL_TYPE_UNITS 128
/* A UTF-16 unit takes at most 3 bytes in UTF-8. */
#define NAME_BYTES (3 * MAX_NAME_UNITS + 1)
/* Of an interface's alias. */
#define ALIAS_BYTES 256

#define IF_TYPE_PROP_VIRTUAL 53

static bool
read_name(LPCWSTR wide, char name[NAME_BYTES])
{
    if (!wide)
        return false;
    (void)utf16_to_utf8(name, NAME_BYTES, wide);
    return tun_name_valid(name);
}

static bool
read_tunnel_type(LPCWSTR wide, char alias[ALIAS_BYTES])
{
    const size_t length = wide ? utf16_length(wide, MAX_TUNNEL_TYPE_UNITS) : 0;
    if (length == 0 || length > MAX_TUNNEL_TYPE_UNITS)
    {
        backend_log(WINTUN_LOG_ERR, "A tunnel type has 1 to %d UTF-16 units", MAX_TUNNEL_TYPE_UNITS);
        return false;
    }
    (void)utf16_to_utf8(alias, ALIAS_BYTES, wide);
    return true;
}

static bool
session_usable(WINTUN_SESSION_HANDLE session)
{
    return session->generation == os_generation();
}

/* ---- The ABI ---- */

WINTUN_ADAPTER_HANDLE WINAPI
WintunCreateAdapter(LPCWSTR Name, LPCWSTR TunnelType, const GUID *RequestedGUID)
{
    const DWORD before = GetLastError();
    char name[NAME_BYTES];
    char alias[ALIAS_BYTES];
    WINTUN_ADAPTER_HANDLE handle = NULL;
    DWORD code = ERROR_INVALID_PARAMETER;
    (void)RequestedGUID;
    if (read_name(Name, name) && read_tunnel_type(TunnelType, alias))
        code = tun_adapter_create(name, alias, &handle);
    SetLastError(code ? code : before);
    return handle;
}

WINTUN_ADAPTER_HANDLE WINAPI
WintunOpenAdapter(LPCWSTR Name)
{
    const DWORD before = GetLastError();
    char name[NAME_BYTES];
    WINTUN_ADAPTER_HANDLE handle = NULL;
    DWORD code = ERROR_INVALID_PARAMETER;
    if (read_name(Name, name))
        code = tun_adapter_open(name, &handle);
    SetLastError(code ? code : before);
    return handle;
}

void WINAPI
WintunCloseAdapter(WINTUN_ADAPTER_HANDLE Adapter)
{
    const DWORD before = GetLastError();
    if (Adapter && tun_adapter_usable(Adapter))
        tun_adapter_close(Adapter);
    SetLastError(before);
}

BOOL WINAPI
WintunDeleteDriver(void)
{
    if (!tun_adapters_exist())
        return TRUE;
    backend_log(WINTUN_LOG_ERR, "The driver is in use: this process has open adapters");
    SetLastError(ERROR_BUSY);
    return FALSE;
}

void WINAPI
WintunGetAdapterLUID(WINTUN_ADAPTER_HANDLE Adapter, NET_LUID *Luid)
{
    const DWORD before = GetLastError();
    bool gone;
    DWORD64 index = tun_adapter_usable(Adapter) ? tun_adapter_index(Adapter, &gone) : 0;
    Luid->Value = (DWORD64)IF_TYPE_PROP_VIRTUAL << 48 | (index & 0xFFFFFF) << 24;
    SetLastError(before);
}

DWORD WINAPI
WintunGetRunningDriverVersion(void)
{
    const DWORD before = GetLastError();
    DWORD code;
    const DWORD version = tun_driver_version(&code);
    SetLastError(code ? code : before);
    return version;
}

void WINAPI
WintunSetLogger(WINTUN_LOGGER_CALLBACK NewLogger)
{
    backend_log_set(NewLogger);
}

static WINTUN_SESSION_HANDLE
backend_start_session(WINTUN_ADAPTER_HANDLE Adapter, DWORD Capacity, const tunring_session_options *Options)
{
    const DWORD before = GetLastError();
    WINTUN_SESSION_HANDLE session = NULL;
    DWORD code = ERROR_HANDLE_EOF;
    if (tun_adapter_usable(Adapter))
        code = tun_adapter_start_session(Adapter, Capacity, Options, &session);
    SetLastError(code ? code : before);
    return session;
}

WINTUN_SESSION_HANDLE WINAPI
WintunStartSession(WINTUN_ADAPTER_HANDLE Adapter, DWORD Capacity)
{
    return backend_start_session(Adapter, Capacity, &(tunring_session_options){0});
}

void WINAPI
WintunEndSession(WINTUN_SESSION_HANDLE Session)
{
    const DWORD before = GetLastError();
    if (session_usable(Session))
    {
        tun_adapter_detach_session(Session);
        tun_session_free(Session);
    }
    SetLastError(before);
}

HANDLE WINAPI
WintunGetReadWaitEvent(WINTUN_SESSION_HANDLE Session)
{
    /* In a child the number may be another file's by now. */
    return (HANDLE)(intptr_t)(session_usable(Session) ? Session->read_event : -1);
}

static DWORD
backend_receive_many(WINTUN_SESSION_HANDLE Session, tunring_slot *Slots, DWORD Count)
{
    if (session_usable(Session))
        return tun_receive(Session, Slots, Count);
    SetLastError(ERROR_HANDLE_EOF);
    return 0;
}

static void
backend_release_many(WINTUN_SESSION_HANDLE Session, const tunring_slot *Slots, DWORD Count)
{
    if (session_usable(Session))
        tun_release(Session, Slots, Count);
}

BYTE *WINAPI
WintunReceivePacket(WINTUN_SESSION_HANDLE Session, DWORD *PacketSize)
{
    tunring_slot slot;
    if (backend_receive_many(Session, &slot, 1) == 0)
        return NULL;
    *PacketSize = slot.length;
    return slot.data;
}

void WINAPI
WintunReleaseReceivePacket(WINTUN_SESSION_HANDLE Session, const BYTE *Packet)
{
    /* The ring finds a slot by its address alone. */
    const tunring_slot slot = {.data = (BYTE *)(uintptr_t)Packet};
    backend_release_many(Session, &slot, 1);
}

BYTE *WINAPI
WintunAllocateSendPacket(WINTUN_SESSION_HANDLE Session, DWORD PacketSize)
{
    if (session_usable(Session))
        return tun_allocate(Session, PacketSize);
    SetLastError(ERROR_HANDLE_EOF);
    return NULL;
}

void WINAPI
WintunSendPacket(WINTUN_SESSION_HANDLE Session, const BYTE *Packet)
{
    if (session_usable(Session))
        tun_send(Session, Packet);
}

/* ---- The table ---- */

static BOOL
backend_detach(WINTUN_SESSION_HANDLE Session)
{
    const DWORD before = GetLastError();
    if (session_usable(Session))
        tun_adapter_detach_session(Session);
    SetLastError(before);
    return TRUE;
}

static void
backend_counters(WINTUN_SESSION_HANDLE Session, tunring_counters *Counters)
{
    const DWORD before = GetLastError();
    memset(Counters, 0, sizeof(*Counters));
    if (session_usable(Session))
    {
        tun_session_count(Session, Counters);
        Counters->host_dropped = tun_adapter_session_dropped(Session);
    }
    SetLastError(before);
}

static DWORD
backend_send_room(WINTUN_SESSION_HANDLE Session)
{
    return session_usable(Session) ? tun_send_room(Session) : 0;
}

static DWORD
backend_adapter_name(WINTUN_ADAPTER_HANDLE Adapter, char *Name, DWORD Size)
{
    const DWORD before = GetLastError();
    const DWORD code = tun_adapter_usable(Adapter) ? tun_adapter_name(Adapter, Name, Size) : ERROR_HANDLE_EOF;
    SetLastError(before);
    return code;
}

static DWORD
backend_adapter_index(WINTUN_ADAPTER_HANDLE Adapter, DWORD *Index)
{
    const DWORD before = GetLastError();
    bool gone;
    if (!tun_adapter_usable(Adapter))
        return ERROR_HANDLE_EOF;
    *Index = tun_adapter_index(Adapter, &gone);
    if (gone)
        *Index = 0;
    SetLastError(before);
    return ERROR_SUCCESS;
}

static int
backend_adapter_namespace(WINTUN_ADAPTER_HANDLE Adapter)
{
    const DWORD before = GetLastError();
    const int space = tun_adapter_usable(Adapter) ? tun_adapter_namespace(Adapter) : -1;
    SetLastError(before);
    return space;
}

static DWORD
backend_adopt(int Descriptor, WINTUN_ADAPTER_HANDLE *Adapter)
{
    return tun_adapter_adopt(Descriptor, Adapter);
}

static DWORD
backend_set_option(const char *Name, DWORD Value)
{
    if (strcmp(Name, "offloads") != 0)
        return ERROR_NOT_FOUND;
    if (Value > 1)
        return ERROR_INVALID_PARAMETER;
    tun_device_want_offloads(Value != 0);
    return ERROR_SUCCESS;
}

static DWORD
backend_send_many(WINTUN_SESSION_HANDLE Session, const tunring_packet *Packets, DWORD Count, DWORD *Sent)
{
    *Sent = 0;
    return session_usable(Session) ? tun_send_many(Session, Packets, Count, Sent) : ERROR_HANDLE_EOF;
}

const tunring_backend TunringBackend = {
    .version = TUNRING_BACKEND_VERSION,
    .size = sizeof(tunring_backend),
    .name = "tun_linux",
    .detach = backend_detach,
    .counters = backend_counters,
    .send_room = backend_send_room,
    .adapter_name = backend_adapter_name,
    .adapter_index = backend_adapter_index,
    .adapter_namespace = backend_adapter_namespace,
    .adopt = backend_adopt,
    .set_option = backend_set_option,
    .start_session = backend_start_session,
    .receive_many = backend_receive_many,
    .release_many = backend_release_many,
    .send_many = backend_send_many,
};
