/* SPDX-License-Identifier: MIT
 *
 * Errors on a UDP socket: each way in which the system may refuse a run or a datagram, source addresses that are gone,
 * ICMP errors of peers, and what ends a receive.
 */
/* build: parts=core flags=-Wl,--wrap=sendmsg,--wrap=recvmsg */
#include "udp_net.h"

#include "core/socket.h"

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

/* An error about the datagram itself does not count as an ICMP error. */
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

int
main(void)
{
    use_own_network();
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
    return 0;
}
