/* SPDX-License-Identifier: MIT
 *
 * Packets between the rings and the TUN descriptor.
 */
#include "tun_session.h"

#include "backend_log.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

static void
count(_Atomic uint64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/* ---- The read event ---- */

/* EPOLLIN: packets wait. Without it the descriptor still has to wake us when the interface goes, and the kernel wakes
 * only those who asked for one of the conditions it names: EPOLLPRI is among them, yet never true of a TUN descriptor.
 */
static struct epoll_event
interest(bool packets)
{
    return (struct epoll_event){.events = packets ? EPOLLIN : EPOLLPRI};
}

/* Makes the read event tell what the next receive will: after everything that moves S. */
static void
update_read_event(tun_session *session)
{
    ring_side *side = &session->rings.receive;
    const bool unread = ring_readable(side);
    const bool room = ring_host_room(side) >= ring_slot_size(WINTUN_MAX_IP_PACKET_SIZE);
    if (atomic_load(&session->over) || session->receive_fd < 0)
        return;
    if (unread && !session->signalled)
        os_event_set(&session->signal);
    if (!unread && session->signalled)
    {
        os_event_clear(&session->signal);
        /* The send direction may have ended the session and set the event just before. */
        if (atomic_load(&session->over))
            os_event_set(&session->signal);
    }
    session->signalled = unread;
    if (room != session->watched)
    {
        struct epoll_event event = interest(room);
        (void)epoll_ctl(session->read_event, EPOLL_CTL_MOD, session->receive_fd, &event);
        session->watched = room;
    }
}

/* The interface is gone. Called from either side. */
static void
end(tun_session *session, int failure)
{
    if (atomic_exchange(&session->over, true))
        return;
    os_event_set(&session->signal);
    if (failure == EBADFD)
        backend_log(WINTUN_LOG_WARN, "The interface was removed; its session ends");
    else
        backend_log(WINTUN_LOG_ERR, "The TUN descriptor failed; its session ends: %s", strerror(failure));
}

/* ---- Receive ---- */

/* The descriptor says so even while it isn't asked for packets. */
static bool
interface_gone(int fd)
{
    struct pollfd state = {.fd = fd};
    return poll(&state, 1, 0) > 0 && state.revents & POLLERR;
}

/* One packet that passes the filter into `place`. Its length, or a negative errno. */
static ssize_t
read_packet(tun_session *session, BYTE *place)
{
    for (;;)
    {
        const ssize_t length = read(session->receive_fd, place, WINTUN_MAX_IP_PACKET_SIZE);
        if (length < 0 && errno != EINTR)
            return -errno;
        if (length >= 0 && ring_packet_is_ip(place, (uint32_t)length))
            return length;
        if (length >= 0)
            count(&session->filtered);
    }
}

/* Reads into an empty S. */
static DWORD
fill(tun_session *session)
{
    ring_side *side = &session->rings.receive;
    ring_host_rewind(side);
    const uint32_t at = ring_host_tail(side);
    BYTE *place = ring_host_place(side, at, WINTUN_MAX_IP_PACKET_SIZE);
    if (!place)
    {
        if (!interface_gone(session->receive_fd))
            return ERROR_NO_MORE_ITEMS;
        end(session, EBADFD);
        return ERROR_HANDLE_EOF;
    }
    const ssize_t length = read_packet(session, place);
    /* Takes back what of the place was not filled. */
    ring_host_show(side, length < 0 ? at : ring_host_fill(side, at, (uint32_t)length));
    if (length >= 0)
        return ERROR_SUCCESS;
    if (length == -EAGAIN)
        return ERROR_NO_MORE_ITEMS;
    /* Whatever it is, it would come again: to call that "empty" would make waiters spin. */
    end(session, (int)-length);
    return ERROR_HANDLE_EOF;
}

static void
receive_work(void *context)
{
    tun_session *session = context;
    (void)ring_reclaim(&session->rings.receive);
    update_read_event(session);
}

static DWORD
receive_locked(tun_session *session, BYTE **packet, DWORD *size)
{
    ring_side *side = &session->rings.receive;
    if (atomic_load(&session->over))
        return ERROR_HANDLE_EOF;
    DWORD code = ring_readable(side) ? ERROR_SUCCESS : fill(session);
    if (code)
        return code;
    *packet = ring_receive(side, size);
    code = *packet ? ERROR_SUCCESS : GetLastError();
    update_read_event(session);
    return code;
}

BYTE *
tun_session_receive(tun_session *session, DWORD *size)
{
    const DWORD before = GetLastError();
    ring_lock *lock = &session->rings.receive.lock;
    BYTE *packet = NULL;
    ring_lock_enter(lock);
    const DWORD code = receive_locked(session, &packet, size);
    ring_lock_leave(lock, receive_work, session);
    SetLastError(code ? code : before);
    return packet;
}

void
tun_session_release(tun_session *session, const BYTE *packet)
{
    const DWORD before = GetLastError();
    ring_mark_released(packet);
    ring_lock_combine(&session->rings.receive.lock, receive_work, session);
    SetLastError(before);
}

/* ---- Send ---- */

typedef enum written
{
    WRITTEN,
    REFUSED, /* by the kernel, for good */
    LATER,   /* the kernel's buffer is full */
    ENDED
} written;

static written
write_packet(tun_session *session, const BYTE *packet, uint32_t size)
{
    for (;;)
    {
        if (write(session->send_fd, packet, size) >= 0)
            return WRITTEN;
        switch (errno)
        {
        case EINTR:
            continue;
        case EAGAIN:
            return LATER;
        case EBADFD:
            end(session, EBADFD);
            return ENDED;
        default:
            return REFUSED;
        }
    }
}

/* Writes what R holds, in order. */
static void
pump(tun_session *session)
{
    ring_side *side = &session->rings.send;
    const BYTE *packet;
    uint32_t size;
    while (!atomic_load(&session->over) && ring_host_peek(side, &packet, &size) == ERROR_SUCCESS)
    {
        if (!ring_packet_is_ip(packet, size))
            count(&session->filtered);
        else
        {
            const written outcome = write_packet(session, packet, size);
            if (outcome == LATER || outcome == ENDED)
                return;
            if (outcome == REFUSED)
                count(&session->write_errors);
        }
        ring_host_take(side, size);
    }
    ring_host_rewind(side);
}

static void
send_work(void *context)
{
    tun_session *session = context;
    (void)ring_publish(&session->rings.send);
    pump(session);
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
    /* What the kernel had no room for may go now. */
    send_work(session);
    if (atomic_load(&session->over))
        return ERROR_HANDLE_EOF;
    *packet = ring_allocate(side, size);
    return *packet ? ERROR_SUCCESS : GetLastError();
}

BYTE *
tun_session_allocate(tun_session *session, DWORD size)
{
    const DWORD before = GetLastError();
    ring_lock *lock = &session->rings.send.lock;
    BYTE *packet = NULL;
    ring_lock_enter(lock);
    const DWORD code = allocate_locked(session, size, &packet);
    ring_lock_leave(lock, send_work, session);
    SetLastError(code ? code : before);
    return packet;
}

void
tun_session_send(tun_session *session, const BYTE *packet)
{
    const DWORD before = GetLastError();
    ring_mark_ready(packet);
    ring_lock_combine(&session->rings.send.lock, send_work, session);
    SetLastError(before);
}

DWORD
tun_session_room(tun_session *session)
{
    const DWORD before = GetLastError();
    ring_side *side = &session->rings.send;
    ring_lock_enter(&side->lock);
    /* Whoever waits for room asks here, so this is a time to try again what the kernel had no room for. */
    send_work(session);
    const DWORD room = atomic_load(&session->over) ? RING_GONE : ring_room(side);
    ring_lock_leave(&side->lock, send_work, session);
    SetLastError(before);
    return room;
}

/* ---- Life ---- */

static bool
watch(int epoll, int fd, struct epoll_event event)
{
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

static bool
open_read_event(tun_session *session)
{
    const int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
    {
        SetLastError(os_error_from_errno(errno));
        return false;
    }
    session->read_event = os_fd_register(epoll);
    if (session->read_event < 0)
        return false;
    if (watch(epoll, session->receive_fd, interest(true)) && watch(epoll, session->signal.write_fd, interest(true)))
        return true;
    SetLastError(os_error_from_errno(errno));
    os_fd_close(epoll);
    return false;
}

tun_session *
tun_session_open(int fd, DWORD capacity, DWORD *code)
{
    tun_session *session = calloc(1, sizeof(*session));
    *code = ERROR_NOT_ENOUGH_MEMORY;
    if (!session)
        return NULL;
    *code = ring_pair_open(&session->rings, capacity);
    if (*code)
        goto free_session;
    if (!os_event_open(&session->signal))
    {
        *code = GetLastError();
        goto close_rings;
    }
    session->receive_fd = session->send_fd = fd;
    if (!open_read_event(session))
    {
        *code = GetLastError();
        goto close_signal;
    }
    session->watched = true;
    session->generation = os_generation();
    return session;

close_signal:
    os_event_close(&session->signal);
close_rings:
    ring_pair_close(&session->rings);
free_session:
    free(session);
    return NULL;
}

void
tun_session_detach(tun_session *session)
{
    ring_side *receive = &session->rings.receive;
    ring_side *send = &session->rings.send;
    atomic_store(&session->over, true);
    ring_lock_enter(&receive->lock);
    (void)epoll_ctl(session->read_event, EPOLL_CTL_DEL, session->receive_fd, NULL);
    session->receive_fd = -1;
    ring_lock_leave(&receive->lock, receive_work, session);
    ring_lock_enter(&send->lock);
    session->send_fd = -1;
    ring_lock_leave(&send->lock, send_work, session);
    os_event_set(&session->signal);
}

void
tun_session_free(tun_session *session)
{
    os_fd_close(session->read_event);
    os_event_close(&session->signal);
    ring_pair_close(&session->rings);
    free(session);
}

void
tun_session_count(tun_session *session, tunring_counters *counters)
{
    counters->host_filtered = atomic_load_explicit(&session->filtered, memory_order_relaxed);
    counters->write_errors = atomic_load_explicit(&session->write_errors, memory_order_relaxed);
}
