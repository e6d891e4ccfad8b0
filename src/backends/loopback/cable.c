/* SPDX-License-Identifier: MIT
 *
 * The cable's directions and their mover.
 */
#include "backends/loopback/cable.h"

#include <stdlib.h>
#include <string.h>

cable_direction *
cable_direction_new(bool manual)
{
    cable_direction *direction = calloc(1, sizeof(*direction));
    if (direction)
    {
        ring_lock_init(&direction->lock);
        atomic_init(&direction->references, 1);
        direction->manual = manual;
    }
    return direction;
}

cable_direction *
cable_direction_hold(cable_direction *direction)
{
    atomic_fetch_add(&direction->references, 1);
    return direction;
}

void
cable_direction_drop(cable_direction *direction)
{
    if (direction && atomic_fetch_sub(&direction->references, 1) == 1)
    {
        ring_lock_destroy(&direction->lock);
        free(direction);
    }
}

void
cable_update_event(cable_end *end)
{
    bool readable = end->kept || ring_readable(&end->rings.receive);
    if (readable == end->event_is_set)
        return;
    end->event_is_set = readable;
    if (readable)
        os_event_set(&end->event);
    else
        os_event_clear(&end->event);
}

/* A place in the far ring. When there is none, sets `stalled` and looks again: room that was made before is
 * found by this second look, and whoever makes some after it finds the word set. */
static BYTE *
place_or_stall(cable_direction *direction, uint32_t at, uint32_t size)
{
    BYTE *place = ring_host_place(&direction->to->rings.receive, at, size);
    if (!place)
    {
        atomic_exchange(&direction->stalled, 1);
        place = ring_host_place(&direction->to->rings.receive, at, size);
    }
    return place;
}

/* Copies packets into the far ring until there are none or no room. They become visible at once, at the end. */
static void
move_packets(cable_direction *direction)
{
    cable_end *from = direction->from;
    ring_side *target = &direction->to->rings.receive;
    uint32_t start = ring_host_tail(target);
    uint32_t at = start;
    uint32_t next = ring_host_head(&from->rings.send);
    const BYTE *packet;
    uint32_t size;
    while (ring_host_next(&from->rings.send, &next, &packet, &size) == ERROR_SUCCESS)
    {
        if (tunring_packet_is_ip(packet, size))
        {
            BYTE *place = place_or_stall(direction, at, size);
            if (!place)
                break;
            memcpy(place, packet, size);
            at = ring_host_fill(target, at, size);
        }
        else
            atomic_fetch_add(&from->filtered, 1);
        ring_host_take_to(&from->rings.send, size, next);
    }
    if (at != start)
        ring_host_show(target, at);
}

static void
drop_packets(cable_end *from)
{
    const BYTE *packet;
    uint32_t size;
    while (ring_host_peek(&from->rings.send, &packet, &size) == ERROR_SUCCESS)
    {
        atomic_fetch_add(tunring_packet_is_ip(packet, size) ? &from->dropped : &from->filtered, 1);
        ring_host_take(&from->rings.send, size);
    }
}

void
cable_move(void *context)
{
    cable_direction *direction = context;
    if (direction->from && !direction->manual)
    {
        atomic_exchange(&direction->stalled, 0);
        if (direction->to)
            move_packets(direction);
        else
            drop_packets(direction->from);
    }
    if (direction->to)
        cable_update_event(direction->to);
}

/* ---- Sessions ---- */

DWORD
cable_end_open(cable_end *end, DWORD capacity, cable_direction *outgoing, cable_direction *incoming)
{
    DWORD code = ring_pair_open(&end->rings, capacity);
    if (code != ERROR_SUCCESS)
        return code;
    if (!os_event_open(&end->event))
    {
        code = GetLastError();
        ring_pair_close(&end->rings);
        return code;
    }
    /* Nobody ever clears it: the host wants to hear of every publication. */
    atomic_store(&end->rings.send.ring->alertable, 1);
    end->has_event = true;
    end->event_is_set = end->kept = false;
    atomic_init(&end->published, false);
    atomic_init(&end->reclaimed, false);
    atomic_init(&end->dropped, 0);
    atomic_init(&end->filtered, 0);
    end->outgoing = cable_direction_hold(outgoing);
    end->incoming = cable_direction_hold(incoming);
    return ERROR_SUCCESS;
}

void
cable_end_close_event(cable_end *end)
{
    if (end->has_event)
        os_event_close(&end->event);
    end->has_event = false;
}

void
cable_end_close(cable_end *end)
{
    cable_direction_drop(end->incoming);
    cable_direction_drop(end->outgoing);
    cable_end_close_event(end);
    ring_pair_close(&end->rings);
}

void
cable_plug(cable_end *end)
{
    ring_lock_enter(&end->incoming->lock);
    end->incoming->to = end;
    cable_move(end->incoming);
    ring_lock_leave(&end->incoming->lock, cable_move, end->incoming);

    ring_lock_enter(&end->outgoing->lock);
    end->outgoing->from = end;
    ring_lock_leave(&end->outgoing->lock, cable_move, end->outgoing);
}

/* The receive direction is over: the read event is set for good. */
static void
end_event(cable_end *end)
{
    if (!end->event_is_set)
        os_event_set_if_ours(&end->event);
    end->event_is_set = true;
}

/* In the driver's order: the send direction, the receive direction, the event. */
void
cable_unplug(cable_end *end)
{
    ring_lock_enter(&end->outgoing->lock);
    if (end->outgoing->from == end)
    {
        cable_move(end->outgoing);
        if (!end->outgoing->manual)
            drop_packets(end);
        end->outgoing->from = NULL;
    }
    ring_host_end_send(&end->rings.send);
    ring_lock_leave(&end->outgoing->lock, cable_move, end->outgoing);

    ring_lock_enter(&end->incoming->lock);
    ring_host_end_receive(&end->rings.receive);
    end_event(end);
    if (end->incoming->to == end)
    {
        end->incoming->to = NULL;
        /* The packets in the near end's ring are for nobody now. */
        cable_move(end->incoming);
    }
    ring_lock_leave(&end->incoming->lock, cable_move, end->incoming);
}

/* ---- The four calls ---- */

static void
publish(void *context)
{
    cable_end *end = context;
    if (ring_publish(&end->rings.send) == RING_WAKE)
        atomic_store(&end->published, true);
}

static void
reclaim(void *context)
{
    cable_end *end = context;
    if (ring_reclaim(&end->rings.receive))
        atomic_store(&end->reclaimed, true);
}

/* The thread that lets go of a ring's lock may have done what others asked for. The mover must hear of it, and not
 * under that lock. */
static void
tell_outgoing(cable_end *end)
{
    if (atomic_load(&end->published) && atomic_exchange(&end->published, false))
        ring_lock_combine(&end->outgoing->lock, cable_move, end->outgoing);
}

static void
tell_incoming(cable_end *end)
{
    /* `stalled` is read by a read-modify-write, so that it and the mover's are in one order. */
    if (atomic_load(&end->reclaimed) && atomic_exchange(&end->reclaimed, false) &&
        atomic_fetch_or(&end->incoming->stalled, 0) != 0)
    {
        ring_lock_combine(&end->incoming->lock, cable_move, end->incoming);
    }
}

/* Takes up to `count` packets, without asking the near end for more. *last is true if nothing is left behind them.
 * The last error is set if there were fewer. */
static uint32_t
take(cable_end *end, tunring_slot *slots, uint32_t count, bool *last)
{
    ring_lock_enter(&end->rings.receive.lock);
    uint32_t taken = ring_receive_many(&end->rings.receive, slots, count);
    DWORD code = ERROR_SUCCESS;
    if (taken < count)
        code = GetLastError();
    *last = !ring_readable(&end->rings.receive);
    ring_lock_leave(&end->rings.receive.lock, reclaim, end);
    tell_incoming(end);
    if (taken < count)
        SetLastError(code);
    return taken;
}

/* An idle ring starts again at its beginning, which is in the cache. The near end's lock is only tried: its holder may
 * be asking for this direction. */
static void
rewind_rings(cable_direction *direction)
{
    cable_end *from = direction->from;
    cable_end *to = direction->to;
    ring_lock_enter(&to->rings.receive.lock);
    ring_host_rewind(&to->rings.receive);
    ring_lock_leave(&to->rings.receive.lock, reclaim, to);
    if (from && os_mutex_trylock(&from->rings.send.lock.mutex))
    {
        ring_host_rewind(&from->rings.send);
        ring_lock_leave(&from->rings.send.lock, publish, from);
    }
}

/* The ring is empty: fetches what the near end has, and updates the event. */
static void
fetch(cable_end *end)
{
    cable_direction *direction = end->incoming;
    ring_lock_enter(&direction->lock);
    if (direction->to == end)
    {
        if (!direction->manual)
            rewind_rings(direction);
        cable_move(direction);
    }
    ring_lock_leave(&direction->lock, cable_move, direction);
}

uint32_t
cable_receive(cable_end *end, tunring_slot *slots, uint32_t count)
{
    DWORD last_error = GetLastError();
    bool last;
    uint32_t taken = take(end, slots, count, &last);
    uint32_t more = 1;
    while (taken < count && last && more > 0)
    {
        fetch(end);
        more = take(end, slots + taken, count - taken, &last);
        taken += more;
    }
    /* The event must not stay set for a packet that is taken. */
    if (taken == count && last)
        fetch(end);
    if (taken > 0)
        SetLastError(last_error);
    return taken;
}

void
cable_release(cable_end *end, const tunring_slot *slots, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        ring_mark_released(slots[i].data);
    ring_lock_combine(&end->rings.receive.lock, reclaim, end);
    tell_incoming(end);
}

void
cable_report_kept(cable_end *end, bool kept)
{
    ring_lock_enter(&end->incoming->lock);
    end->kept = kept;
    if (end->has_event)
        cable_update_event(end);
    ring_lock_leave(&end->incoming->lock, cable_move, end->incoming);
}

/* The caller has the lock, which this gives up. */
static BYTE *
allocate_locked(cable_end *end, DWORD size)
{
    BYTE *packet = ring_allocate(&end->rings.send, size);
    DWORD code = ERROR_SUCCESS;
    if (!packet)
        code = GetLastError();
    ring_lock_leave(&end->rings.send.lock, publish, end);
    tell_outgoing(end);
    if (!packet)
        SetLastError(code);
    return packet;
}

BYTE *
cable_allocate(cable_end *end, DWORD size)
{
    ring_lock_enter(&end->rings.send.lock);
    return allocate_locked(end, size);
}

BYTE *
cable_allocate_now(cable_end *end, DWORD size)
{
    if (ring_lock_try(&end->rings.send.lock))
        return allocate_locked(end, size);
    SetLastError(ERROR_BUSY);
    return NULL;
}

void
cable_send(cable_end *end, const BYTE *packet)
{
    ring_mark_ready(packet);
    ring_lock_combine(&end->rings.send.lock, publish, end);
    tell_outgoing(end);
}

DWORD
cable_send_many(cable_end *end, const tunring_packet *packets, DWORD count, DWORD *sent)
{
    ring_side *side = &end->rings.send;
    ring_lock_enter(&side->lock);
    DWORD code = ERROR_SUCCESS;
    for (*sent = 0; *sent < count; ++*sent)
    {
        const tunring_packet *packet = &packets[*sent];
        BYTE *slot = ring_allocate(side, packet->length);
        if (!slot)
        {
            code = GetLastError();
            break;
        }
        memcpy(slot, packet->data, packet->length);
        ring_mark_ready(slot);
    }
    publish(end);
    ring_lock_leave(&side->lock, publish, end);
    tell_outgoing(end);
    return code;
}

uint32_t
cable_room(cable_end *end)
{
    ring_lock_enter(&end->rings.send.lock);
    uint32_t room = ring_room(&end->rings.send);
    ring_lock_leave(&end->rings.send.lock, publish, end);
    tell_outgoing(end);
    return room;
}
