/* SPDX-License-Identifier: MIT
 *
 * The 14 functions, and what TunringBackend has beside them.
 */
#include "backends/common/front.h"

#include "backends/common/backend_log.h"
#include "backends/ring/ring.h"
#include "platform/os.h"
#include "platform/utf16.h"

#include <string.h>

#define MAX_NAME_UNITS 127
#define MAX_TUNNEL_TYPE_UNITS 128

/* IANA's type of an interface that is none of the others (propVirtual), as the driver's. */
#define LUID_TYPE 53ull

/* The handle of an adapter or a session; false for one of the parent's in a forked child. */
static bool
usable(const void *handle)
{
    return !OS_FOREIGN((const front_object *)handle);
}

static void
finish_object(void *handle)
{
    ((front_object *)handle)->generation = os_generation();
}

/* Sets the last error that a call returns with, and which began with `last_error`. */
static void
leave(DWORD last_error, DWORD code)
{
    SetLastError(code ? code : last_error);
}

static bool
text_valid(LPCWSTR text, size_t max, const char *what)
{
    const size_t length = text ? utf16_length(text, max) : 0;
    if (length >= 1 && length <= max)
        return true;
    backend_log_error(ERROR_INVALID_PARAMETER, "An adapter's %s has 1 to %u UTF-16 units", what, (unsigned)max);
    return false;
}

static bool
name_valid(LPCWSTR name)
{
    return name && backend.name_valid ? backend.name_valid(name) : text_valid(name, MAX_NAME_UNITS, "name");
}

/* ---- Adapters ---- */

WINTUN_ADAPTER_HANDLE
front_create_adapter(LPCWSTR name, LPCWSTR tunnel_type, const GUID *guid, const tunring_adapter_options *options)
{
    const DWORD last_error = GetLastError();
    WINTUN_ADAPTER_HANDLE adapter = NULL;
    DWORD code = ERROR_INVALID_PARAMETER;
    if (name_valid(name) && text_valid(tunnel_type, MAX_TUNNEL_TYPE_UNITS, "tunnel type"))
        code = backend.create(name, tunnel_type, guid, options, &adapter);
    if (!code)
        finish_object(adapter);
    leave(last_error, code);
    return adapter;
}

WINTUN_ADAPTER_HANDLE WINAPI
WintunCreateAdapter(LPCWSTR Name, LPCWSTR TunnelType, const GUID *RequestedGUID)
{
    return front_create_adapter(Name, TunnelType, RequestedGUID, &(tunring_adapter_options){0});
}

WINTUN_ADAPTER_HANDLE WINAPI
WintunOpenAdapter(LPCWSTR Name)
{
    const DWORD last_error = GetLastError();
    WINTUN_ADAPTER_HANDLE adapter = NULL;
    DWORD code = ERROR_INVALID_PARAMETER;
    if (name_valid(Name))
        code = backend.open(Name, &adapter);
    if (!code)
        finish_object(adapter);
    leave(last_error, code);
    return adapter;
}

DWORD
front_adopt(int descriptor, WINTUN_ADAPTER_HANDLE *adapter)
{
    const DWORD last_error = GetLastError();
    const DWORD code = backend.adopt(descriptor, adapter);
    if (!code)
        finish_object(*adapter);
    leave(last_error, code);
    return code;
}

void WINAPI
WintunCloseAdapter(WINTUN_ADAPTER_HANDLE Adapter)
{
    const DWORD last_error = GetLastError();
    if (Adapter && usable(Adapter))
        backend.close(Adapter);
    SetLastError(last_error);
}

BOOL WINAPI
WintunDeleteDriver(void)
{
    if (!backend.any_adapter())
        return TRUE;
    backend_log_error(ERROR_BUSY, "The driver is in use: this process has open adapters");
    SetLastError(ERROR_BUSY);
    return FALSE;
}

void WINAPI
WintunGetAdapterLUID(WINTUN_ADAPTER_HANDLE Adapter, NET_LUID *Luid)
{
    const DWORD last_error = GetLastError();
    bool present;
    const DWORD64 index = usable(Adapter) ? backend.index(Adapter, &present) : 0;
    Luid->Value = LUID_TYPE << 48 | (index & 0xFFFFFF) << 24;
    SetLastError(last_error);
}

DWORD
front_adapter_index(WINTUN_ADAPTER_HANDLE adapter, DWORD *index)
{
    const DWORD last_error = GetLastError();
    if (!usable(adapter))
        return ERROR_HANDLE_EOF;
    bool present;
    *index = backend.index(adapter, &present);
    if (!present)
        *index = 0;
    SetLastError(last_error);
    return ERROR_SUCCESS;
}

DWORD
front_adapter_name(WINTUN_ADAPTER_HANDLE adapter, char *name, DWORD size)
{
    const DWORD last_error = GetLastError();
    const DWORD code = usable(adapter) ? backend.name(adapter, name, size) : ERROR_HANDLE_EOF;
    SetLastError(last_error);
    return code;
}

int
front_adapter_namespace(WINTUN_ADAPTER_HANDLE adapter)
{
    const DWORD last_error = GetLastError();
    const int found = backend.network_namespace && usable(adapter) ? backend.network_namespace(adapter) : -1;
    SetLastError(last_error);
    return found;
}

DWORD
front_adapter_descriptor(WINTUN_ADAPTER_HANDLE adapter, BOOL leave, int *descriptor)
{
    const DWORD last_error = GetLastError();
    DWORD code = ERROR_HANDLE_EOF;
    if (usable(adapter))
        code = backend.descriptor(adapter, leave, descriptor);
    SetLastError(last_error);
    return code;
}

BOOL
front_adapter_shared(WINTUN_ADAPTER_HANDLE adapter)
{
    const DWORD last_error = GetLastError();
    const BOOL shared = usable(adapter) && backend.shared(adapter);
    SetLastError(last_error);
    return shared;
}

DWORD WINAPI
WintunGetRunningDriverVersion(void)
{
    const DWORD last_error = GetLastError();
    DWORD version = 0;
    leave(last_error, backend.driver_version(&version));
    return version;
}

void WINAPI
WintunSetLogger(WINTUN_LOGGER_CALLBACK NewLogger)
{
    backend_log_set(NewLogger);
}

DWORD
front_set_option(const char *name, DWORD value)
{
    return backend.set_option ? backend.set_option(name, value) : ERROR_NOT_FOUND;
}

/* ---- Sessions ---- */

static DWORD
start(WINTUN_ADAPTER_HANDLE adapter, DWORD capacity, const tunring_session_options *options,
      WINTUN_SESSION_HANDLE *session)
{
    if (!usable(adapter))
        return ERROR_HANDLE_EOF;
    if (ring_capacity_valid(capacity))
        return backend.start(adapter, capacity, options, session);
    backend_log_error(ERROR_INVALID_PARAMETER, "%u is not a ring capacity: a power of two from %u to %u",
                      (unsigned)capacity, (unsigned)WINTUN_MIN_RING_CAPACITY, (unsigned)WINTUN_MAX_RING_CAPACITY);
    return ERROR_INVALID_PARAMETER;
}

WINTUN_SESSION_HANDLE
front_start_session(WINTUN_ADAPTER_HANDLE adapter, DWORD capacity, const tunring_session_options *options)
{
    const DWORD last_error = GetLastError();
    WINTUN_SESSION_HANDLE session = NULL;
    const DWORD code = start(adapter, capacity, options, &session);
    if (!code)
        finish_object(session);
    leave(last_error, code);
    return session;
}

WINTUN_SESSION_HANDLE WINAPI
WintunStartSession(WINTUN_ADAPTER_HANDLE Adapter, DWORD Capacity)
{
    return front_start_session(Adapter, Capacity, &(tunring_session_options){0});
}

BOOL
front_detach(WINTUN_SESSION_HANDLE session)
{
    const DWORD last_error = GetLastError();
    const BOOL detached = !usable(session) || backend.detach(session);
    SetLastError(last_error);
    return detached;
}

void WINAPI
WintunEndSession(WINTUN_SESSION_HANDLE Session)
{
    const DWORD last_error = GetLastError();
    if (usable(Session))
        backend.end(Session);
    SetLastError(last_error);
}

HANDLE WINAPI
WintunGetReadWaitEvent(WINTUN_SESSION_HANDLE Session)
{
    /* In a child the number may be another file's by now. */
    return usable(Session) ? backend.read_event(Session) : (HANDLE)(intptr_t)-1;
}

void
front_counters(WINTUN_SESSION_HANDLE session, tunring_counters *counters)
{
    const DWORD last_error = GetLastError();
    memset(counters, 0, sizeof(*counters));
    if (usable(session))
        backend.count(session, counters);
    SetLastError(last_error);
}

/* ---- Packets ---- */

DWORD
front_receive_many(WINTUN_SESSION_HANDLE session, tunring_slot *slots, DWORD count)
{
    if (usable(session))
        return backend.receive(session, slots, count);
    SetLastError(ERROR_HANDLE_EOF);
    return 0;
}

void
front_release_many(WINTUN_SESSION_HANDLE session, const tunring_slot *slots, DWORD count)
{
    if (usable(session))
        backend.release(session, slots, count);
}

void
front_report_kept(WINTUN_SESSION_HANDLE session, BOOL kept)
{
    if (usable(session))
        backend.report_kept(session, kept);
}

DWORD
front_send_many(WINTUN_SESSION_HANDLE session, const tunring_packet *packets, DWORD count, DWORD *sent)
{
    *sent = 0;
    return usable(session) ? backend.send_many(session, packets, count, sent) : ERROR_HANDLE_EOF;
}

BYTE *
front_allocate_now(WINTUN_SESSION_HANDLE session, DWORD size)
{
    if (usable(session))
        return backend.allocate_now(session, size);
    SetLastError(ERROR_HANDLE_EOF);
    return NULL;
}

void
front_shorten(WINTUN_SESSION_HANDLE session, const BYTE *packet, DWORD size)
{
    if (usable(session))
        ring_shorten(packet, size);
}

DWORD
front_send_filled(WINTUN_SESSION_HANDLE session, const tunring_packet *packets, DWORD count, DWORD *sent)
{
    *sent = 0;
    return usable(session) ? backend.send_filled(session, packets, count, sent) : ERROR_HANDLE_EOF;
}

DWORD
front_send_room(WINTUN_SESSION_HANDLE session)
{
    return usable(session) ? backend.send_room(session) : 0;
}

BYTE *WINAPI
WintunReceivePacket(WINTUN_SESSION_HANDLE Session, DWORD *PacketSize)
{
    tunring_slot slot;
    if (front_receive_many(Session, &slot, 1) == 0)
        return NULL;
    *PacketSize = slot.length;
    return slot.data;
}

void WINAPI
WintunReleaseReceivePacket(WINTUN_SESSION_HANDLE Session, const BYTE *Packet)
{
    /* The ring finds a slot by its address alone. */
    const tunring_slot slot = {.data = (BYTE *)(uintptr_t)Packet};
    front_release_many(Session, &slot, 1);
}

BYTE *WINAPI
WintunAllocateSendPacket(WINTUN_SESSION_HANDLE Session, DWORD PacketSize)
{
    if (usable(Session))
        return backend.allocate(Session, PacketSize);
    SetLastError(ERROR_HANDLE_EOF);
    return NULL;
}

void WINAPI
WintunSendPacket(WINTUN_SESSION_HANDLE Session, const BYTE *Packet)
{
    if (usable(Session))
        backend.send(Session, Packet);
}
