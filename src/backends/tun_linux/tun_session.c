/* SPDX-License-Identifier: MIT
 *
 * A session's life, and its read event.
 */
#include "backends/tun_linux/tun_session.h"

#include "backends/common/backend_log.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

/* ---- The read event ---- */

/* EPOLLIN: packets wait. Without it the descriptor still has to wake us when the interface goes, and the kernel wakes
 * only those who asked for one of the conditions it names: EPOLLPRI is among them, yet never true of a TUN
 * descriptor. */
static struct epoll_event
interest(bool packets)
{
    return (struct epoll_event){.events = packets ? EPOLLIN : EPOLLPRI};
}

static void
update_signal(tun_session *session, bool unread)
{
    if (unread && !session->receive.signalled)
        os_event_set(&session->signal);
    if (!unread && session->receive.signalled)
    {
        os_event_clear(&session->signal);
        /* The send direction may have ended the session and set the event just before. */
        if (atomic_load(&session->over))
            os_event_set_if_ours(&session->signal);
    }
    session->receive.signalled = unread;
}

void
tun_session_update_event(tun_session *session)
{
    ring_side *side = &session->rings.receive;
    tun_receive_half *receive = &session->receive;
    /* A read would find no place for what it brings. */
    const bool full = receive->splitting || ring_host_room(side) < ring_slot_size(WINTUN_MAX_IP_PACKET_SIZE);
    if (atomic_load(&session->over) || receive->fd < 0)
        return;
    update_signal(session, receive->kept || ring_readable(side) || tun_receive_can_go_on(session));
    if (full == receive->watched)
    {
        struct epoll_event event = interest(!full);
        (void)epoll_ctl(session->read_event, EPOLL_CTL_MOD, receive->fd, &event);
        receive->watched = !full;
    }
}

void
tun_session_end(tun_session *session, int failure)
{
    if (atomic_exchange(&session->over, true))
        return;
    os_event_set_if_ours(&session->signal);
    if (failure == EBADFD)
        backend_log(WINTUN_LOG_WARN, "The interface was removed; its session ends");
    else
        backend_log(WINTUN_LOG_ERR, "The TUN descriptor failed; its session ends: %s", strerror(failure));
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
    const int epoll = OS_FD(epoll_create1(EPOLL_CLOEXEC));
    session->read_event = epoll;
    if (epoll >= 0 && watch(epoll, session->receive.fd, interest(true)) &&
        watch(epoll, (int)(intptr_t)session->signal.wait, interest(true)))
        return true;
    const int failure = errno;
    backend_log(WINTUN_LOG_ERR, "Opening the read event by %s() failed: %s", epoll < 0 ? "epoll_create1" : "epoll_ctl",
                strerror(failure));
    SetLastError(os_error_from_errno(failure));
    os_fd_close(epoll);
    return false;
}

tun_session *
tun_session_open(int fd, const tun_format *format, DWORD capacity, DWORD *code)
{
    tun_session *session = calloc(1, sizeof(*session));
    *code = ERROR_NOT_ENOUGH_MEMORY;
    if (!session)
        return NULL;
    if (!tun_reader_open(&session->receive.reader, format->virtio ? sizeof(virtio_header) + format->padding : 0))
        goto free_session;
    *code = ring_pair_open(&session->rings, capacity);
    if (*code)
        goto close_reader;
    if (!os_event_open(&session->signal))
    {
        *code = GetLastError();
        goto close_rings;
    }
    session->receive.fd = session->send.fd = fd;
    session->virtio = format->virtio;
    session->padding = format->padding;
    session->send.offloads = format->virtio ? format->offloads : 0;
    if (!open_read_event(session))
    {
        *code = GetLastError();
        goto close_signal;
    }
    session->receive.watched = true;
    return session;

close_signal:
    os_event_close(&session->signal);
close_rings:
    ring_pair_close(&session->rings);
close_reader:
    tun_reader_close(&session->receive.reader);
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
    (void)epoll_ctl(session->read_event, EPOLL_CTL_DEL, session->receive.fd, NULL);
    session->receive.fd = -1;
    ring_lock_leave(&receive->lock, tun_receive_work, session);
    ring_lock_enter(&send->lock);
    session->send.fd = -1;
    ring_lock_leave(&send->lock, tun_send_work, session);
    os_event_set_if_ours(&session->signal);
}

void
tun_session_shrink(tun_session *session)
{
    if (session->read_event < 0)
        return;
    os_fd_close(session->read_event);
    os_event_close(&session->signal);
    tun_reader_close(&session->receive.reader);
    session->read_event = -1;
}

void
tun_session_free(tun_session *session)
{
    tun_session_shrink(session);
    ring_pair_close(&session->rings);
    free(session);
}

void
tun_session_count(tun_session *session, tunring_counters *counters)
{
    counters->host_filtered = atomic_load_explicit(&session->filtered, memory_order_relaxed);
    counters->write_errors = atomic_load_explicit(&session->write_errors, memory_order_relaxed);
}
