/* SPDX-License-Identifier: MIT
 *
 * UDP sockets as sources of batches: core/socket.c, core/socket_send.c.
 */
#ifndef TUNRING_SOCKET_H
#define TUNRING_SOCKET_H

#include "tunring.h"

/* A source of datagrams: tunring_receive() and the rest of what takes a source serve it. */
typedef struct tunring_socket tunring_socket;

/* An option, as setsockopt() takes it, and its value. */
typedef struct tunring_socket_option
{
    int level;
    int name;
    int value;
} tunring_socket_option;

#define TUNRING_SOCKET_RESTORED 8

typedef struct tunring_socket_options
{
    uintptr_t handle;    /* bound; a copy of it is taken, and the caller's stays the caller's */
    bool ipv6;           /* of family AF_INET6 */
    bool runs;           /* segmentation offload may be used */
    uint32_t max_chunks; /* of 256 KiB each, for datagrams received and not let go */
    /* The first `restored_count` are set when the copy is closed, in this order: what they were on a socket that was
     * taken over, whose owner may have given its own descriptor away by then. */
    tunring_socket_option restored[TUNRING_SOCKET_RESTORED];
    uint32_t restored_count;
} tunring_socket_options;

DWORD tunring_socket_open(const tunring_socket_options *options, tunring_socket **socket);
tunring_source *tunring_socket_source(tunring_socket *socket);
/* The mark of the datagrams sent from now on, 0 for none. *number is the system's own number of a failure, or 0. */
DWORD tunring_socket_set_mark(tunring_socket *socket, uint32_t mark, int *number);
DWORD tunring_socket_mark(tunring_socket *socket, uint32_t *mark);
/* Ready while the system has room for a datagram. Constant until the socket is closed. */
HANDLE tunring_socket_room_event(const tunring_socket *socket);
/* The system's own number of the error by which the last tunring_receive() failed, or 0. May be called at any time. */
int tunring_socket_receive_error(const tunring_socket *socket);

/* Datagrams that the system has accepted. */
typedef struct tunring_accepted
{
    uint32_t count;
    uint64_t bytes;
} tunring_accepted;

/* Datagrams to send, in order. */
typedef struct tunring_sending
{
    const tunring_packet *packets; /* each of at most 65,507 bytes; empty ones are datagrams too */
    uint32_t count;
    const tunring_endpoint *endpoints;
    const uint32_t *index; /* each packet's endpoint; NULL: the first one's for all */
    const uint8_t *ecn;    /* each packet's, 0 to 3; NULL: `all_ecn` */
    uint8_t all_ecn;
    uint8_t dscp;               /* of all, 0 to 63; Windows, where programs may not set it, sends 0 */
    tunring_accepted *accepted; /* counted up; NULL: the caller doesn't ask */
} tunring_sending;

/* Sends datagrams. *done counts those that are dealt with: accepted by the system, or refused by it and counted. When
 * it has no room: waits if `wait` is given, else ERROR_BUFFER_OVERFLOW. */
DWORD tunring_socket_send(tunring_socket *socket, const tunring_sending *what, const tunring_wait *wait,
                          uint32_t *done);

/* All that a socket counts beside what any source does. tunring.UdpStats has a field of each name. */
#define TUNRING_SOCKET_COUNTS(COUNT) \
    COUNT(reads)                     \
    COUNT(coalesced_reads)           \
    COUNT(truncated)                 \
    COUNT(runs_sent)                 \
    COUNT(icmp_errors)               \
    COUNT(refused_unreachable)       \
    COUNT(refused_size)              \
    COUNT(refused_other)

typedef struct tunring_socket_stats
{
    TUNRING_SOCKET_COUNTS(TUNRING_FIELD)
    uint64_t host_dropped; /* datagrams that the system had no room for */
    bool runs;             /* segmentation offload is in use */
} tunring_socket_stats;

extern const tunring_figure tunring_socket_figures[];

/* The socket's own figures. May be called at any time. */
void tunring_socket_read_stats(tunring_socket *socket, tunring_socket_stats *stats);

#endif
