/* SPDX-License-Identifier: MIT
 *
 * Receiving a batch: take what is there, else spin or sleep until something is.
 */
#include "core/lease.h"
#include "core/spin.h"
#include "core/tap.h"
#include "platform/wait.h"

/* For a caller who gives no wait. */
static const tunring_wait look_once = {.deadline = 0};

/* Slots to start with: a batch costs memory by what came. */
#define FIRST_ROOM 64u

typedef struct receiver
{
    tunring_session *session;
    tunring_lease *lease;
    uint32_t max;
    bool consumed; /* a wait was ended by the read event, and no "empty" was seen since */
    spin spin;
} receiver;

/* Takes packets until the ring is empty or the lease full; 0 if it is full, else why it isn't. */
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
    const uint32_t most = room - lease->count;
    tunring_slot *slots = &lease->slots[lease->count];
    const uint32_t got = session->api->backend->receive_many(session->handle, slots, most);
    const DWORD code = got ? ERROR_NO_MORE_ITEMS : GetLastError();
    for (uint32_t i = 0; i < got; i++)
    {
        atomic_init(&slots[i].holds, 1);
        lease->bytes += slots[i].length;
    }
    lease->count += got;
    return got == most ? ERROR_SUCCESS : code;
}

/* 0 if the batch has any; an error behind them will come again. */
static DWORD
take_packets(receiver *self)
{
    tunring_session *session = self->session;
    const uint32_t max = self->max;
    DWORD code;
    do
    {
        const uint32_t room = self->lease->room < max ? self->lease->room : max;
        code =
            session->api->backend ? take_at_once(session, self->lease, room) : take_singly(session, self->lease, room);
    } while (code == ERROR_SUCCESS && self->lease->room < max && lease_grow(&self->lease, max));
    if (code == ERROR_NO_MORE_ITEMS)
        self->consumed = false;
    return self->lease->count ? ERROR_SUCCESS : code;
}

static DWORD
sleep_until_ready(receiver *self, const tunring_wait *wait)
{
    tunring_session *session = self->session;
    enum
    {
        STOP,
        INTERRUPT,
        CANCEL,
        READ
    };
    const HANDLE handles[] = {session->stop.wait, wait->interrupt, wait->cancel, session->read_event};
    int64_t began = os_now();
    if (began >= wait->deadline)
        return WAIT_TIMEOUT;
    count_add(&session->counts.waits, 1);
    switch (wait_any(handles, 4, wait->deadline))
    {
    case STOP:
        return ERROR_HANDLE_EOF;
    case INTERRUPT:
        return ERROR_OPERATION_ABORTED;
    case CANCEL:
        return ERROR_CANCELLED;
    case READ:
        self->consumed = true;
        count_add(&session->counts.wakes, 1);
        spin_learn(session, self->spin.until != 0, os_now() - began);
        self->spin = (spin){0};
        return ERROR_SUCCESS;
    case WAIT_NOTHING:
        return WAIT_TIMEOUT;
    default:
        return GetLastError();
    }
}

/* Before somebody else waits for the read event: a signal left over from packets that were taken without a wait would
 * end that wait for nothing. True if there was one, so that packets may have come with it. */
static bool
settle(receiver *self, const tunring_wait *wait)
{
    if (wait == &look_once || self->session->api->backend || !wait_settle(self->session->read_event))
        return false;
    self->consumed = true;
    return true;
}

static DWORD
wait_for_packets(receiver *self, const tunring_wait *wait)
{
    for (;;)
    {
        if (session_closing(self->session))
            return ERROR_HANDLE_EOF;
        DWORD code = take_packets(self);
        if (code == ERROR_SUCCESS && self->spin.until)
            spin_praise(self->session);
        if (code != ERROR_NO_MORE_ITEMS)
            return code;
        if (wait->deadline == 0)
        {
            if (!settle(self, wait))
                return WAIT_TIMEOUT;
            continue;
        }
        if (spin_again(self->session, &self->spin))
            continue;
        code = sleep_until_ready(self, wait);
        if (code != ERROR_SUCCESS)
            return code;
    }
}

static void
hand_over(receiver *self, tunring_lease **result)
{
    session_counts *counts = &self->session->counts;
    count_add(&counts->received_packets, self->lease->count);
    count_add(&counts->received_bytes, self->lease->bytes);
    count_add(&counts->received_batches, 1);
    if (tap_wants(self->session, TUNRING_RECEIVED))
        tap_write(self->session, TUNRING_RECEIVED, os_wall_clock(), NULL, self->lease->slots, self->lease->count);
    lease_bind(self->lease, self->session, false);
    *result = self->lease;
}

DWORD
tunring_receive(tunring_session *session, uint32_t max, const tunring_wait *wait, tunring_lease **result)
{
    receiver self = {.session = session, .max = max};
    if (!session_enter(session))
        return ERROR_HANDLE_EOF;
    DWORD code = ERROR_NOT_ENOUGH_MEMORY;
    self.lease = lease_new(max < FIRST_ROOM ? max : FIRST_ROOM);
    if (!self.lease)
        goto leave;
    code = wait_for_packets(&self, wait ? wait : &look_once);
    if (code == ERROR_SUCCESS)
        hand_over(&self, result);
    else
        tunring_lease_free(self.lease);
    if (code == ERROR_HANDLE_EOF && !session_closing(session))
        atomic_store(&session->removed, true);
    /* Our own libraries' events are level-triggered. */
    if (self.consumed && !session->api->backend)
        wait_rearm(session->read_event);
leave:
    session_leave(session);
    return code;
}
