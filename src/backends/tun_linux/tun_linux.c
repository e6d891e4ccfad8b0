/* SPDX-License-Identifier: MIT
 *
 * tun_linux: the 14 functions of the Wintun ABI over Linux' /dev/net/tun, and tunring's own table.
 *
 * Differences from the official library:
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
#include "backends/common/front.h"
#include "backends/tun_linux/tun_adapter.h"
#include "backends/tun_linux/tun_device.h"
#include "platform/utf16.h"

#include <string.h>
#include <time.h>

/* Longer than any name that the kernel takes: a fault is logged with what was asked for. */
#define NAME_BYTES (3 * 127 + 1)
/* Of an interface's alias. */
#define ALIAS_BYTES 256

/* Milliseconds between two looks at a session's link. */
#define LOOK_EVERY 100

/* ---- Adapters ---- */

static bool
adapter_name_valid(LPCWSTR wide)
{
    char name[NAME_BYTES];
    (void)utf16_to_utf8(name, sizeof(name), wide);
    return tun_name_valid(name);
}

static DWORD
adapter_create(LPCWSTR wide, LPCWSTR tunnel_type, const GUID *guid, const tunring_adapter_options *options,
               WINTUN_ADAPTER_HANDLE *adapter)
{
    (void)guid;
    char name[IFNAMSIZ];
    (void)utf16_to_utf8(name, sizeof(name), wide);
    char alias[ALIAS_BYTES];
    (void)utf16_to_utf8(alias, sizeof(alias), tunnel_type);
    return tun_adapter_create(name, alias, options->queues > 1, adapter);
}

static DWORD
adapter_open(LPCWSTR wide, WINTUN_ADAPTER_HANDLE *adapter)
{
    char name[IFNAMSIZ];
    (void)utf16_to_utf8(name, sizeof(name), wide);
    return tun_adapter_open(name, adapter);
}

static DWORD
adapter_set_option(const char *name, DWORD value)
{
    if (strcmp(name, "offloads") != 0)
        return ERROR_NOT_FOUND;
    if (value > 1)
        return ERROR_INVALID_PARAMETER;
    tun_device_want_offloads(value != 0);
    return ERROR_SUCCESS;
}

/* ---- Sessions ---- */

static bool
session_detach(WINTUN_SESSION_HANDLE session)
{
    tun_adapter_detach_session(session);
    return true;
}

static void
session_end(WINTUN_SESSION_HANDLE session)
{
    tun_adapter_detach_session(session);
    tun_session_free(session);
}

static HANDLE
session_read_event(WINTUN_SESSION_HANDLE session)
{
    return (HANDLE)(intptr_t)session->read_event;
}

/* A session that finds nothing looks now and then whether its link is still on. */
static void
watch_link(WINTUN_SESSION_HANDLE session)
{
    const DWORD last_error = GetLastError();
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    const int64_t time = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
    if (time < atomic_load_explicit(&session->look_at, memory_order_relaxed))
        return;
    atomic_store_explicit(&session->look_at, time + LOOK_EVERY, memory_order_relaxed);
    tun_adapter_watch_link(session);
    SetLastError(last_error);
}

static DWORD
session_receive(WINTUN_SESSION_HANDLE session, tunring_slot *slots, DWORD count)
{
    const DWORD taken = tun_receive(session, slots, count);
    if (taken == 0)
        watch_link(session);
    return taken;
}

static void
session_count(WINTUN_SESSION_HANDLE session, tunring_counters *counters)
{
    tun_session_count(session, counters);
    counters->host_dropped = tun_adapter_session_dropped(session);
}

const backend_operations backend = {
    .name_valid = adapter_name_valid,
    .create = adapter_create,
    .open = adapter_open,
    .adopt = tun_adapter_adopt,
    .close = tun_adapter_close,
    .any_adapter = tun_adapters_exist,
    .driver_version = tun_driver_version,
    .index = tun_adapter_index,
    .name = tun_adapter_name,
    .network_namespace = tun_adapter_namespace,
    .descriptor = tun_adapter_descriptor,
    .shared = tun_adapter_shared,
    .set_option = adapter_set_option,
    .start = tun_adapter_start_session,
    .detach = session_detach,
    .end = session_end,
    .read_event = session_read_event,
    .count = session_count,
    .receive = session_receive,
    .release = tun_release,
    .report_kept = tun_report_kept,
    .allocate = tun_allocate,
    .allocate_now = tun_allocate_now,
    .send = tun_send,
    .send_many = tun_send_many,
    .send_room = tun_send_room,
    .send_filled = tun_send_filled,
};

const tunring_backend TunringBackend = {
    .name = "tun_linux",
    .adapter_descriptor = front_adapter_descriptor,
    .adapter_shared = front_adapter_shared,
    .adopt = front_adopt,
    .create_adapter = front_create_adapter,
    .start_session = front_start_session,
    .system_error = tun_device_system_error,
    .send_filled = front_send_filled,
    .sends_by_system_call = TRUE,
    FRONT_ENTRIES,
};
