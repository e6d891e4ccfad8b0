/* SPDX-License-Identifier: MIT
 *
 * The host half of a simulated adapter, driven by a test.
 *
 * Without a session at the adapter, the calls that need one return ERROR_HANDLE_EOF; without attach() before,
 * ERROR_NOT_SUPPORTED. A session whose adapter was removed is stale: its memory stays until WintunEndSession, which the
 * simulator counts and which frees it, as the official DLL would.
 */
#include "backends/loopback/simulator.h"

#include "backends/loopback/loopback.h"

#include <string.h>

static void
swap(cable_direction **left, cable_direction **right)
{
    cable_direction *kept = *left;
    *left = *right;
    *right = kept;
}

static DWORD
simulator_attach(WINTUN_ADAPTER_HANDLE handle)
{
    loopback_adapter *adapter = handle->adapter;
    cable_direction *outgoing = cable_direction_new(true);
    cable_direction *incoming = cable_direction_new(true);
    registry_enter();
    DWORD code = ERROR_SUCCESS;
    if (!outgoing || !incoming)
        code = ERROR_NOT_ENOUGH_MEMORY;
    else if (!adapter->present)
        code = ERROR_NOT_FOUND;
    else if (adapter->session)
        code = ERROR_BUSY;
    else if (!adapter->simulated)
    {
        /* The cable keeps its other end. */
        swap(&adapter->outgoing, &outgoing);
        swap(&adapter->incoming, &incoming);
        adapter->simulated = true;
    }
    registry_leave();
    cable_direction_drop(outgoing);
    cable_direction_drop(incoming);
    return code;
}

static bool
is_simulated(const loopback_adapter *adapter)
{
    registry_enter();
    bool simulated;
    simulated = adapter->simulated;
    registry_leave();
    return simulated;
}

static void
sleep_delay(loopback_adapter *adapter)
{
    uint32_t microseconds = atomic_load(&adapter->delay);
    if (microseconds != 0)
        os_sleep((int64_t)microseconds * 1000);
}

static DWORD
simulator_inject(WINTUN_ADAPTER_HANDLE handle, const tunring_packet *chain, DWORD count)
{
    loopback_adapter *adapter = handle->adapter;
    if (!is_simulated(adapter))
        return ERROR_NOT_SUPPORTED;
    sleep_delay(adapter);
    cable_direction *direction = adapter->incoming;
    ring_lock_enter(&direction->lock);
    cable_end *end = direction->to;
    DWORD code = ERROR_SUCCESS;
    if (!end)
        code = ERROR_HANDLE_EOF;
    else if (ring_host_put_chain(&end->rings.receive, chain, count))
        cable_update_event(end);
    else
    {
        atomic_fetch_add(&end->dropped, count);
        code = ERROR_BUFFER_OVERFLOW;
    }
    ring_lock_leave(&direction->lock, cable_move, direction);
    return code;
}

/* Takes the oldest packet that passes the driver's filter. */
static DWORD
take_packet(cable_end *end, BYTE *buffer, DWORD *room)
{
    const BYTE *packet;
    uint32_t size;
    DWORD code = ring_host_peek(&end->rings.send, &packet, &size);
    while (code == ERROR_SUCCESS && !tunring_packet_is_ip(packet, size))
    {
        atomic_fetch_add(&end->filtered, 1);
        ring_host_take(&end->rings.send, size);
        code = ring_host_peek(&end->rings.send, &packet, &size);
    }
    if (code != ERROR_SUCCESS)
        return code;
    if (size > *room)
        code = ERROR_BUFFER_OVERFLOW;
    else
    {
        memcpy(buffer, packet, size);
        ring_host_take(&end->rings.send, size);
    }
    *room = size;
    return code;
}

static DWORD
simulator_drain(WINTUN_ADAPTER_HANDLE handle, BYTE *buffer, DWORD *size)
{
    loopback_adapter *adapter = handle->adapter;
    if (!is_simulated(adapter))
        return ERROR_NOT_SUPPORTED;
    sleep_delay(adapter);
    cable_direction *direction = adapter->outgoing;
    ring_lock_enter(&direction->lock);
    DWORD code = ERROR_HANDLE_EOF;
    if (direction->from)
        code = take_packet(direction->from, buffer, size);
    ring_lock_leave(&direction->lock, cable_move, direction);
    return code;
}

/* Overwrites the size word of the packet at `offset`, if there is one before `tail`. */
static DWORD
corrupt_size(ring_side *side, uint32_t offset, DWORD value)
{
    if (offset == atomic_load(&side->ring->tail) || offset >= side->capacity)
        return ERROR_NO_MORE_ITEMS;
    atomic_store(ring_size_word(side->ring->data + offset + sizeof(uint32_t)), value);
    return ERROR_SUCCESS;
}

static DWORD
corrupt_receive(cable_end *end, tunring_corruption what, DWORD value)
{
    ring_side *side = &end->rings.receive;
    DWORD code = ERROR_SUCCESS;
    if (what == TUNRING_CORRUPT_RECEIVE_TAIL)
        atomic_store(&side->ring->tail, value);
    else
        code = corrupt_size(side, atomic_load(&side->next), value);
    cable_update_event(end);
    return code;
}

static DWORD
corrupt_send(cable_end *end, tunring_corruption what, DWORD value)
{
    ring_side *side = &end->rings.send;
    if (what == TUNRING_CORRUPT_SEND_HEAD)
    {
        atomic_store(&side->ring->head, value);
        return ERROR_SUCCESS;
    }
    return corrupt_size(side, atomic_load(&side->ring->head), value);
}

static DWORD
simulator_corrupt(WINTUN_ADAPTER_HANDLE handle, tunring_corruption what, DWORD value)
{
    loopback_adapter *adapter = handle->adapter;
    bool receive = what == TUNRING_CORRUPT_RECEIVE_TAIL || what == TUNRING_CORRUPT_RECEIVE_SIZE;
    if (!is_simulated(adapter))
        return ERROR_NOT_SUPPORTED;
    cable_direction *direction = receive ? adapter->incoming : adapter->outgoing;
    ring_lock_enter(&direction->lock);
    cable_end *end = receive ? direction->to : direction->from;
    DWORD code = ERROR_HANDLE_EOF;
    if (end)
        code = receive ? corrupt_receive(end, what, value) : corrupt_send(end, what, value);
    ring_lock_leave(&direction->lock, cable_move, direction);
    return code;
}

static DWORD
simulator_delay(WINTUN_ADAPTER_HANDLE handle, DWORD microseconds)
{
    if (!is_simulated(handle->adapter))
        return ERROR_NOT_SUPPORTED;
    atomic_store(&handle->adapter->delay, microseconds);
    return ERROR_SUCCESS;
}

static DWORD
simulator_remove(WINTUN_ADAPTER_HANDLE handle)
{
    loopback_adapter *adapter = handle->adapter;
    registry_enter();
    DWORD code = ERROR_SUCCESS;
    if (!adapter->simulated)
        code = ERROR_NOT_SUPPORTED;
    else if (!adapter->present)
        code = ERROR_NOT_FOUND;
    else
        loopback_remove(adapter);
    registry_leave();
    return code;
}

const tunring_simulator simulator = {
    .attach = simulator_attach,
    .inject = simulator_inject,
    .drain = simulator_drain,
    .corrupt = simulator_corrupt,
    .delay = simulator_delay,
    .remove = simulator_remove,
    .stale_ends = loopback_stale_ends,
};
