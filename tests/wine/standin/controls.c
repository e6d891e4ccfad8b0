/* SPDX-License-Identifier: MIT
 *
 * The tests' side: the simulator, cables, figures. Adapters are identified by what the loaded wintun.dll reports.
 */
#include "device.h"
#include "redirect.h"
#include "standin.h"
#include "system_state.h"

#include <string.h>

/* The DLL's function, or NULL. Looked up once: it is never unloaded. */
static WINTUN_GET_ADAPTER_LUID_FUNC *
luid_function(void)
{
    static _Atomic(WINTUN_GET_ADAPTER_LUID_FUNC *) known;
    WINTUN_GET_ADAPTER_LUID_FUNC *function = atomic_load(&known);
    if (!function)
    {
        HMODULE library = GetModuleHandleW(L"wintun.dll");
        FARPROC address = library ? GetProcAddress(library, "WintunGetAdapterLUID") : NULL;
        function = (WINTUN_GET_ADAPTER_LUID_FUNC *)(any_function)address;
        atomic_store(&known, function);
    }
    return function;
}

/* The device of an adapter of wintun.dll, also of one that was removed; else NULL. */
static device *
device_of(WINTUN_ADAPTER_HANDLE adapter)
{
    WINTUN_GET_ADAPTER_LUID_FUNC *get_luid = luid_function();
    device *found = NULL;
    NET_LUID luid;
    if (get_luid && adapter)
    {
        get_luid(adapter, &luid);
        devices_enter();
        found = device_numbered((DWORD)(luid.Value >> 24 & 0xFFFFFF));
        devices_leave();
    }
    return found;
}

/* ---- The simulator ---- */

static DWORD
attach(WINTUN_ADAPTER_HANDLE adapter)
{
    device *of = device_of(adapter);
    direction *outgoing = direction_new(SERVED_BY_SIMULATOR);
    direction *incoming = direction_new(SERVED_BY_SIMULATOR);
    devices_enter();
    DWORD code = ERROR_SUCCESS;
    if (!outgoing || !incoming)
        code = ERROR_NOT_ENOUGH_MEMORY;
    else if (!of || !of->present)
        code = ERROR_NOT_FOUND;
    else if (of->session)
        code = ERROR_BUSY;
    else
    {
        of->outgoing = outgoing;
        of->incoming = incoming;
    }
    devices_leave();
    return code;
}

/* The direction that a call of the simulator is about, entered, after the simulator's delay; NULL with a code. */
static direction *
enter_simulated(WINTUN_ADAPTER_HANDLE adapter, bool incoming, DWORD *code)
{
    device *of = device_of(adapter);
    *code = ERROR_NOT_SUPPORTED;
    if (!of)
        return NULL;
    devices_enter();
    direction *entered = incoming ? of->incoming : of->outgoing;
    devices_leave();
    if (entered->service != SERVED_BY_SIMULATOR)
        return NULL;
    direction_enter(entered);
    if (!(incoming ? entered->to : entered->from))
    {
        direction_leave(entered);
        *code = ERROR_HANDLE_EOF;
        return NULL;
    }
    *code = ERROR_SUCCESS;
    return entered;
}

static void
sleep_delay(WINTUN_ADAPTER_HANDLE adapter)
{
    const device *of = device_of(adapter);
    DWORD microseconds = of ? atomic_load(&of->delay) : 0;
    if (microseconds != 0)
        os_sleep((int64_t)microseconds * 1000);
}

static DWORD
inject(WINTUN_ADAPTER_HANDLE adapter, const tunring_packet *chain, DWORD count)
{
    sleep_delay(adapter);
    DWORD code;
    direction *incoming = enter_simulated(adapter, true, &code);
    if (incoming)
    {
        code = driver_inject(incoming, chain, count) ? ERROR_SUCCESS : ERROR_BUFFER_OVERFLOW;
        direction_leave(incoming);
    }
    return code;
}

/* Takes the oldest packet that passes the driver's filter. */
static DWORD
take_packet(registration *from, BYTE *buffer, DWORD *room)
{
    const BYTE *packet;
    uint32_t size;
    DWORD code;
    while ((code = ring_host_peek(&from->send, &packet, &size)) == ERROR_SUCCESS && !tunring_packet_is_ip(packet, size))
    {
        from->counters->filtered++;
        ring_host_take(&from->send, size);
    }
    if (code != ERROR_SUCCESS)
        return code;
    if (size > *room)
        code = ERROR_BUFFER_OVERFLOW;
    else
    {
        memcpy(buffer, packet, size);
        ring_host_take(&from->send, size);
        from->counters->taken++;
    }
    *room = size;
    return code;
}

static DWORD
drain(WINTUN_ADAPTER_HANDLE adapter, BYTE *buffer, DWORD *size)
{
    sleep_delay(adapter);
    DWORD code;
    direction *outgoing = enter_simulated(adapter, false, &code);
    if (outgoing)
    {
        code = take_packet(outgoing->from, buffer, size);
        direction_leave(outgoing);
    }
    return code;
}

/* The size word of the oldest packet in a ring. In S that is the oldest that was not released: what the DLL has
 * received beyond it, the host can't know. */
static DWORD
corrupt_size(const ring_side *side, DWORD value)
{
    DWORD head = ring_host_head(side);
    if (head == ring_host_tail(side) || head >= side->capacity)
        return ERROR_NO_MORE_ITEMS;
    atomic_store(ring_size_word(side->ring->data + head + sizeof(uint32_t)), value);
    return ERROR_SUCCESS;
}

static DWORD
corrupt_receive(registration *session, tunring_corruption what, DWORD value)
{
    DWORD code = ERROR_SUCCESS;
    if (what == TUNRING_CORRUPT_RECEIVE_TAIL)
        atomic_store(&session->receive.ring->tail, value);
    else
        code = corrupt_size(&session->receive, value);
    SetEvent(session->receive_event);
    return code;
}

static DWORD
corrupt_send(registration *session, tunring_corruption what, DWORD value)
{
    if (what == TUNRING_CORRUPT_SEND_HEAD)
    {
        atomic_store(&session->send.ring->head, value);
        return ERROR_SUCCESS;
    }
    return corrupt_size(&session->send, value);
}

static DWORD
corrupt(WINTUN_ADAPTER_HANDLE adapter, tunring_corruption what, DWORD value)
{
    bool receive = what == TUNRING_CORRUPT_RECEIVE_TAIL || what == TUNRING_CORRUPT_RECEIVE_SIZE;
    DWORD code;
    direction *entered = enter_simulated(adapter, receive, &code);
    if (entered)
    {
        code = receive ? corrupt_receive(entered->to, what, value) : corrupt_send(entered->from, what, value);
        direction_leave(entered);
    }
    return code;
}

static DWORD
delay(WINTUN_ADAPTER_HANDLE adapter, DWORD microseconds)
{
    device *of = device_of(adapter);
    if (!of)
        return ERROR_NOT_SUPPORTED;
    atomic_store(&of->delay, microseconds);
    return ERROR_SUCCESS;
}

static DWORD
remove_adapter(WINTUN_ADAPTER_HANDLE adapter)
{
    const device *of = device_of(adapter);
    return of && device_remove(of->number) ? ERROR_SUCCESS : ERROR_NOT_FOUND;
}

const tunring_simulator StandinSimulator = {
    .attach = attach,
    .inject = inject,
    .drain = drain,
    .corrupt = corrupt,
    .delay = delay,
    .remove = remove_adapter,
    .stale_ends = device_stale_closes,
};

/* ---- Cables ---- */

static void
plug_together(device *left, device *right)
{
    left->outgoing->service = SERVED_BY_CABLE;
    left->incoming->service = SERVED_BY_CABLE;
    right->outgoing = left->incoming;
    right->incoming = left->outgoing;
}

DWORD
StandinConnect(WINTUN_ADAPTER_HANDLE Left, WINTUN_ADAPTER_HANDLE Right)
{
    device *left = device_of(Left);
    device *right = device_of(Right);
    devices_enter();
    DWORD code = ERROR_SUCCESS;
    if (!left || !right || !left->present || !right->present)
        code = ERROR_NOT_FOUND;
    else if (right->session || (left->session && left->outgoing->service != SERVED_BY_CABLE))
        code = ERROR_BUSY;
    else
        plug_together(left, right);
    devices_leave();
    return code;
}

void
StandinSettle(void)
{
    device_settle();
}

/* ---- Figures and states ---- */

DWORD
StandinCounters(WINTUN_ADAPTER_HANDLE Adapter, standin_counters *Counters)
{
    const device *of = device_of(Adapter);
    if (!of)
        return ERROR_NOT_FOUND;
    *Counters = of->counters;
    return ERROR_SUCCESS;
}

void
StandinDriverState(BOOL InStore, BOOL Loaded)
{
    atomic_store(&standin_system.driver_in_store, InStore != 0);
    atomic_store(&standin_system.driver_loaded, Loaded != 0);
}

void
StandinElevated(BOOL Elevated)
{
    atomic_store(&standin_system.elevated, Elevated != 0);
}

DWORD
StandinAdapterCount(void)
{
    devices_enter();
    DWORD count = device_count();
    devices_leave();
    return count;
}
