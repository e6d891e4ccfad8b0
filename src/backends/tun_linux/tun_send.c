/* SPDX-License-Identifier: MIT
 *
 * Send: what R holds is written to the TUN descriptor, in order. Where the kernel takes superpackets, a run of packets
 * becomes few writes, see offload_coalesce.h. A run stays in R until it is written whole, so that a write that has to
 * wait can be tried again.
 */
#include "backends/common/backend_log.h"
#include "backends/tun_linux/tun_session.h"
#include "tunring_packets.h"

#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

typedef enum written
{
    WRITTEN,
    REFUSED, /* by the kernel, for good */
    INVALID, /* the same, for the headers: EINVAL */
    LATER,   /* the kernel's buffer is full */
    ENDED
} written;

/* The packets are counted as write errors; the reason is logged once. */
static void
warn_of_down(tun_session *session)
{
    if (session->send.warned)
        return;
    session->send.warned = true;
    backend_log(WINTUN_LOG_WARN,
                "The interface \"%s\" is down: what is sent to it is dropped and counted as write errors, until it is "
                "brought up",
                session->name);
}

static written
outcome_of(tun_session *session, ssize_t result)
{
    if (result >= 0)
        return WRITTEN;
    switch (errno)
    {
    case EAGAIN:
        return LATER;
    case EBADFD:
    case EBADF:
        tun_session_end(session, errno);
        return ENDED;
    case EINVAL:
        return INVALID;
    case EIO:
        warn_of_down(session);
        return REFUSED;
    default:
        return REFUSED;
    }
}

static written
write_bytes(tun_session *session, const BYTE *packet, uint32_t size)
{
    ssize_t result;
    do
        result = write(session->send.fd, packet, size);
    while (result < 0 && errno == EINTR);
    return outcome_of(session, result);
}

/* The same with padding behind the virtio header, with which the first piece begins. */
static written
write_padded(tun_session *session, const offload_frame *frame)
{
    static const BYTE padding[VIRTIO_MAX_HEADER];
    const struct iovec *first = frame->pieces;
    struct iovec pieces[3 + OFFLOAD_RUN];
    pieces[0] = (struct iovec){first->iov_base, sizeof(virtio_header)};
    pieces[1] = (struct iovec){(void *)(uintptr_t)padding, session->padding};
    pieces[2] = (struct iovec){(BYTE *)first->iov_base + sizeof(virtio_header), first->iov_len - sizeof(virtio_header)};
    memcpy(pieces + 3, first + 1, (frame->count - 1) * sizeof(*pieces));
    ssize_t result;
    do
        result = writev(session->send.fd, pieces, (int)frame->count + 2);
    while (result < 0 && errno == EINTR);
    return outcome_of(session, result);
}

static written
write_frame(tun_session *session, const offload_frame *frame)
{
    if (session->padding)
        return write_padded(session, frame);
    ssize_t result;
    do
        result = writev(session->send.fd, frame->pieces, (int)frame->count);
    while (result < 0 && errno == EINTR);
    return outcome_of(session, result);
}

/* With a virtio header in front of it if the descriptor has them. */
static written
write_packet(tun_session *session, const tunring_packet *packet)
{
    if (!session->virtio)
        return write_bytes(session, packet->data, packet->length);
    offload_frame frame;
    offload_packet_frame(packet, &frame);
    return write_frame(session, &frame);
}

/* The same with its checksum, which the kernel computes where it can, if anybody looks at it at all. */
static written
write_filled(tun_session *session, const tunring_packet *packet)
{
    offload_frame frame;
    if (session->virtio && offload_filled_frame(packet, &frame))
    {
        const written outcome = write_frame(session, &frame);
        if (outcome != INVALID)
            return outcome;
    }
    BYTE *copy = session->send.copy;
    memcpy(copy, packet->data, packet->length);
    (void)tunring_fill_checksums(copy, packet->length);
    return write_packet(session, &(tunring_packet){copy, packet->length});
}

/* ---- A run: packets, in R or in the caller's memory, that are grouped and written together ---- */

static void
empty_run(tun_session *session)
{
    session->send.count = session->send.group = session->send.singly = 0;
    session->send.fill = false;
}

static void
add_to_run(tun_session *session, const BYTE *packet, uint32_t size)
{
    tun_send_half *send = &session->send;
    if (tunring_packet_is_ip(packet, size))
        send->packets[send->count++] = (tunring_packet){packet, size};
    else
        tun_count(&session->filtered);
}

static void
group_run(tun_session *session)
{
    tun_send_half *send = &session->send;
    offload_coalesce(&send->run, send->packets, send->count, send->offloads | (send->fill ? OFFLOAD_FILL : 0));
}

/* The kernel did not take a superpacket of this kind, so it won't take others. */
static void
lower_offloads(tun_session *session, const offload_group *group)
{
    const BYTE *first = session->send.packets[group->first].data;
    const bool v4 = first[0] >> 4 == 4;
    const bool tcp = (v4 ? first[9] : first[6]) == 6;
    session->send.offloads &= ~(!tcp ? OFFLOAD_USO : v4 ? OFFLOAD_TSO4 : OFFLOAD_TSO6);
}

/* Each packet of a group as it is, those that are written already apart. */
static written
write_singly(tun_session *session, const offload_group *group)
{
    tun_send_half *send = &session->send;
    uint32_t index = group->first;
    for (uint32_t i = 0; i < group->count; i++, index = send->run.next[index])
    {
        if (i < send->singly)
            continue;
        const tunring_packet *packet = &send->packets[index];
        const written outcome = send->fill ? write_filled(session, packet) : write_packet(session, packet);
        if (outcome == LATER || outcome == ENDED)
            return outcome;
        if (outcome != WRITTEN)
            tun_count(&session->write_errors);
        send->singly = i + 1;
    }
    send->singly = 0;
    return WRITTEN;
}

static written
write_group(tun_session *session, const offload_group *group)
{
    if (group->count == 1 || session->send.singly > 0)
        return write_singly(session, group);
    offload_frame frame;
    offload_group_frame(&session->send.run, group, &frame);
    const written outcome = write_frame(session, &frame);
    if (outcome == INVALID)
    {
        lower_offloads(session, group);
        return write_singly(session, group);
    }
    if (outcome == REFUSED)
        atomic_fetch_add_explicit(&session->write_errors, group->count, memory_order_relaxed);
    return outcome;
}

/* Goes on where it stopped. LATER or ENDED: at the group that could not be written. */
static written
write_run(tun_session *session)
{
    tun_send_half *send = &session->send;
    for (; send->group < send->run.group_count; send->group++)
    {
        const written outcome = write_group(session, &send->run.groups[send->group]);
        if (outcome == LATER || outcome == ENDED)
            return outcome;
    }
    return WRITTEN;
}

/* ---- From R ---- */

/* Looks at what R holds, and groups it. False if there is nothing. */
static bool
begin_run(tun_session *session)
{
    tun_send_half *send = &session->send;
    ring_side *side = &session->rings.send;
    const uint32_t begin = ring_host_head(side);
    empty_run(session);
    send->end = begin;
    const BYTE *packet;
    uint32_t size;
    while (send->count < OFFLOAD_RUN && ring_host_next(side, &send->end, &packet, &size) == ERROR_SUCCESS)
        add_to_run(session, packet, size);
    group_run(session);
    return send->end != begin;
}

/* The run is written: its packets leave R. */
static void
finish_run(tun_session *session)
{
    ring_side *side = &session->rings.send;
    uint32_t at = ring_host_head(side);
    const BYTE *packet;
    uint32_t size;
    while (at != session->send.end && ring_host_next(side, &at, &packet, &size) == ERROR_SUCCESS)
        ring_host_take_to(side, size, at);
    empty_run(session);
}

static void
write_ring(tun_session *session)
{
    while (!atomic_load(&session->over) && (session->send.count > 0 || begin_run(session)))
    {
        if (write_run(session) != WRITTEN)
            return;
        finish_run(session);
    }
}

/* ---- Straight from the caller's memory, where nothing is in R ---- */

/* Packets that R has room for, whatever becomes of them: what the kernel has no room for goes there. */
static uint32_t
fitting_run(tun_session *session, const tunring_packet *packets, uint32_t count)
{
    const uint32_t room = ring_room(&session->rings.send);
    uint32_t taken = 0;
    for (uint64_t bytes = 0; taken < count && taken < OFFLOAD_RUN; taken++)
    {
        bytes += ring_slot_size(packets[taken].length);
        if (room == RING_GONE || bytes > room)
            break;
    }
    return taken;
}

static void
fill_slot(BYTE *slot, const tunring_packet *packet, bool fill)
{
    memcpy(slot, packet->data, packet->length);
    if (fill)
        (void)tunring_fill_checksums(slot, packet->length);
    ring_mark_ready(slot);
}

static void
keep_in_ring(tun_session *session, const tunring_packet *packet)
{
    fill_slot(ring_allocate(&session->rings.send, packet->length), packet, session->send.fill);
}

/* The packets of the groups that are not written. */
static void
keep_rest(tun_session *session)
{
    tun_send_half *send = &session->send;
    for (; send->group < send->run.group_count; send->group++)
    {
        const offload_group *group = &send->run.groups[send->group];
        uint32_t index = group->first;
        for (uint32_t i = 0; i < group->count; i++, index = send->run.next[index])
            if (i >= send->singly)
                keep_in_ring(session, &send->packets[index]);
        send->singly = 0;
    }
    (void)ring_publish(&session->rings.send);
}

/* Returns the number that it handled: 0 if they have to go through R. */
static uint32_t
send_directly(tun_session *session, const tunring_packet *packets, uint32_t count, bool fill)
{
    ring_side *side = &session->rings.send;
    if (atomic_load(&session->over) || ring_host_head(side) != atomic_load_explicit(&side->next, memory_order_relaxed))
        return 0;
    const uint32_t taken = fitting_run(session, packets, count);
    empty_run(session);
    session->send.fill = fill;
    for (uint32_t i = 0; i < taken; i++)
        add_to_run(session, packets[i].data, packets[i].length);
    group_run(session);
    if (write_run(session) == LATER)
        keep_rest(session);
    empty_run(session);
    return taken;
}

/* ---- The calls ---- */

void
tun_send_work(void *context)
{
    tun_session *session = context;
    (void)ring_publish(&session->rings.send);
    write_ring(session);
    ring_host_rewind(&session->rings.send);
}

static DWORD
allocate_locked(tun_session *session, DWORD size, BYTE **packet)
{
    ring_side *side = &session->rings.send;
    if (atomic_load(&session->over))
        return ERROR_HANDLE_EOF;
    *packet = ring_allocate(side, size);
    if (*packet)
        return ERROR_SUCCESS;
    const DWORD code = GetLastError();
    if (code != ERROR_BUFFER_OVERFLOW)
        return code;
    /* Packets that the kernel had no room for may go now. */
    tun_send_work(session);
    if (atomic_load(&session->over))
        return ERROR_HANDLE_EOF;
    *packet = ring_allocate(side, size);
    return *packet ? ERROR_SUCCESS : GetLastError();
}

BYTE *
tun_allocate(tun_session *session, DWORD size)
{
    const DWORD last_error = GetLastError();
    ring_lock *lock = &session->rings.send.lock;
    ring_lock_enter(lock);
    BYTE *packet = NULL;
    const DWORD code = allocate_locked(session, size, &packet);
    ring_lock_leave(lock, tun_send_work, session);
    SetLastError(code ? code : last_error);
    return packet;
}

BYTE *
tun_allocate_now(tun_session *session, DWORD size)
{
    const DWORD last_error = GetLastError();
    ring_lock *lock = &session->rings.send.lock;
    if (!ring_lock_try(lock))
    {
        SetLastError(ERROR_BUSY);
        return NULL;
    }
    BYTE *packet = NULL;
    DWORD code = ERROR_HANDLE_EOF;
    if (!atomic_load(&session->over))
    {
        packet = ring_allocate(&session->rings.send, size);
        code = packet ? ERROR_SUCCESS : GetLastError();
    }
    ring_lock_leave(lock, tun_send_work, session);
    SetLastError(code ? code : last_error);
    return packet;
}

void
tun_send(tun_session *session, const BYTE *packet)
{
    const DWORD last_error = GetLastError();
    ring_mark_ready(packet);
    ring_lock_combine(&session->rings.send.lock, tun_send_work, session);
    SetLastError(last_error);
}

DWORD
tun_send_room(tun_session *session)
{
    const DWORD last_error = GetLastError();
    ring_side *side = &session->rings.send;
    ring_lock_enter(&side->lock);
    /* Waiters for room ask here, so this is a time to try again what the kernel had no room for. */
    tun_send_work(session);
    const DWORD room = atomic_load(&session->over) ? RING_GONE : ring_room(side);
    ring_lock_leave(&side->lock, tun_send_work, session);
    SetLastError(last_error);
    return room;
}

static DWORD
send_locked(tun_session *session, const tunring_packet *packets, DWORD count, bool fill, DWORD *sent)
{
    *sent = 0;
    uint32_t taken;
    while (*sent < count && (taken = send_directly(session, packets + *sent, count - *sent, fill)) > 0)
        *sent += taken;
    DWORD code = ERROR_SUCCESS;
    for (; *sent < count; ++*sent)
    {
        const tunring_packet *packet = &packets[*sent];
        BYTE *slot;
        code = allocate_locked(session, packet->length, &slot);
        if (code != ERROR_SUCCESS)
            break;
        fill_slot(slot, packet, fill);
    }
    tun_send_work(session);
    return code;
}

static DWORD
send_all(tun_session *session, const tunring_packet *packets, DWORD count, bool fill, DWORD *sent)
{
    ring_lock *lock = &session->rings.send.lock;
    ring_lock_enter(lock);
    const DWORD code = send_locked(session, packets, count, fill, sent);
    ring_lock_leave(lock, tun_send_work, session);
    return code;
}

DWORD
tun_send_many(tun_session *session, const tunring_packet *packets, DWORD count, DWORD *sent)
{
    return send_all(session, packets, count, false, sent);
}

DWORD
tun_send_filled(tun_session *session, const tunring_packet *packets, DWORD count, DWORD *sent)
{
    return send_all(session, packets, count, true, sent);
}
