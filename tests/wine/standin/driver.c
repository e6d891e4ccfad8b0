/* SPDX-License-Identifier: MIT
 *
 * driver.h: registration, and the movement of packets.
 */
#include "driver.h"

#include "driver_thread.h"

#include <stdlib.h>
#include <string.h>

direction *
direction_new(service service)
{
    direction *made = calloc(1, sizeof(*made));
    if (made)
    {
        os_mutex_init(&made->lock);
        made->service = service;
    }
    return made;
}

void
direction_enter(direction *direction)
{
    os_mutex_lock(&direction->lock);
}

void
direction_leave(direction *direction)
{
    os_mutex_unlock(&direction->lock);
}

/* ---- Moving ---- */

/* Takes what the near end sent, to nowhere. */
static void
drop_packets(registration *from)
{
    const BYTE *packet;
    uint32_t size;
    while (ring_host_peek(&from->send, &packet, &size) == ERROR_SUCCESS)
    {
        if (tunring_packet_is_ip(packet, size))
        {
            from->counters->taken++;
            from->counters->dropped++;
        }
        else
            from->counters->filtered++;
        ring_host_take(&from->send, size);
    }
}

/* Into the far ring, until there are none or no room. They become visible at once, at the end. */
static void
move_packets(registration *from, registration *to)
{
    uint32_t start = ring_host_tail(&to->receive);
    uint32_t at = start;
    bool room = true;
    const BYTE *packet;
    uint32_t size;
    while (room && ring_host_peek(&from->send, &packet, &size) == ERROR_SUCCESS)
    {
        bool passes = tunring_packet_is_ip(packet, size);
        BYTE *place = passes ? ring_host_place(&to->receive, at, size) : NULL;
        room = !passes || place;
        if (place)
        {
            memcpy(place, packet, size);
            at = ring_host_fill(&to->receive, at, size);
            from->counters->taken++;
        }
        else if (!passes)
            from->counters->filtered++;
        if (room)
            ring_host_take(&from->send, size);
    }
    if (at != start)
    {
        ring_host_show(&to->receive, at);
        SetEvent(to->receive_event);
    }
    if (!room)
        SetEvent(from->stalled);
    else
        ResetEvent(from->stalled);
}

void
driver_move(direction *direction)
{
    if (!direction->from || direction->service == SERVED_BY_SIMULATOR)
        return;
    if (direction->to && direction->service == SERVED_BY_CABLE)
        move_packets(direction->from, direction->to);
    else
        drop_packets(direction->from);
}

bool
driver_inject(direction *direction, const tunring_packet *chain, DWORD count)
{
    registration *session = direction->to;
    if (!ring_host_put_chain(&session->receive, chain, count))
    {
        session->counters->dropped += count;
        return false;
    }
    SetEvent(session->receive_event);
    return true;
}

/* ---- Sessions ---- */

static bool
open_side(ring_side *side, const registered_ring *from)
{
    side->ring = from->ring;
    side->capacity = from->size - (DWORD)sizeof(ring) - RING_SPILL;
    return ring_capacity_valid(side->capacity) && from->ring && from->event;
}

/* A connected device's host hears of every publication, so the near end's SetEvent() is what moves its packets. */
static void
plug(registration *session)
{
    direction_enter(session->incoming);
    session->incoming->to = session;
    driver_move(session->incoming);
    direction_leave(session->incoming);

    direction_enter(session->outgoing);
    session->outgoing->from = session;
    if (session->outgoing->service == SERVED_BY_CABLE)
        atomic_exchange(&session->send.ring->alertable, 1);
    direction_leave(session->outgoing);
}

void
driver_free(registration *session)
{
    HANDLE handles[] = {session->disconnected, session->stalled, session->thread};
    for (size_t i = 0; i < sizeof(handles) / sizeof(handles[0]); i++)
        if (handles[i])
            CloseHandle(handles[i]);
    free(session);
}

DWORD
driver_register(const registered_rings *rings, HANDLE owner, direction *outgoing, direction *incoming,
                standin_counters *counters, registration **result)
{
    DWORD code = ERROR_INVALID_PARAMETER;
    registration *session = calloc(1, sizeof(*session));
    if (!session)
        return ERROR_NOT_ENOUGH_MEMORY;
    if (!open_side(&session->receive, &rings->receive) || !open_side(&session->send, &rings->send) ||
        ring_host_tail(&session->receive) >= session->receive.capacity)
    {
        goto cleanup;
    }
    memset(counters, 0, sizeof(*counters));
    session->owner = owner;
    session->receive_event = rings->receive.event;
    session->send_event = rings->send.event;
    session->outgoing = outgoing;
    session->incoming = incoming;
    session->counters = counters;
    session->disconnected = CreateEventW(NULL, TRUE, FALSE, NULL);
    session->stalled = CreateEventW(NULL, TRUE, FALSE, NULL);
    if (!session->disconnected || !session->stalled)
    {
        code = GetLastError();
        goto cleanup;
    }
    plug(session);
    if (outgoing->service != SERVED_BY_SIMULATOR)
        session->thread = CreateThread(NULL, 0, driver_thread, session, 0, NULL);
    *result = session;
    return ERROR_SUCCESS;

cleanup:
    driver_free(session);
    return code;
}

void
driver_unregister(registration *session)
{
    SetEvent(session->disconnected);
    if (session->thread)
        WaitForSingleObject(session->thread, INFINITE);
    /* In the driver's order: the send direction, the receive direction, the event. */
    direction_enter(session->outgoing);
    driver_move(session->outgoing);
    if (session->outgoing->service != SERVED_BY_SIMULATOR)
        drop_packets(session);
    session->outgoing->from = NULL;
    ring_host_end_send(&session->send);
    direction_leave(session->outgoing);

    direction_enter(session->incoming);
    ring_host_end_receive(&session->receive);
    SetEvent(session->receive_event);
    session->incoming->to = NULL;
    /* The packets in the near end's ring are for nobody now. */
    driver_move(session->incoming);
    direction_leave(session->incoming);
}
