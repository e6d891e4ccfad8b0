/* SPDX-License-Identifier: MIT
 *
 * The loopback library: the Wintun ABI over memory, on every system and without privileges.
 *
 * Two adapters that were created with the same RequestedGUID are the two ends of one cable: what one sends, the other
 * receives. A third with that GUID is refused with ERROR_ALREADY_EXISTS; when one of the two goes, the next adapter
 * with that GUID takes its end. An adapter without a GUID is plugged into nothing, and what it sends is dropped and
 * counted. Adapters are visible in their process only.
 *
 * An adapter goes when the handle that created it is closed. A session that it has then says ERROR_HANDLE_EOF and may
 * be ended at any later time. WintunGetRunningDriverVersion gives this library's own version; WintunDeleteDriver has
 * nothing to remove and only says whether it could, that is, whether no adapter exists.
 */
#include "backends/loopback/loopback.h"

#include "backends/common/backend_log.h"
#include "backends/common/exports.h"
#include "backends/loopback/simulator.h"
#include "platform/utf16.h"

#define LOOPBACK_VERSION 0x00010000

/* IANA's type of an interface that is none of the others, as the driver's. */
#define LUID_TYPE 53ull

/* A name in UTF-8: three bytes a unit at most. */
#define NAME_BYTES (3 * LOOPBACK_NAME_UNITS + 1)

static bool
name_valid(LPCWSTR name, size_t most)
{
    size_t length = name == NULL ? 0 : utf16_length(name, most);

    return length >= 1 && length <= most;
}

static void
fail(DWORD code, const char *what, LPCWSTR name)
{
    char text[NAME_BYTES];

    utf16_to_utf8(text, sizeof(text), name);
    backend_log_error(code, "Failed to %s adapter \"%s\"", what, text);
    SetLastError(code);
}

WINTUN_ADAPTER_HANDLE WINAPI
WintunCreateAdapter(LPCWSTR Name, LPCWSTR TunnelType, const GUID *RequestedGUID)
{
    WINTUN_ADAPTER_HANDLE handle = NULL;
    DWORD last_error = GetLastError();
    DWORD code;

    if (!name_valid(Name, LOOPBACK_NAME_UNITS) || !name_valid(TunnelType, LOOPBACK_TYPE_UNITS))
    {
        backend_log_error(ERROR_INVALID_PARAMETER, "An adapter's name has 1 to %d units and its type 1 to %d",
                          LOOPBACK_NAME_UNITS, LOOPBACK_TYPE_UNITS);
        SetLastError(ERROR_INVALID_PARAMETER);
        return NULL;
    }
    code = loopback_create(Name, RequestedGUID, &handle);
    if (code != ERROR_SUCCESS)
    {
        fail(code, "create", Name);
        return NULL;
    }
    SetLastError(last_error);
    return handle;
}

WINTUN_ADAPTER_HANDLE WINAPI
WintunOpenAdapter(LPCWSTR Name)
{
    WINTUN_ADAPTER_HANDLE handle = NULL;
    DWORD last_error = GetLastError();
    DWORD code;

    if (!name_valid(Name, LOOPBACK_NAME_UNITS))
    {
        SetLastError(ERROR_INVALID_PARAMETER);
        return NULL;
    }
    code = loopback_open(Name, &handle);
    if (code != ERROR_SUCCESS)
    {
        fail(code, "open", Name);
        return NULL;
    }
    SetLastError(last_error);
    return handle;
}

void WINAPI
WintunCloseAdapter(WINTUN_ADAPTER_HANDLE Adapter)
{
    DWORD last_error = GetLastError();

    if (Adapter != NULL)
    {
        loopback_close(Adapter);
    }
    SetLastError(last_error);
}

BOOL WINAPI
WintunDeleteDriver(void)
{
    if (loopback_any_adapter())
    {
        SetLastError(ERROR_BUSY);
        return FALSE;
    }
    return TRUE;
}

void WINAPI
WintunGetAdapterLUID(WINTUN_ADAPTER_HANDLE Adapter, NET_LUID *Luid)
{
    Luid->Value = LUID_TYPE << 48 | (uint64_t)Adapter->adapter->index << 24;
}

DWORD WINAPI
WintunGetRunningDriverVersion(void)
{
    return LOOPBACK_VERSION;
}

void WINAPI
WintunSetLogger(WINTUN_LOGGER_CALLBACK NewLogger)
{
    backend_log_set(NewLogger);
}

WINTUN_SESSION_HANDLE WINAPI
WintunStartSession(WINTUN_ADAPTER_HANDLE Adapter, DWORD Capacity)
{
    WINTUN_SESSION_HANDLE session = NULL;
    DWORD last_error = GetLastError();
    DWORD code = loopback_start(Adapter->adapter, Capacity, &session);

    if (code != ERROR_SUCCESS)
    {
        fail(code, "start a session on", Adapter->adapter->name);
        return NULL;
    }
    SetLastError(last_error);
    return session;
}

void WINAPI
WintunEndSession(WINTUN_SESSION_HANDLE Session)
{
    DWORD last_error = GetLastError();

    loopback_end(Session);
    SetLastError(last_error);
}

HANDLE WINAPI
WintunGetReadWaitEvent(WINTUN_SESSION_HANDLE Session)
{
    return Session->end.event.wait;
}

BYTE *WINAPI
WintunReceivePacket(WINTUN_SESSION_HANDLE Session, DWORD *PacketSize)
{
    tunring_slot slot;

    if (cable_receive(&Session->end, &slot, 1) == 0)
    {
        return NULL;
    }
    *PacketSize = slot.length;
    return slot.data;
}

void WINAPI
WintunReleaseReceivePacket(WINTUN_SESSION_HANDLE Session, const BYTE *Packet)
{
    /* The ring finds a slot by its address alone. */
    const tunring_slot slot = {.data = (BYTE *)(uintptr_t)Packet};

    cable_release(&Session->end, &slot, 1);
}

BYTE *WINAPI
WintunAllocateSendPacket(WINTUN_SESSION_HANDLE Session, DWORD PacketSize)
{
    return cable_allocate(&Session->end, PacketSize);
}

void WINAPI
WintunSendPacket(WINTUN_SESSION_HANDLE Session, const BYTE *Packet)
{
    cable_send(&Session->end, Packet);
}

/* ---- TunringBackend ---- */

static BOOL
detach(WINTUN_SESSION_HANDLE session)
{
    return loopback_detach(session);
}

static void
counters(WINTUN_SESSION_HANDLE session, tunring_counters *result)
{
    result->host_dropped = atomic_load(&session->end.dropped);
    result->host_filtered = atomic_load(&session->end.filtered);
    result->write_errors = 0;
}

static DWORD
send_room(WINTUN_SESSION_HANDLE session)
{
    return cable_room(&session->end);
}

static DWORD
adapter_name(WINTUN_ADAPTER_HANDLE handle, char *name, DWORD size)
{
    return utf16_to_utf8(name, size, handle->adapter->name) ? ERROR_SUCCESS : ERROR_BUFFER_OVERFLOW;
}

static DWORD
adapter_index(WINTUN_ADAPTER_HANDLE handle, DWORD *index)
{
    (void)handle;
    *index = 0;
    return ERROR_SUCCESS;
}

static int
adapter_namespace(WINTUN_ADAPTER_HANDLE handle)
{
    (void)handle;
    return -1;
}

static DWORD
send_many(WINTUN_SESSION_HANDLE session, const tunring_packet *packets, DWORD count, DWORD *sent)
{
    return cable_send_many(&session->end, packets, count, sent);
}

/* There are none. */
static DWORD
set_option(const char *name, DWORD value)
{
    (void)name;
    (void)value;
    return ERROR_NOT_FOUND;
}

static DWORD
receive_many(WINTUN_SESSION_HANDLE session, tunring_slot *slots, DWORD count)
{
    return cable_receive(&session->end, slots, count);
}

static void
release_many(WINTUN_SESSION_HANDLE session, const tunring_slot *slots, DWORD count)
{
    cable_release(&session->end, slots, count);
}

const tunring_backend TunringBackend = {
    .version = TUNRING_BACKEND_VERSION,
    .size = sizeof(tunring_backend),
    .name = "loopback",
    .detach = detach,
    .counters = counters,
    .send_room = send_room,
    .set_option = set_option,
    .adapter_name = adapter_name,
    .adapter_index = adapter_index,
    .adapter_namespace = adapter_namespace,
    .receive_many = receive_many,
    .release_many = release_many,
    .send_many = send_many,
    .simulator = &simulator,
};
