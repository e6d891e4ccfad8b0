/* SPDX-License-Identifier: MIT
 *
 * A stream of UDP datagrams at a rate, and what counts those that arrive:
 *
 *     stream source HOST PORT SIZE    for each line RATE MILLISECONDS on its standard input sends that many a second,
 *                                     in bursts of a millisecond, and prints how many it sent
 *     stream sink HOST PORT           for each line prints how many came since the last one
 *
 * SIZE is that of the payload. The sink's buffer is larger than what it is measured for may hold back at a time.
 */
#include "../c/clock.h"

#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define VECTOR 64
#define MILLISECOND INT64_C(1000000)
#define SINK_BUFFER (64 << 20)

static char payload[VECTOR][65536];
static struct mmsghdr messages[VECTOR];
static struct iovec pieces[VECTOR];

static void
fail(const char *what)
{
    perror(what);
    exit(1);
}

static void
prepare(size_t length)
{
    for (int i = 0; i < VECTOR; i++)
    {
        pieces[i] = (struct iovec){payload[i], length};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &pieces[i], .msg_iovlen = 1};
    }
}

/* Returns how many were sent: what finds no room is lost, and sent all the same. */
static uint64_t
source(int link, uint64_t rate, int64_t milliseconds)
{
    const int64_t began = now(), end = began + milliseconds * MILLISECOND;
    uint64_t sent = 0;
    for (int64_t time = began; time < end; time = now())
    {
        const uint64_t due = (uint64_t)((double)rate * (double)(time - began) / 1e9);
        while (sent < due)
        {
            const unsigned most = due - sent < VECTOR ? (unsigned)(due - sent) : VECTOR;
            const int done = sendmmsg(link, messages, most, 0);
            sent += done > 0 ? (unsigned)done : 1;
        }
        const struct timespec pause = {.tv_nsec = MILLISECOND};
        nanosleep(&pause, NULL);
    }
    return sent;
}

static void
sink(int link)
{
    struct pollfd watched[2] = {{.fd = link, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
    uint64_t came = 0;
    char line[64];
    while (poll(watched, 2, -1) > 0)
    {
        int got = 0;
        if (watched[0].revents)
            while ((got = recvmmsg(link, messages, VECTOR, MSG_DONTWAIT, NULL)) > 0)
                came += (unsigned)got;
        if (!watched[1].revents)
            continue;
        if (read(STDIN_FILENO, line, sizeof(line)) <= 0)
            return;
        printf("%llu\n", (unsigned long long)came);
        came = 0;
    }
}

int
main(int count, char **arguments)
{
    if (count < 4)
        return 2;
    const int sinks = strcmp(arguments[1], "sink") == 0;
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(arguments[3]))};
    const int link = socket(AF_INET, SOCK_DGRAM, 0), room = SINK_BUFFER;
    inet_pton(AF_INET, arguments[2], &there.sin_addr);
    if (link < 0)
        fail("socket");
    if ((sinks ? bind : connect)(link, (struct sockaddr *)&there, sizeof(there)) != 0)
        fail(arguments[1]);
    if (sinks && setsockopt(link, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)) != 0)
        fail("SO_RCVBUFFORCE");
    setvbuf(stdout, NULL, _IOLBF, 0);
    prepare(sinks ? sizeof(payload[0]) : (size_t)atoi(arguments[4]));
    puts("ready");
    if (sinks)
    {
        sink(link);
        return 0;
    }
    unsigned long long rate;
    long long milliseconds;
    while (scanf("%llu %lld", &rate, &milliseconds) == 2)
        printf("%llu\n", (unsigned long long)source(link, rate, milliseconds));
    return 0;
}
