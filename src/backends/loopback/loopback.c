/* SPDX-License-Identifier: MIT
 *
 * The loopback library: the Wintun ABI over memory, on every system and without privileges.
 *
 * Two adapters that were created with the same RequestedGUID are the two ends of one cable: what one sends, the other
 * receives. A third with that GUID is refused with ERROR_ALREADY_EXISTS; when one of the two goes, the next adapter
 * with that GUID takes its end. An adapter without a GUID is plugged into nothing, and what it sends is dropped and
 * counted. Adapters are visible in their process only.
 *
 * An adapter goes when the handle that created it is closed. A session that it has then returns ERROR_HANDLE_EOF and
 * may be ended at any later time. WintunGetRunningDriverVersion gives this library's own version; WintunDeleteDriver
 * has nothing to remove and only reports whether it could, that is, whether no adapter exists.
 */
#include "backends/loopback/loopback.h"

#include "backends/common/backend_log.h"
#include "backends/loopback/simulator.h"
#include "platform/utf16.h"

#define LOOPBACK_VERSION 0x00010000

/* A name in UTF-8: at most three bytes per unit. */
#define NAME_BYTES (3 * LOOPBACK_NAME_UNITS + 1)

/* Returns the code, and logs it if it is one of a failure. */
static DWORD
logged(DWORD code, const char *what, LPCWSTR name)
{
    if (!code)
        return code;
    char text[NAME_BYTES];
    utf16_to_utf8(text, sizeof(text), name);
    backend_log_error(code, "Failed to %s adapter \"%s\"", what, text);
    return code;
}

/* ---- Adapters ---- */

static DWORD
adapter_create(LPCWSTR name, LPCWSTR tunnel_type, const GUID *guid, const tunring_adapter_options *options,
               WINTUN_ADAPTER_HANDLE *adapter)
{
    (void)options;
    (void)tunnel_type;
    return logged(loopback_create(name, guid, adapter), "create", name);
}

static DWORD
adapter_open(LPCWSTR name, WINTUN_ADAPTER_HANDLE *adapter)
{
    return logged(loopback_open(name, adapter), "open", name);
}

static DWORD
driver_version(DWORD *version)
{
    *version = LOOPBACK_VERSION;
    return ERROR_SUCCESS;
}

static DWORD
adapter_index(WINTUN_ADAPTER_HANDLE adapter, bool *present)
{
    *present = false;
    return adapter->adapter->index;
}

static DWORD
adapter_name(WINTUN_ADAPTER_HANDLE adapter, char *name, DWORD size)
{
    return utf16_to_utf8(name, size, adapter->adapter->name) ? ERROR_SUCCESS : ERROR_BUFFER_OVERFLOW;
}

/* ---- Sessions ---- */

static DWORD
session_start(WINTUN_ADAPTER_HANDLE adapter, DWORD capacity, const tunring_session_options *options,
              WINTUN_SESSION_HANDLE *session)
{
    (void)options;
    return logged(loopback_start(adapter->adapter, capacity, session), "start a session on", adapter->adapter->name);
}

static HANDLE
session_read_event(WINTUN_SESSION_HANDLE session)
{
    return session->end.event.wait;
}

static void
session_count(WINTUN_SESSION_HANDLE session, tunring_counters *counters)
{
    counters->host_dropped = atomic_load(&session->end.dropped);
    counters->host_filtered = atomic_load(&session->end.filtered);
}

/* ---- Packets ---- */

static DWORD
session_receive(WINTUN_SESSION_HANDLE session, tunring_slot *slots, DWORD count)
{
    return cable_receive(&session->end, slots, count);
}

static void
session_release(WINTUN_SESSION_HANDLE session, const tunring_slot *slots, DWORD count)
{
    cable_release(&session->end, slots, count);
}

static void
session_report_kept(WINTUN_SESSION_HANDLE session, bool kept)
{
    cable_report_kept(&session->end, kept);
}

static BYTE *
session_allocate(WINTUN_SESSION_HANDLE session, DWORD size)
{
    return cable_allocate(&session->end, size);
}

static BYTE *
session_allocate_now(WINTUN_SESSION_HANDLE session, DWORD size)
{
    return cable_allocate_now(&session->end, size);
}

static void
session_send(WINTUN_SESSION_HANDLE session, const BYTE *packet)
{
    cable_send(&session->end, packet);
}

static DWORD
session_send_many(WINTUN_SESSION_HANDLE session, const tunring_packet *packets, DWORD count, DWORD *sent)
{
    return cable_send_many(&session->end, packets, count, sent);
}

static DWORD
session_send_room(WINTUN_SESSION_HANDLE session)
{
    return cable_room(&session->end);
}

const backend_operations backend = {
    .create = adapter_create,
    .open = adapter_open,
    .close = loopback_close,
    .any_adapter = loopback_any_adapter,
    .driver_version = driver_version,
    .index = adapter_index,
    .name = adapter_name,
    .start = session_start,
    .detach = loopback_detach,
    .end = loopback_end,
    .read_event = session_read_event,
    .count = session_count,
    .receive = session_receive,
    .release = session_release,
    .report_kept = session_report_kept,
    .allocate = session_allocate,
    .allocate_now = session_allocate_now,
    .send = session_send,
    .send_many = session_send_many,
    .send_room = session_send_room,
};

const tunring_backend TunringBackend = {FRONT_ENTRIES, .name = "loopback", .simulator = &simulator};
