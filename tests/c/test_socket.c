/* SPDX-License-Identifier: MIT
 *
 * UDP sockets over the loopback interface: runs and their datagrams, leftovers, origins, the bound on what is pinned,
 * and each way in which the system may refuse a run, by a shim of sendmsg(); captures and cut datagrams.
 */
/* build: parts=core flags=-Wl,--wrap=sendmsg,--wrap=recvmsg,--wrap=epoll_ctl */
#include "check.h"
#include "core/socket.h"
#include "platform/os.h"
#include "platform/udp.h"
#include "tunring.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static const tunring_wait POLL = {.deadline = 0};
static const tunring_wait FOREVER = {.deadline = TUNRING_FOREVER};
static const BYTE bytes[65536];

/* ---- The shim ---- */

/* The error for calls of more than `shim_above` segments, or with a source address; 0 for none. */
static int shim_error, shim_source_error;
/* The errors of so many calls, to send or to receive, that come before those: as ICMP errors do. */
static int shim_pending_error;
static unsigned shim_pending;
static unsigned calls, run_calls, source_calls;

static bool
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

/* What another thread does while the event is about to be masked; NULL: nothing. */
static void *(*shim_meanwhile)(void *);
static void *shim_argument;
static pthread_t shim_thread;
static atomic_bool shim_done;

static void *
run_meanwhile(void *unused)
{
    (void)unused;
    shim_meanwhile(shim_argument);
    atomic_store(&shim_done, true);
    return NULL;
}

int __real_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event);

int
__wrap_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
    static atomic_bool entered;
    if (shim_meanwhile && operation == EPOLL_CTL_MOD && event->events == 0 && !atomic_exchange(&entered, true))
    {
        CHECK(pthread_create(&shim_thread, NULL, run_meanwhile, NULL) == 0);
        /* It may have to wait for this call. */
        for (int i = 0; i < 100 && !atomic_load(&shim_done); i++)
            os_sleep(2000000);
    }
    return __real_epoll_ctl(epoll, operation, fd, event);
}

/* ---- Sockets ---- */

typedef struct udp
{
    tunring_socket *socket;
    tunring_source *source;
    tunring_endpoint address;
} udp;

/* A socket with which one can do something before it is opened. */
static int
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

static void
open_socket(udp *result, int fd, uint32_t max_chunks)
{
    const tunring_socket_options options = {.handle = (uintptr_t)fd, .runs = true, .max_chunks = max_chunks};
    CHECK(tunring_socket_open(&options, &result->socket) == ERROR_SUCCESS);
    close(fd);
    result->source = tunring_socket_source(result->socket);
}

static udp
open_udp(uint32_t max_chunks)
{
    udp result;
    const int fd = make_socket(&result);
    open_socket(&result, fd, max_chunks);
    return result;
}

static void
close_udp(udp *socket)
{
    tunring_source_close(socket->source);
    tunring_source_drop(socket->source);
}

static uint32_t
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

static tunring_lease *
receive(udp *socket, uint32_t max)
{
    tunring_lease *lease = NULL;
    CHECK_EQUAL(tunring_receive(socket->source, max, &POLL, &lease), ERROR_SUCCESS);
    return lease;
}

static void
let_go(tunring_lease *lease)
{
    tunring_lease_release(lease);
    tunring_lease_free(lease);
}

static bool
readable(const udp *socket)
{
    struct pollfd state = {.fd = (int)(intptr_t)tunring_source_read_event(socket->source), .events = POLLIN};
    return poll(&state, 1, 0) == 1;
}

static tunring_socket_stats
figures(udp *socket)
{
    tunring_socket_stats result;
    tunring_socket_read_stats(socket->socket, &result);
    return result;
}

/* ---- Tests ---- */

static void
test_a_run_arrives_as_its_datagrams(void)
{
    udp left = open_udp(64), right = open_udp(64);
    const uint32_t lengths[] = {1400, 1400, 1400, 700, 1400, 0, 0, 900, 65507, 1};
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 10, 1), 10);
    CHECK_EQUAL(run_calls, 1); /* the first four; an empty datagram ends a run and begins none */
    CHECK_EQUAL(calls, 7);
    tunring_lease *lease = receive(&right, 256);
    CHECK_EQUAL(lease->count, 10);
    for (int i = 0; i < 10; i++)
        CHECK_EQUAL(lease->slots[i].length, lengths[i]);
    CHECK(lease->slots[1].data == lease->slots[0].data + 1400);
    CHECK_EQUAL(lease->origins->count, 1);
    CHECK(tunring_endpoint_same(&lease->origins->list[0].from, &left.address));
    CHECK_EQUAL(lease->origins->list[0].ecn, 1);
    CHECK(memcmp(lease->origins->list[0].from.local, left.address.host, 16) == 0);
    CHECK_EQUAL(figures(&right).coalesced_reads, 1);
    let_go(lease);
    close_udp(&left);
    close_udp(&right);
}

static void
test_leftovers(void)
{
    udp left = open_udp(64), right = open_udp(64);
    uint32_t lengths[40];
    for (int i = 0; i < 40; i++)
        lengths[i] = 1000;
    CHECK(!readable(&right));
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 40, 0), 40);
    CHECK_EQUAL(calls, 1);
    uint32_t seen = 0;
    while (readable(&right))
    {
        tunring_lease *lease = receive(&right, 7);
        seen += lease->count;
        CHECK(lease->origins->count == 1 && lease->origins->list[0].first == 0);
        let_go(lease);
    }
    CHECK_EQUAL(seen, 40);
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 40, 0), 40);
    let_go(receive(&right, 1)); /* and close with the rest left over */
    close_udp(&left);
    close_udp(&right);
}

static void
test_the_bound_on_pinned_chunks(void)
{
    udp left = open_udp(64), right = open_udp(2);
    const uint32_t lengths[] = {60000};
    int count = 0;
    tunring_lease *held[9], *lease;
    for (;;)
    {
        CHECK_EQUAL(send_lengths(&left, &right, lengths, 1, 0), 1);
        if (tunring_receive(right.source, 1, &POLL, &lease) == WAIT_TIMEOUT)
            break;
        CHECK(count < 9);
        held[count++] = lease;
    }
    CHECK_EQUAL(count, 8);    /* four in each chunk */
    CHECK(!readable(&right)); /* although a datagram waits in the system */
    for (int i = 0; i < count; i++)
        let_go(held[i]);
    CHECK(readable(&right));
    let_go(receive(&right, 1));
    close_udp(&left);
    close_udp(&right);
}

typedef struct leases
{
    tunring_lease *list[9];
    int count;
} leases;

static void *
let_all_go(void *argument)
{
    leases *held = argument;
    while (held->count)
        let_go(held->list[--held->count]);
    return NULL;
}

/* A receive that finds no chunk masks the read event, while the chunks come back and unmask it. */
static void
test_chunks_that_come_back_in_the_middle(void)
{
    udp left = open_udp(64), right = open_udp(2);
    const uint32_t lengths[] = {60000};
    leases held = {.count = 0};
    while (held.count < 8)
    {
        CHECK_EQUAL(send_lengths(&left, &right, lengths, 1, 0), 1);
        held.list[held.count++] = receive(&right, 1);
    }
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 1, 0), 1);
    shim_argument = &held;
    shim_meanwhile = let_all_go;
    tunring_lease *lease;
    CHECK_EQUAL(tunring_receive(right.source, 1, NULL, &lease), WAIT_TIMEOUT);
    pthread_join(shim_thread, NULL);
    shim_meanwhile = NULL;
    CHECK(readable(&right));
    let_go(receive(&right, 1));
    CHECK(!readable(&right));
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 1, 0), 1);
    CHECK(readable(&right));
    close_udp(&left);
    close_udp(&right);
}

static void
test_refused_runs(int error, uint32_t length, bool socket_gives_up)
{
    udp left = open_udp(64), right = open_udp(64);
    uint32_t lengths[10];
    for (int i = 0; i < 10; i++)
        lengths[i] = length;
    shim_error = error;
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 10, 0), 10);
    CHECK_EQUAL(run_calls, udp_own_error(error) ? 1 : 2);
    CHECK_EQUAL(calls, run_calls + 10);
    tunring_lease *lease = receive(&right, 256);
    CHECK_EQUAL(lease->count, 10); /* each once */
    let_go(lease);
    CHECK_EQUAL(figures(&left).runs, !socket_gives_up);
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 10, 0), 10);
    CHECK_EQUAL(run_calls, 0); /* remembered */
    shim_error = 0;
    if (!socket_gives_up)
    {
        for (int i = 0; i < 10; i++)
            lengths[i] = length - 1;
        CHECK_EQUAL(send_lengths(&left, &right, lengths, 10, 0), 10);
        CHECK_EQUAL(run_calls, 1); /* smaller ones still go as runs */
    }
    close_udp(&left);
    close_udp(&right);
}

static void
test_refused_datagrams(void)
{
    udp left = open_udp(64), right = open_udp(64);
    const uint32_t lengths[] = {100, 100, 100};
    right.address.port = 0; /* the system refuses it */
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 3, 0), 3);
    CHECK_EQUAL(figures(&left).refused_other, 3);
    memcpy(right.address.host + 12, "\377\377\377\377", 4); /* broadcast, which was not asked for */
    right.address.port = 9;
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 3, 0), 3);
    CHECK_EQUAL(figures(&left).refused_unreachable, 3);
    close_udp(&left);
    close_udp(&right);
}

/* Every kind that icmp(7) lists. */
static const int icmp_errors[] = {ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, EMSGSIZE, ENOPROTOOPT,
                                  EHOSTDOWN,    ENONET,       EPROTO,      EACCES,   EOPNOTSUPP};
#define ICMP_ERRORS (sizeof(icmp_errors) / sizeof(icmp_errors[0]))

/* They neither end a receive nor take the place of a datagram that is sent. */
static void
test_icmp_errors(void)
{
    udp left = open_udp(64), right = open_udp(64);
    const uint32_t lengths[] = {100, 100, 100};
    for (size_t i = 0; i < ICMP_ERRORS; i++)
    {
        shim_pending_error = icmp_errors[i];
        shim_pending = 1;
        CHECK_EQUAL(send_lengths(&left, &right, lengths, 3, 0), 3);
        CHECK_EQUAL(run_calls, 2);
        CHECK_EQUAL(figures(&left).icmp_errors, i + 1);
        shim_pending = 50;
        tunring_lease *lease = receive(&right, 256);
        CHECK_EQUAL(lease->count, 3);
        CHECK_EQUAL(figures(&right).icmp_errors, 50 * (i + 1));
        let_go(lease);
    }
    CHECK_EQUAL(figures(&left).runs_sent, ICMP_ERRORS);
    CHECK_EQUAL(figures(&left).refused_unreachable + figures(&left).refused_size + figures(&left).refused_other, 0);
    CHECK_EQUAL(figures(&left).runs, true);
    close_udp(&left);
    close_udp(&right);
}

/* What the system says of the datagram itself is not an ICMP error. */
static void
test_unreachable_destinations(void)
{
    udp left = open_udp(64), right = open_udp(64);
    const uint32_t lengths[] = {90, 100, 110};
    shim_pending_error = EHOSTUNREACH;
    shim_pending = 6;
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 3, 0), 3);
    CHECK_EQUAL(shim_pending, 0);
    CHECK_EQUAL(figures(&left).refused_unreachable, 3);
    CHECK_EQUAL(figures(&left).icmp_errors, 0);
    close_udp(&left);
    close_udp(&right);
}

/* An error of the socket's own ends a receive, whose caller gets the system's number. */
static void
test_errors_of_its_own(void)
{
    udp left = open_udp(64), right = open_udp(64);
    const int errors[] = {EIO, ENOMEM, ECONNABORTED, ETXTBSY};
    const uint32_t length = 1;
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
    {
        tunring_lease *lease = NULL;
        shim_pending_error = errors[i];
        shim_pending = UINT32_MAX; /* for good: no peer's does that, whatever it is */
        const DWORD code = tunring_receive(right.source, 256, &FOREVER, &lease);
        shim_pending = 0;
        CHECK_EQUAL(code, udp_error_code(errors[i]));
        CHECK(!lease);
        CHECK_EQUAL(tunring_socket_receive_error(right.socket), errors[i]);
    }
    CHECK_EQUAL(send_lengths(&left, &right, &length, 1, 0), 1);
    let_go(receive(&right, 256));
    CHECK_EQUAL(tunring_socket_receive_error(right.socket), 0);
    close_udp(&left);
    close_udp(&right);
}

/* While no chunk is free, an ICMP error does not keep the read event ready. */
static void
test_an_icmp_error_while_no_chunk_is_free(void)
{
    udp left = open_udp(64), right = open_udp(2), gone = open_udp(2);
    const struct sockaddr_in target = {.sin_family = AF_INET,
                                       .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                       .sin_port = htons((uint16_t)gone.address.port)};
    const uint32_t lengths[] = {60000};
    leases held = {.count = 0};
    tunring_lease *lease;
    while (held.count < 8)
    {
        CHECK_EQUAL(send_lengths(&left, &right, lengths, 1, 0), 1);
        held.list[held.count++] = receive(&right, 1);
    }
    CHECK_EQUAL(tunring_receive(right.source, 1, &POLL, &lease), WAIT_TIMEOUT);
    CHECK(connect((int)right.socket->handle, (const struct sockaddr *)&target, sizeof(target)) == 0);
    close_udp(&gone);
    CHECK_EQUAL(send_lengths(&right, &gone, lengths, 1, 0), 1); /* nobody is there: port unreachable */
    CHECK(readable(&right));
    CHECK_EQUAL(tunring_receive(right.source, 1, &POLL, &lease), WAIT_TIMEOUT);
    CHECK(!readable(&right));
    CHECK_EQUAL(figures(&right).icmp_errors, 1);
    let_all_go(&held);
    close_udp(&left);
    close_udp(&right);
}

static void
test_a_source_that_vanished(void)
{
    udp left = open_udp(64), right = open_udp(64);
    const uint32_t lengths[] = {100, 100, 100};
    memcpy(right.address.local, "\0\0\0\0\0\0\0\0\0\0\377\377\12\1\2\3", 16);
    shim_source_error = ENETUNREACH;
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 3, 0), 3);
    CHECK_EQUAL(calls, 3); /* the first error might have been an earlier datagram's */
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 3, 0), 3);
    CHECK_EQUAL(calls, 1); /* remembered */
    shim_source_error = 0;
    tunring_lease *lease = receive(&right, 256);
    CHECK_EQUAL(lease->count, 6);
    let_go(lease);
    close_udp(&left);
    close_udp(&right);
}

/* A device that refuses runs does so with or without a source address: their datagrams still leave from it. */
static void
test_refused_runs_keep_their_source(void)
{
    udp left = open_udp(64), right = open_udp(64);
    const uint32_t lengths[] = {1400, 1400, 1400, 1400};
    memcpy(right.address.local, "\0\0\0\0\0\0\0\0\0\0\377\377\177\0\0\11", 16);
    shim_error = EINVAL;
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 4, 0), 4);
    CHECK_EQUAL(calls, 6);
    CHECK_EQUAL(run_calls, 2);
    CHECK_EQUAL(source_calls, 5);
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 4, 0), 4);
    CHECK_EQUAL(calls, 4);
    CHECK_EQUAL(source_calls, 4);
    tunring_lease *lease = receive(&right, 256);
    CHECK_EQUAL(lease->count, 8);
    CHECK_EQUAL(lease->origins->count, 1);
    CHECK(memcmp(lease->origins->list[0].from.host, right.address.local, 16) == 0);
    let_go(lease);
    /* Refused for both reasons: each datagram leaves without it. */
    shim_source_error = ENETUNREACH;
    right.address.port++; /* about which nothing is known */
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 4, 0), 4);
    CHECK_EQUAL(figures(&left).refused_unreachable + figures(&left).refused_other, 0);
    shim_error = shim_source_error = 0;
    close_udp(&left);
    close_udp(&right);
}

static void
test_a_batch_outlives_its_socket(void)
{
    udp left = open_udp(64), right = open_udp(64);
    const uint32_t lengths[] = {100, 100, 100};
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 3, 0), 3);
    tunring_lease *lease = receive(&right, 256);
    close_udp(&right);
    CHECK_EQUAL(lease->slots[2].data[99], 0);
    let_go(lease);
    close_udp(&left);
}

static void
test_linger(void)
{
    udp left = open_udp(64), right = open_udp(64);
    const uint32_t lengths[] = {100, 90, 100};
    tunring_wait wait = {.deadline = TUNRING_FOREVER, .min_packets = 3, .linger = 30000000};
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 2, 0), 2);
    int64_t began = os_now();
    tunring_lease *lease;
    CHECK_EQUAL(tunring_receive(right.source, 256, &wait, &lease), ERROR_SUCCESS);
    CHECK(lease->count == 2 && os_now() - began >= 30000000);
    let_go(lease);
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 3, 0), 3);
    wait.linger = TUNRING_FOREVER;
    CHECK_EQUAL(tunring_receive(right.source, 256, &wait, &lease), ERROR_SUCCESS);
    CHECK_EQUAL(lease->count, 3);
    let_go(lease);
    close_udp(&left);
    close_udp(&right);
}

static void
test_gather(void)
{
    udp left = open_udp(64), right = open_udp(64);
    const uint32_t lengths[] = {100, 90, 80, 70, 60};
    uint32_t count;
    CHECK_EQUAL(tunring_gather(right.source, 256, &count), ERROR_SUCCESS);
    CHECK_EQUAL(count, 0);
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 3, 1), 3);
    CHECK_EQUAL(send_lengths(&left, &right, lengths + 3, 2, 2), 2);
    CHECK_EQUAL(tunring_gather(right.source, 2, &count), ERROR_SUCCESS);
    CHECK_EQUAL(count, 2);
    CHECK_EQUAL(tunring_gather(right.source, 256, &count), ERROR_SUCCESS);
    CHECK_EQUAL(count, 5);
    /* A smaller receive takes the first, and leaves the others with where they came from. */
    tunring_lease *lease = receive(&right, 2);
    CHECK(lease->count == 2 && lease->slots[0].length == 100 && lease->slots[1].length == 90);
    CHECK(lease->bytes == 190 && lease->origins->count == 1 && lease->origins->list[0].ecn == 1);
    let_go(lease);
    lease = receive(&right, 256);
    CHECK(lease->count == 3 && lease->slots[0].length == 80 && lease->slots[2].length == 60);
    CHECK(lease->bytes == 210 && lease->origins->count == 2);
    CHECK(lease->origins->list[0].first == 0 && lease->origins->list[0].ecn == 1);
    CHECK(lease->origins->list[1].first == 1 && lease->origins->list[1].ecn == 2);
    let_go(lease);
    /* Close lets go of what is kept. */
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 5, 0), 5);
    CHECK_EQUAL(tunring_gather(right.source, 256, &count), ERROR_SUCCESS);
    CHECK_EQUAL(count, 5);
    close_udp(&left);
    close_udp(&right);
}

static void
test_truncated_datagrams(void)
{
    udp left = open_udp(64), right = open_udp(64);
    const uint32_t lengths[] = {99, 200, 0, 101};
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 4, 0), 4);
    shim_room = 100;
    tunring_lease *lease = receive(&right, 256);
    shim_room = 0;
    CHECK_EQUAL(figures(&right).truncated, 2);
    uint32_t sum = 0;
    for (uint32_t i = 0; i < lease->count; i++)
    {
        CHECK(lease->slots[i].length <= 100);
        sum += lease->slots[i].length;
    }
    CHECK_EQUAL(sum, 299);
    let_go(lease);
    close_udp(&left);
    close_udp(&right);
}

/* A socket that is taken over may have lost datagrams before. */
static void
test_drops_are_counted_from_the_beginning(void)
{
    udp left = open_udp(64), right;
    const uint32_t length = 1000;
    const int fd = make_socket(&right), least = 1;
    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &least, sizeof(least)) == 0);
    for (int i = 0; i < 20; i++)
        CHECK_EQUAL(send_lengths(&left, &right, &length, 1, 0), 1);
    open_socket(&right, fd, 64);
    CHECK_EQUAL(figures(&right).host_dropped, 0);
    for (int i = 0; i < 5; i++)
        CHECK_EQUAL(send_lengths(&left, &right, &length, 1, 0), 1);
    CHECK_EQUAL(figures(&right).host_dropped, 5);
    close_udp(&left);
    tunring_source_close(right.source);
    CHECK_EQUAL(figures(&right).host_dropped, 5);
    tunring_source_drop(right.source);
}

static DWORD
wait_for_end(const tunring_pcapng_file *file)
{
    const tunring_wait wait = {.deadline = os_deadline(20000000000)};
    return tunring_pcapng_close((tunring_pcapng_file *)(uintptr_t)file, &wait);
}

/* Each datagram is in the file once each way, after headers whose sums come out right. */
static void
test_capture(void)
{
    udp left = open_udp(64), right = open_udp(64);
    const uint32_t lengths[] = {100, 100, 51, 0, 65507};
    char name[] = "/tmp/tunring-XXXXXX";
    const int fd = mkstemp(name);
    uint32_t count = 0;
    CHECK(fd >= 0 && unlink(name) == 0);
    tunring_pcapng_file *file;
    CHECK_EQUAL(tunring_pcapng_open((HANDLE)(intptr_t)fd, "test", &file), ERROR_SUCCESS);
    uint32_t number;
    CHECK_EQUAL(tunring_pcapng_add_interface(file, "udp", "", 65535, &FOREVER, &number), ERROR_SUCCESS);
    CHECK_EQUAL(tunring_source_capture(left.source, file, 0, true, true, &number), ERROR_SUCCESS);
    uint32_t other;
    CHECK_EQUAL(tunring_source_capture(right.source, file, 0, true, true, &other), ERROR_SUCCESS);
    CHECK_EQUAL(tunring_source_capture(right.source, file, 0, true, true, &other), ERROR_BUSY);
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 5, 2), 5);
    let_go(receive(&right, 256));
    tunring_source_capture_end(left.source, number);
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 1, 0), 1); /* not captured */
    close_udp(&right);
    CHECK_EQUAL(wait_for_end(file), ERROR_SUCCESS);
    CHECK_EQUAL(tunring_pcapng_packets(file), 10);
    CHECK_EQUAL(tunring_pcapng_dropped(file), 0);
    tunring_pcapng_drop(file);
    static BYTE content[400000];
    const ssize_t size = pread(fd, content, sizeof(content), 0);
    for (ssize_t at = 0; at < size;)
    {
        uint32_t words[7];
        memcpy(words, content + at, sizeof(words));
        if (words[0] == 6)
        {
            const BYTE *packet = content + at + 28;
            const uint32_t length = 28 + lengths[count++ % 5];
            CHECK_EQUAL(words[5], length);
            CHECK_EQUAL(words[6], length);
            CHECK_EQUAL(packet[0], 0x45);
            CHECK_EQUAL(packet[1], 2);
            CHECK_EQUAL((uint32_t)packet[2] << 8 | packet[3], length);
            CHECK_EQUAL((uint32_t)packet[20] << 8 | packet[21], left.address.port);
            CHECK_EQUAL((uint32_t)packet[22] << 8 | packet[23], right.address.port);
            CHECK_EQUAL((uint32_t)packet[24] << 8 | packet[25], length - 20);
            uint32_t sum = 17 + length - 20;
            for (uint32_t i = 12; i < length; i++)
                sum += i % 2 ? packet[i] : (uint32_t)packet[i] << 8;
            CHECK_EQUAL(sum % 0xFFFF, 0);
        }
        at += words[1];
    }
    CHECK_EQUAL(count, 10);
    close(fd);
    close_udp(&left);
}

static void *
close_source(void *argument)
{
    tunring_source_close(argument);
    return NULL;
}

/* A thread that waits for the descriptor in a call of its own is woken when the socket is closed. */
static void
test_poll_ends_with_the_socket(void)
{
    for (int i = 0; i < 200; i++)
    {
        udp udp = open_udp(64);
        struct pollfd state = {.fd = (int)(intptr_t)tunring_source_read_event(udp.source), .events = POLLIN};
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, close_source, udp.source) == 0);
        CHECK_EQUAL(poll(&state, 1, 20000), 1);
        pthread_join(thread, NULL);
        tunring_source_drop(udp.source);
    }
}

int
main(void)
{
    test_a_run_arrives_as_its_datagrams();
    test_leftovers();
    test_the_bound_on_pinned_chunks();
    test_chunks_that_come_back_in_the_middle();
    test_refused_runs(EIO, 1400, true);
    test_refused_runs(EINVAL, 1400, false);
    test_refused_runs(EMSGSIZE, 1400, false);
    test_refused_runs(EINVAL, 1100, true);
    test_refused_datagrams();
    test_icmp_errors();
    test_unreachable_destinations();
    test_errors_of_its_own();
    test_an_icmp_error_while_no_chunk_is_free();
    test_a_source_that_vanished();
    test_refused_runs_keep_their_source();
    test_a_batch_outlives_its_socket();
    test_linger();
    test_gather();
    test_truncated_datagrams();
    test_drops_are_counted_from_the_beginning();
    test_capture();
    test_poll_ends_with_the_socket();
    return 0;
}
