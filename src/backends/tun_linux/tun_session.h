/* SPDX-License-Identifier: MIT
 *
 * A session: the two rings between a client and the TUN descriptor. No thread moves packets: a receive that finds S
 * empty reads into it (tun_receive.c), and a send writes what R holds (tun_send.c). tun_session.c has the session's
 * life and its read event.
 *
 * Locks: each side's ring lock guards that side and what is listed under it below. Release and send never wait for
 * them, see ring_lock_combine().
 */
#ifndef TUNRING_TUN_SESSION_H
#define TUNRING_TUN_SESSION_H

#include "backends/common/front.h"
#include "backends/tun_linux/offload_coalesce.h"
#include "backends/tun_linux/offload_split.h"
#include "platform/os.h"
#include "backends/ring/ring.h"
#include "backends/tun_linux/tun_device.h"
#include "backends/tun_linux/tun_reader.h"
#include "tunring_backend.h"

struct tun_adapter;

/* Guarded by the receive lock. */
typedef struct tun_receive_half
{
    int fd;              /* the TUN descriptor, -1 once detached */
    bool kept;           /* the client keeps packets, see tunring_backend */
    bool signalled;      /* whether `signal` is set for what S, `split` or the client holds */
    bool watched;        /* the read event reports packets in the kernel: not while S has no room for one */
    bool splitting;      /* `split` has packets left; only then may `reader` have some */
    offload_split split; /* of the packet that `reader` gave last */
    tun_reader reader;
} tun_receive_half;

/* Guarded by the send lock. A run of packets stays in R until all of its groups are written. */
typedef struct tun_send_half
{
    int fd;            /* the same descriptor */
    bool warned;       /* the log has that the interface is down */
    unsigned offloads; /* what the kernel takes, as far as we know */
    uint32_t count;    /* packets of the run; 0: there is none */
    uint32_t end;      /* offset in R behind the run */
    uint32_t group;    /* the next one to write */
    uint32_t singly;   /* packets of it that are written already, singly, as the kernel refused the superpacket */
    tunring_packet packets[OFFLOAD_RUN];
    offload_run run;
    bool fill;                            /* the run goes out with its checksums filled */
    BYTE copy[WINTUN_MAX_IP_PACKET_SIZE]; /* of a packet whose checksum the kernel can't fill */
} tun_send_half;

typedef struct _TUN_SESSION
{
    front_object object;
    struct tun_adapter *adapter; /* NULL once detached; tun_adapter.c's */
    uint64_t dropped_before;     /* by the kernel when the session started; tun_adapter.c's */
    uint64_t dropped;            /* by the kernel since; tun_adapter.c's */
    bool dark;                   /* the log has that the link is off; tun_adapter.c's */
    char name[IFNAMSIZ];         /* the interface's when the session started, for the log */

    ring_pair rings;
    bool virtio;             /* see tun_format */
    unsigned padding;        /* likewise */
    _Atomic int64_t look_at; /* when the link is to be looked at next, see tun_linux.c */
    int read_event;          /* an epoll descriptor over `receive.fd` and `signal` */
    os_event signal;         /* set while `over`, or while something read is unread */
    atomic_bool over;        /* detached, or the interface is gone: both directions return ERROR_HANDLE_EOF */
    _Atomic uint64_t filtered;
    _Atomic uint64_t write_errors;

    tun_receive_half receive;
    tun_send_half send;
} tun_session;

/* NULL with *code set. */
tun_session *tun_session_open(int fd, const tun_format *format, DWORD capacity, DWORD *code);

/* The session lets go of the descriptor; every waiter wakes. */
void tun_session_detach(tun_session *session);

/* Closes the descriptors that a detached session still has, and frees all memory but the rings'. Nobody waits in it any
 * more; what was handed out may still be released. Idempotent. */
void tun_session_shrink(tun_session *session);

/* Frees a detached session. */
void tun_session_free(tun_session *session);

/* The interface is gone, or failed with this errno. Called from either half. */
void tun_session_end(tun_session *session, int failure);

/* All counters but host_dropped. */
void tun_session_count(tun_session *session, tunring_counters *counters);

/* Updates the read event, which reports what the next receive will find: after everything that moves S. */
void tun_session_update_event(tun_session *session);

/* Returns up to `count` packets. Fewer: there were no more, or an error will come again; 0: the last error is set. */
uint32_t tun_receive(tun_session *session, tunring_slot *slots, uint32_t count);
void tun_release(tun_session *session, const tunring_slot *slots, uint32_t count);
/* The read event reports packets that the client keeps, too. */
void tun_report_kept(tun_session *session, bool kept);
/* Work of the receive lock: takes back what was released. */
void tun_receive_work(void *session);
/* True if packets that were read wait for their place in S, and S has one for the next. */
bool tun_receive_can_go_on(const tun_session *session);

BYTE *tun_allocate(tun_session *session, DWORD size);
/* The same without a wait for the lock, see tunring_backend. */
BYTE *tun_allocate_now(tun_session *session, DWORD size);
void tun_send(tun_session *session, const BYTE *packet);
/* Allocates, copies and sends many, see tunring_backend. */
DWORD tun_send_many(tun_session *session, const tunring_packet *packets, DWORD count, DWORD *sent);
DWORD tun_send_filled(tun_session *session, const tunring_packet *packets, DWORD count, DWORD *sent);
DWORD tun_send_room(tun_session *session);
/* Work of the send lock: publishes and writes. */
void tun_send_work(void *session);

static inline void
tun_count(_Atomic uint64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

#endif
