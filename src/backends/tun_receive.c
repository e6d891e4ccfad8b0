/* SPDX-License-Identifier: MIT
 *
 * Receive: a read that finds S empty. Without virtio headers one read is one packet, straight into its slot. With them
 * it may be a superpacket, which is read into memory of its own and split from there; what S has no room for waits there.
 */
#include "tun_session.h"

#include <poll.h>
#include <string.h>
#include <unistd.h>

/* Room that a packet of any size needs. */
#define LARGEST_SLOT ring_slot_size(WINTUN_MAX_IP_PACKET_SIZE)

/* The descriptor says so even while it isn't asked for packets. */
static bool
interface_gone(int fd)
{
    struct pollfd state = {.fd = fd};
    return poll(&state, 1, 0) > 0 && state.revents & POLLERR;
}

/* read(), but for interruptions. The length, or a negative errno. */
static ssize_t
read_whole(int fd, BYTE *place, size_t size)
{
    for (;;)
    {
        const ssize_t length = read(fd, place, size);
        if (length >= 0)
            return length;
        if (errno != EINTR)
            return -errno;
    }
}

/* A failed read, as the client is to hear of it. */
static DWORD
read_failed(tun_session *session, ssize_t length)
{
    if (length == -EAGAIN)
        return ERROR_NO_MORE_ITEMS;
    /* Whatever it is, it would come again: to call that "empty" would make waiters spin. */
    tun_session_end(session, (int)-length);
    return ERROR_HANDLE_EOF;
}

/* Without virtio headers: the next packet that passes the filter, into its slot. */
static DWORD
read_packet(tun_session *session)
{
    ring_side *side = &session->rings.receive;
    const uint32_t at = ring_host_tail(side);
    BYTE *place = ring_host_place(side, at, WINTUN_MAX_IP_PACKET_SIZE);
    ssize_t length = -ENOBUFS;
    while (place && (length = read_whole(session->receive.fd, place, WINTUN_MAX_IP_PACKET_SIZE)) >= 0 &&
           !ring_packet_is_ip(place, (uint32_t)length))
        tun_count(&session->filtered);
    /* Takes back what of the place was not filled. */
    ring_host_show(side, length < 0 ? at : ring_host_fill(side, at, (uint32_t)length));
    return length < 0 ? read_failed(session, length) : ERROR_SUCCESS;
}

/* Moves what was read into S, as far as there is room. Shown at once, at the end. */
static void
split(tun_session *session)
{
    ring_side *side = &session->rings.receive;
    uint32_t at = ring_host_tail(side);
    uint32_t size;
    BYTE *place;
    while ((size = offload_split_next(&session->receive.split)) != 0 &&
           (place = ring_host_place(side, at, size)) != NULL)
    {
        offload_split_write(&session->receive.split, place);
        at = ring_host_fill(side, at, size);
    }
    ring_host_show(side, at);
    session->receive.splitting = size != 0;
}

/* Whether what was read holds packets for the client. */
static bool
begin_split(tun_session *session, size_t length)
{
    const BYTE *packet = session->receive.scratch + sizeof(virtio_header);
    virtio_header virtio;
    if (length < sizeof(virtio))
        return false;
    memcpy(&virtio, session->receive.scratch, sizeof(virtio));
    length -= sizeof(virtio);
    return ring_packet_is_ip(packet, (uint32_t)length) &&
           offload_split_begin(&session->receive.split, &virtio, packet, (uint32_t)length);
}

/* With virtio headers: the next one that passes the filter. */
static DWORD
read_superpacket(tun_session *session)
{
    const size_t most = sizeof(virtio_header) + WINTUN_MAX_IP_PACKET_SIZE;
    for (;;)
    {
        const ssize_t length = read_whole(session->receive.fd, session->receive.scratch, most);
        if (length < 0)
            return read_failed(session, length);
        if (begin_split(session, (size_t)length))
            break;
        tun_count(&session->filtered);
    }
    split(session);
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
        split(session);
        return ERROR_SUCCESS;
    }
    if (ring_host_room(side) < LARGEST_SLOT)
    {
        if (!interface_gone(session->receive.fd))
            return ERROR_NO_MORE_ITEMS;
        tun_session_end(session, EBADFD);
        return ERROR_HANDLE_EOF;
    }
    return session->virtio ? read_superpacket(session) : read_packet(session);
}

void
tun_receive_work(void *context)
{
    tun_session *session = context;
    (void)ring_reclaim(&session->rings.receive);
    tun_session_update_event(session);
}

static DWORD
receive_locked(tun_session *session, BYTE **packet, DWORD *size)
{
    ring_side *side = &session->rings.receive;
    if (atomic_load(&session->over))
        return ERROR_HANDLE_EOF;
    DWORD code = ring_readable(side) ? ERROR_SUCCESS : fill(session);
    if (!code)
    {
        *packet = ring_receive(side, size);
        code = *packet ? ERROR_SUCCESS : GetLastError();
    }
    tun_session_update_event(session);
    return code;
}

BYTE *
tun_receive(tun_session *session, DWORD *size)
{
    const DWORD before = GetLastError();
    ring_lock *lock = &session->rings.receive.lock;
    BYTE *packet = NULL;
    ring_lock_enter(lock);
    const DWORD code = receive_locked(session, &packet, size);
    ring_lock_leave(lock, tun_receive_work, session);
    SetLastError(code ? code : before);
    return packet;
}

void
tun_release(tun_session *session, const BYTE *packet)
{
    const DWORD before = GetLastError();
    ring_mark_released(packet);
    ring_lock_combine(&session->rings.receive.lock, tun_receive_work, session);
    SetLastError(before);
}
