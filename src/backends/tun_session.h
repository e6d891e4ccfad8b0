/* SPDX-License-Identifier: MIT
 *
 * A session: the two rings between a client and the TUN descriptor. No thread moves packets: a receive that finds S
 * empty reads into it, and a send writes what R holds.
 *
 * Locks: each side's ring lock guards that side and what is listed under it below. Release and send never wait for
 * them, see ring_lock_combine().
 */
#ifndef TUNRING_TUN_SESSION_H
#define TUNRING_TUN_SESSION_H

#include "os.h"
#include "ring.h"
#include "tunring_backend.h"

struct tun_adapter;

typedef struct _TUN_SESSION
{
    unsigned generation;         /* of the process, see os_generation() */
    struct tun_adapter *adapter; /* NULL once detached; tun_adapter.c's */
    uint64_t dropped_before;     /* by the kernel when the session started; tun_adapter.c's */
    uint64_t dropped;            /* by the kernel since; tun_adapter.c's */

    ring_pair rings;
    int read_event;   /* an epoll descriptor over `receive_fd` and `signal` */
    os_event signal;  /* set while `over`, or while S has something unread */
    atomic_bool over; /* detached, or the interface is gone: both directions say ERROR_HANDLE_EOF */
    _Atomic uint64_t filtered;
    _Atomic uint64_t write_errors;

    int receive_fd; /* the TUN descriptor, -1 once detached */
    bool signalled; /* whether `signal` is set for S */
    bool watched;   /* whether the read event tells of packets in the kernel: not while S has no room for one */

    int send_fd; /* the same descriptor */
} tun_session;

/* NULL with *code set. */
tun_session *tun_session_open(int fd, DWORD capacity, DWORD *code);

/* The session lets go of the descriptor; every waiter wakes. */
void tun_session_detach(tun_session *session);

/* Frees a detached session. */
void tun_session_free(tun_session *session);

BYTE *tun_session_receive(tun_session *session, DWORD *size);
void tun_session_release(tun_session *session, const BYTE *packet);
BYTE *tun_session_allocate(tun_session *session, DWORD size);
void tun_session_send(tun_session *session, const BYTE *packet);
DWORD tun_session_room(tun_session *session);

/* All counters but host_dropped. */
void tun_session_count(tun_session *session, tunring_counters *counters);

#endif
