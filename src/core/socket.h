/* SPDX-License-Identifier: MIT
 *
 * A UDP socket as a source of datagrams, shared by socket.c (life, receiving) and socket_send.c.
 */
#ifndef TUNRING_CORE_SOCKET_H
#define TUNRING_CORE_SOCKET_H

#include "core/arena.h"
#include "core/source.h"
#include "platform/udp.h"
#include "tunring_socket.h"

/* Each read needs this much room: the largest datagram, and the largest run that the system coalesces. */
#define SOCKET_READ (64u * 1024u)

/* A read of which some datagrams are not handed out yet. */
typedef struct socket_leftover
{
    BYTE *data;
    uint32_t count; /* datagrams; 0: there is none */
    udp_received read;
} socket_leftover;

/* A destination that refused a run, or the source address that replies to it were to leave from. */
typedef struct socket_refusal
{
    tunring_endpoint to;
    uint32_t segment; /* runs of datagrams of at least this many bytes go singly; 0: runs of any size leave */
    bool no_source;   /* the local address is gone */
    int64_t until;    /* os_now() time at which this is forgotten */
} socket_refusal;

#define SOCKET_REFUSALS 64u

struct tunring_socket
{
    tunring_source source; /* first: one address leads to both */
    udp_handle handle;
    bool ipv6;            /* of family AF_INET6, perhaps for both */
    _Atomic bool runs;    /* segmentation offload may be used */
    tunring_endpoint own; /* its own address, for captures */
    udp_events events;

    os_mutex watch_lock;  /* held for one system call; taken after receive_lock, which releases must not wait for */
    _Atomic bool watched; /* the read event reports datagrams in the system: not while no chunk is free */

    tunring_socket_option restored[TUNRING_SOCKET_RESTORED]; /* set when the handle is closed */
    uint32_t restored_count;

    os_mutex receive_lock; /* guards what follows; a system call under it does not wait */
    arena arena;
    socket_leftover leftover;
    bool kept;      /* the read event is to report what was gathered, too */
    bool signalled; /* the read event reports the leftover, or that */

    os_mutex refusal_lock;
    _Atomic bool refused; /* some entry of `refusals` may be in force */
    socket_refusal refusals[SOCKET_REFUSALS];

    TUNRING_SOCKET_COUNTS(TUNRING_ATOMIC_FIELD)
    _Atomic int receive_error;   /* the system's, if it made the last read fail; 0: it did not */
    uint64_t first_drops;        /* by the system, before the socket was opened: it may have been taken over */
    _Atomic uint64_t last_drops; /* and as of the last look */
};

/* socket_capture.c: with the IP and UDP headers that they had, or much like them. */
void socket_capture_received(tunring_source *source, const tunring_lease *lease, tunring_captured *packets);
void socket_capture_sent(tunring_socket *self, const udp_run *run, int64_t time);

static inline tunring_socket *
socket_of(tunring_source *source)
{
    return (tunring_socket *)source;
}

#endif
