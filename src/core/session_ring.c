/* SPDX-License-Identifier: MIT
 *
 * A session's operations as a source: packets out of the library's receive ring, slots back into it, and reserved slots
 * that were given up.
 */
#include "core/lease.h"
#include "core/session.h"
#include "platform/wait.h"

/* Takes packets until the ring is empty or the lease full. */
static DWORD
take_singly(tunring_session *session, tunring_lease *lease, uint32_t room)
{
    WINTUN_RECEIVE_PACKET_FUNC *const receive = session->api->WintunReceivePacket;
    const WINTUN_SESSION_HANDLE handle = session->handle;
    DWORD code = ERROR_SUCCESS;
    uint32_t count = lease->count;
    uint64_t bytes = lease->bytes;
    for (; count < room; count++)
    {
        DWORD size;
        BYTE *packet = receive(handle, &size);
        if (!packet)
        {
            code = GetLastError();
            break;
        }
        lease_fill(lease, count, packet, size);
        bytes += size;
    }
    lease->count = count;
    lease->bytes = bytes;
    return code;
}

/* The same by one call of our own libraries. */
static DWORD
take_at_once(tunring_session *session, tunring_lease *lease, uint32_t room)
{
    const uint32_t wanted = room - lease->count;
    tunring_slot *slots = &lease->slots[lease->count];
    const uint32_t got = session->api->backend->receive_many(session->handle, slots, wanted);
    const DWORD code = got ? ERROR_NO_MORE_ITEMS : GetLastError();
    for (uint32_t i = 0; i < got; i++)
    {
        atomic_init(&slots[i].holds, HOLDS_ONE);
        lease->bytes += slots[i].length;
    }
    lease->count += got;
    return got == wanted ? ERROR_SUCCESS : code;
}

DWORD
session_receive_many(tunring_source *source, tunring_lease *lease, uint32_t room)
{
    tunring_session *session = session_of(source);
    return session->api->backend ? take_at_once(session, lease, room) : take_singly(session, lease, room);
}

/* An auto-reset event can be set by anybody: a waiter that it wakes looks for itself. */
void
session_report_kept(tunring_source *source, bool kept)
{
    tunring_session *session = session_of(source);
    if (session->api->backend)
        session->api->backend->report_kept(session->handle, kept);
    else if (kept && source->auto_reset)
        wait_rearm(source->read_event);
}

void
session_give_back(tunring_source *source, const tunring_slot *slots, uint32_t count)
{
    tunring_session *session = session_of(source);
    const tunring_api *api = session->api;
    if (api->backend)
    {
        api->backend->release_many(session->handle, slots, count);
        return;
    }
    for (uint32_t i = 0; i < count; i++)
        api->WintunReleaseReceivePacket(session->handle, slots[i].data);
}

/* A reserved slot can't be given back: it goes out as something that every host drops. */
void
session_abandon(tunring_source *source, const tunring_slot *slots, uint32_t count)
{
    tunring_session *session = session_of(source);
    for (uint32_t i = 0; i < count; i++)
    {
        if (slots[i].length)
            slots[i].data[0] = 0;
        session->api->WintunSendPacket(session->handle, slots[i].data);
        wake_guard_note(&session->watch);
        count_add(&source->counts.fillers, 1);
    }
}
