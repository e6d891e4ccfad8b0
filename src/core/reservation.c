/* SPDX-License-Identifier: MIT
 *
 * The slots of a reservation, whole, shrunk or dropped, and how they go out. lease.c says who may still hold one.
 */
#include "core/reservation.h"

#include "core/table.h"

#include <stdlib.h>
#include <string.h>

/* From here on `sizes` has what was reserved. False without memory. */
static bool
note_sizes(tunring_lease *lease)
{
    if (lease->sizes)
        return true;
    uint32_t *sizes = table_alloc(0, lease->count, sizeof(*sizes));
    if (!sizes)
        return false;
    for (uint32_t i = 0; i < lease->count; i++)
        sizes[i] = lease->slots[i].length;
    lease->sizes = sizes;
    return true;
}

bool
tunring_lease_slot_dropped(const tunring_lease *lease, uint32_t index)
{
    return lease->sizes && lease->sizes[index] == 0;
}

DWORD
tunring_lease_drop_slot(tunring_lease *lease, uint32_t index)
{
    if (!note_sizes(lease))
        return ERROR_NOT_ENOUGH_MEMORY;
    if (!tunring_lease_slot_dropped(lease, index))
        lease->bytes -= lease->slots[index].length;
    lease->sizes[index] = 0;
    return ERROR_SUCCESS;
}

DWORD
tunring_lease_shrink_slot(tunring_lease *lease, uint32_t index, uint32_t length)
{
    if (!note_sizes(lease))
        return ERROR_NOT_ENOUGH_MEMORY;
    lease->bytes -= lease->slots[index].length - length;
    lease->slots[index].length = length;
    return ERROR_SUCCESS;
}

/* Makes filler of the slots that were dropped, and those smaller that were shrunk. Returns how many were dropped. */
static uint32_t
finish_slots(const tunring_session *session, const tunring_lease *lease)
{
    const tunring_backend *backend = session->api->backend;
    uint32_t dropped = 0;
    for (uint32_t i = 0; i < lease->count; i++)
    {
        const tunring_slot *slot = &lease->slots[i];
        const uint32_t size = lease->sizes[i];
        if (!size)
        {
            dropped++;
            if (slot->length)
                slot->data[0] = 0;
        }
        else if (size > slot->length && backend)
            backend->shorten(session->handle, slot->data, slot->length);
        else
            /* The ring's size words are the library's. Bytes that old packets left there are not for the host. */
            memset(slot->data + slot->length, 0, size - slot->length);
    }
    return dropped;
}

/* Captures the slots between those that were dropped. */
static void
capture_sent(tunring_session *session, const tunring_lease *lease)
{
    const int64_t now = os_wall_clock();
    for (uint32_t i = 0; i < lease->count; i++)
    {
        const uint32_t first = i;
        while (i < lease->count && !tunring_lease_slot_dropped(lease, i))
            i++;
        if (i > first)
            session_capture_write(&session->source.capture, TUNRING_SENT, now,
                                  &(tunring_captured){.slots = &lease->slots[first], .count = i - first});
    }
}

void
reservation_send(tunring_session *session, const tunring_lease *lease)
{
    const uint32_t dropped = lease->sizes ? finish_slots(session, lease) : 0;
    if (session_captures(&session->source.capture, TUNRING_SENT))
        capture_sent(session, lease);
    /* The oldest last: it publishes them all. */
    for (uint32_t i = lease->count; i-- > 0;)
        session->api->WintunSendPacket(session->handle, lease->slots[i].data);
    wake_guard_note(&session->watch);
    source_counts *counts = &session->source.counts;
    count_add(&counts->sent_packets, lease->count - dropped);
    count_add(&counts->sent_bytes, lease->bytes);
    count_add(&counts->sent_batches, 1);
    if (dropped)
        count_add(&counts->fillers, dropped);
}

bool
tunring_lease_commit_is_short(const tunring_lease *lease)
{
    const tunring_session *session = session_of(lease->source);
    const tunring_backend *backend = session->api->backend;
    return lease->count == 1 && !(backend && backend->sends_by_system_call) &&
           !session_captures(&session->source.capture, TUNRING_SENT);
}
