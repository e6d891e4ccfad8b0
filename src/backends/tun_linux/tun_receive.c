/* SPDX-License-Identifier: MIT
 *
 * Receive: a read that finds S empty. It may bring a superpacket, or several packets at once, which are read into
 * memory of their own and split from there; packets that S has no room for wait there.
 */
#include "backends/tun_linux/tun_session.h"

#include <poll.h>

/* Room that a packet of any size needs. */
#define LARGEST_SLOT ring_slot_size(WINTUN_MAX_IP_PACKET_SIZE)

/* The descriptor reports that even while it isn't asked for packets. */
static bool
interface_gone(int fd)
{
    struct pollfd state = {.fd = fd};
    return poll(&state, 1, 0) > 0 && (state.revents & (POLLERR | POLLNVAL)) != 0;
}

/* A failed read's code for the client. */
static DWORD
read_failed(tun_session *session, int failure)
{
    if (failure == EAGAIN)
        return ERROR_NO_MORE_ITEMS;
    /* Any other error would come again: to call that "empty" would make waiters spin. */
    tun_session_end(session, failure);
    return ERROR_HANDLE_EOF;
}

/* Begins with the next packet that passes the filter, of those that were read. */
static bool
begin_next(tun_session *session)
{
    tun_receive_half *receive = &session->receive;
    virtio_header virtio;
    uint32_t length;
    const BYTE *packet;
    while ((packet = tun_reader_next(&receive->reader, &virtio, &length)))
    {
        receive->splitting =
            tunring_packet_is_ip(packet, length) && offload_split_begin(&receive->split, &virtio, packet, length);
        if (receive->splitting)
            return true;
        tun_count(&session->filtered);
    }
    return false;
}

/* Moves what was read into S, as far as there is room. Shown at once, at the end. False if nothing came there. */
static bool
split(tun_session *session)
{
    tun_receive_half *receive = &session->receive;
    ring_side *side = &session->rings.receive;
    const uint32_t tail = ring_host_tail(side);
    uint32_t at = tail;
    while (receive->splitting || begin_next(session))
    {
        const uint32_t size = offload_split_next(&receive->split);
        BYTE *place = size ? ring_host_place(side, at, size) : NULL;
        receive->splitting = size != 0;
        if (size && !place)
            break;
        if (size)
        {
            offload_split_write(&receive->split, place);
            at = ring_host_fill(side, at, size);
        }
    }
    if (at != tail)
        ring_host_show(side, at);
    return at != tail;
}

static DWORD
read_packets(tun_session *session)
{
    int failure;
    do
    {
        failure = tun_reader_refill(&session->receive.reader, session->receive.fd);
        if (failure)
            return read_failed(session, failure);
    } while (!split(session));
    return ERROR_SUCCESS;
}

bool
tun_receive_can_go_on(const tun_session *session)
{
    return session->receive.splitting &&
           ring_host_room(&session->rings.receive) >= ring_slot_size(offload_split_next(&session->receive.split));
}

/* Puts something into an empty S. */
static DWORD
fill(tun_session *session)
{
    ring_side *side = &session->rings.receive;
    ring_host_rewind(side);
    if (session->receive.splitting)
    {
        if (!tun_receive_can_go_on(session))
            return ERROR_NO_MORE_ITEMS;
        (void)split(session);
        return ERROR_SUCCESS;
    }
    if (ring_host_room(side) < LARGEST_SLOT)
    {
        if (!interface_gone(session->receive.fd))
            return ERROR_NO_MORE_ITEMS;
        tun_session_end(session, EBADFD);
        return ERROR_HANDLE_EOF;
    }
    return read_packets(session);
}

void
tun_receive_work(void *context)
{
    tun_session *session = context;
    (void)ring_reclaim(&session->rings.receive);
    tun_session_update_event(session);
}

static uint32_t
receive_locked(tun_session *session, tunring_slot *slots, uint32_t count, DWORD *code)
{
    ring_side *side = &session->rings.receive;
    *code = atomic_load(&session->over) ? ERROR_HANDLE_EOF : ERROR_SUCCESS;
    uint32_t taken = 0;
    while (!*code && taken < count)
    {
        /* The last read has shown already that nothing more waits. */
        if (!ring_readable(side) &&
            (*code = taken && session->receive.reader.dry ? ERROR_NO_MORE_ITEMS : fill(session)))
            break;
        const uint32_t more = ring_receive_many(side, slots + taken, count - taken);
        if (more == 0)
            *code = GetLastError();
        taken += more;
    }
    tun_session_update_event(session);
    return taken;
}

uint32_t
tun_receive(tun_session *session, tunring_slot *slots, uint32_t count)
{
    const DWORD last_error = GetLastError();
    ring_lock *lock = &session->rings.receive.lock;
    ring_lock_enter(lock);
    DWORD code;
    const uint32_t taken = receive_locked(session, slots, count, &code);
    ring_lock_leave(lock, tun_receive_work, session);
    SetLastError(taken ? last_error : code);
    return taken;
}

void
tun_release(tun_session *session, const tunring_slot *slots, uint32_t count)
{
    const DWORD last_error = GetLastError();
    for (uint32_t i = 0; i < count; i++)
        ring_mark_released(slots[i].data);
    ring_lock_combine(&session->rings.receive.lock, tun_receive_work, session);
    SetLastError(last_error);
}

void
tun_report_kept(tun_session *session, bool kept)
{
    ring_lock *lock = &session->rings.receive.lock;
    ring_lock_enter(lock);
    session->receive.kept = kept;
    tun_session_update_event(session);
    ring_lock_leave(lock, tun_receive_work, session);
}
