/* SPDX-License-Identifier: MIT
 *
 * UDP sockets over the loopback interface, with shims of sendmsg() and recvmsg() that fail as a test wants.
 */
#ifndef TUNRING_UDP_NET_H
#define TUNRING_UDP_NET_H

#include "check.h"
#include "platform/os.h"
#include "tunring_socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static const tunring_wait POLL = {.deadline = 0};
static const tunring_wait FOREVER = {.deadline = TUNRING_FOREVER};
static const BYTE bytes[65536];

/* Other tests change the machine's own interfaces meanwhile, and a run that those refuse goes out singly. Without the
 * right to another network that one has to do. */
static inline void
use_own_network(void)
{
    if (unshare(CLONE_NEWNET) != 0)
        return;
    struct ifreq loopback = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &loopback) == 0);
    close(fd);
}

/* ---- The shim ---- */

/* The error for calls of more than `shim_above` segments, or with a source address; 0 for none. */
static int shim_error, shim_source_error;
/* The errors of so many calls, to send or to receive, that come before those: as ICMP errors do. */
static int shim_pending_error;
static unsigned shim_pending;
static unsigned calls, run_calls, source_calls;

static inline bool
take_pending(void)
{
    if (!shim_pending)
        return false;
    shim_pending--;
    errno = shim_pending_error;
    return true;
}

ssize_t __real_sendmsg(int socket, const struct msghdr *message, int flags);

ssize_t
__wrap_sendmsg(int socket, const struct msghdr *message, int flags)
{
    bool run = false, source = false;
    for (struct cmsghdr *at = CMSG_FIRSTHDR(message); at; at = CMSG_NXTHDR((struct msghdr *)(uintptr_t)message, at))
    {
        run |= at->cmsg_level == SOL_UDP && at->cmsg_type == UDP_SEGMENT;
        source |= at->cmsg_level == IPPROTO_IP && at->cmsg_type == IP_PKTINFO;
    }
    calls++;
    run_calls += run;
    source_calls += source;
    if (take_pending())
        return -1;
    errno = run && shim_error ? shim_error : source ? shim_source_error : 0;
    return errno ? -1 : __real_sendmsg(socket, message, flags);
}

/* Bytes of room that the system has for a datagram; 0: what the caller has. */
static size_t shim_room;

ssize_t __real_recvmsg(int socket, struct msghdr *message, int flags);

ssize_t
__wrap_recvmsg(int socket, struct msghdr *message, int flags)
{
    if (take_pending())
        return -1;
    const size_t room = message->msg_iov->iov_len;
    if (shim_room)
        message->msg_iov->iov_len = shim_room;
    const ssize_t length = __real_recvmsg(socket, message, flags);
    message->msg_iov->iov_len = room;
    return length;
}

/* ---- Sockets ---- */

typedef struct udp
{
    tunring_socket *socket;
    tunring_source *source;
    tunring_endpoint address;
} udp;

/* A socket with which one can do something before it is opened. */
static inline int
make_socket(udp *result)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&address, &size) == 0);
    const int on = 1;
    CHECK(setsockopt(fd, SOL_UDP, UDP_GRO, &on, sizeof(on)) == 0);
    CHECK(setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on)) == 0);
    CHECK(setsockopt(fd, IPPROTO_IP, IP_RECVTOS, &on, sizeof(on)) == 0);
    *result = (udp){.address = {.port = ntohs(address.sin_port)}};
    memcpy(result->address.host, "\0\0\0\0\0\0\0\0\0\0\377\377\177\0\0\1", 16);
    return fd;
}

static inline void
open_socket(udp *result, int fd, uint32_t max_chunks)
{
    const tunring_socket_options options = {.handle = (uintptr_t)fd, .runs = true, .max_chunks = max_chunks};
    CHECK(tunring_socket_open(&options, &result->socket) == ERROR_SUCCESS);
    close(fd);
    result->source = tunring_socket_source(result->socket);
}

static inline udp
open_udp(uint32_t max_chunks)
{
    udp result;
    const int fd = make_socket(&result);
    open_socket(&result, fd, max_chunks);
    return result;
}

static inline void
close_udp(udp *socket)
{
    tunring_source_close(socket->source);
    tunring_source_drop(socket->source);
}

static inline uint32_t
send_lengths(udp *from, const udp *to, const uint32_t *lengths, uint32_t count, uint8_t ecn)
{
    tunring_packet packets[300];
    for (uint32_t i = 0; i < count; i++)
        packets[i] = (tunring_packet){bytes, lengths[i]};
    const tunring_sending what = {.packets = packets, .count = count, .endpoints = &to->address, .all_ecn = ecn};
    calls = run_calls = source_calls = 0;
    uint32_t done;
    CHECK_EQUAL(tunring_socket_send(from->socket, &what, NULL, &done), ERROR_SUCCESS);
    return done;
}

static inline tunring_lease *
receive(udp *socket, uint32_t max)
{
    tunring_lease *lease = NULL;
    CHECK_EQUAL(tunring_receive(socket->source, max, &POLL, &lease), ERROR_SUCCESS);
    return lease;
}

static inline void
let_go(tunring_lease *lease)
{
    tunring_lease_release(lease);
    tunring_lease_free(lease);
}

static inline bool
readable(const udp *socket)
{
    struct pollfd state = {.fd = (int)(intptr_t)tunring_source_read_event(socket->source), .events = POLLIN};
    return poll(&state, 1, 0) == 1;
}

static inline tunring_socket_stats
figures(udp *socket)
{
    tunring_socket_stats result;
    tunring_socket_read_stats(socket->socket, &result);
    return result;
}

typedef struct leases
{
    tunring_lease *list[9];
    int count;
} leases;

static inline void *
let_all_go(void *argument)
{
    leases *held = argument;
    while (held->count)
        let_go(held->list[--held->count]);
    return NULL;
}

#endif
