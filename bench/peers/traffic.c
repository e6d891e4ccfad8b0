/* SPDX-License-Identifier: MIT
 *
 * Traffic to measure the peers with: a source of UDP datagrams, and a client for echoes. It runs in the peer's
 * namespace.
 *
 *     traffic flood SIZE SEGMENTS    sends without end; pause it with SIGSTOP
 *     traffic fill SIZE SEGMENTS     for each number on its standard input does that many sends, then prints "done"
 *     traffic echo SIZE              for each number makes that many round trips; prints p50, p99, p99.9 in nanoseconds
 *
 * SIZE is that of the IP packet. With SEGMENTS of 1 each datagram is a packet of the sender's own; else a send is one
 * segmented superpacket of that many.
 */
#include "../c/clock.h"

#include <arpa/inet.h>
#include <netinet/udp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define HEADERS 28
#define VECTOR 64
#define MOST_TRIPS 200000

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

static char payload[65536];

static void
fail(const char *what)
{
    perror(what);
    exit(1);
}

static int
connected(int segment)
{
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(9)};
    int link = socket(AF_INET, SOCK_DGRAM, 0);
    inet_pton(AF_INET, "10.9.0.2", &there.sin_addr);
    if (link < 0 || connect(link, (struct sockaddr *)&there, sizeof(there)) != 0)
        fail("connect");
    if (segment && setsockopt(link, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof(segment)) != 0)
        fail("UDP_SEGMENT");
    return link;
}

/* `count` sends, or VECTOR at a time without end. */
static void
send_many(int link, size_t length, unsigned count)
{
    static struct iovec piece;
    piece = (struct iovec){payload, length};
    static struct mmsghdr messages[VECTOR];
    for (int i = 0; i < VECTOR; i++)
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &piece, .msg_iovlen = 1};
    while (count > 0)
    {
        const unsigned max = count < VECTOR ? count : VECTOR;
        /* A full queue drops and reports it; that is not a failure here. */
        const int sent = sendmmsg(link, messages, max, 0);
        count -= sent > 0 ? (unsigned)sent : max;
    }
}

static int
ascending(const void *left, const void *right)
{
    const int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

static void
round_trips(int link, size_t length, unsigned count)
{
    if (count > MOST_TRIPS)
        count = MOST_TRIPS;
    char answer[65536];
    static int64_t taken[MOST_TRIPS];
    for (unsigned i = 0; i < count; i++)
    {
        const int64_t began = now();
        if (send(link, payload, length, 0) < 0 || recv(link, answer, sizeof(answer), 0) < 0)
            fail("echo");
        taken[i] = now() - began;
    }
    qsort(taken, count, sizeof(taken[0]), ascending);
    printf("%lld %lld %lld\n", (long long)taken[count / 2], (long long)taken[count / 100 * 99],
           (long long)taken[count / 1000 * 999]);
}

int
main(int count, char **arguments)
{
    if (count < 3)
        return 2;
    const size_t size = (size_t)atoi(arguments[2]) - HEADERS;
    const size_t segments = count > 3 ? (size_t)atoi(arguments[3]) : 1;
    const int link = connected(segments > 1 ? (int)size : 0);
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    if (strcmp(arguments[1], "flood") == 0)
        for (;;)
            send_many(link, size * segments, VECTOR);
    unsigned number;
    while (scanf("%u", &number) == 1)
    {
        if (strcmp(arguments[1], "echo") == 0)
        {
            round_trips(link, size, number);
            continue;
        }
        send_many(link, size * segments, number);
        puts("done");
    }
    return 0;
}
