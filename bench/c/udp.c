/* SPDX-License-Identifier: MIT
 *
 * Datagrams in runs by one system call each, as plain C sends and receives them on this machine.
 *
 *     udp send|receive|keep SIZE GRO ROUNDS
 *
 * Each round sends 8 runs of 40 datagrams of SIZE bytes from one socket to another, which is then read empty; GRO is 1
 * if the far end takes runs whole. Only the sending, or the receiving, is measured: into one buffer again and again,
 * or, to keep the round's datagrams, each run into one of its own. It prints the median round, in
 * nanoseconds per datagram.
 */
#include "clock.h"

#include <arpa/inet.h>
#include <netinet/udp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define RUN 40
#define RUNS 8
#define ROOM (64 * 1024)

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

static void
check(bool fine, const char *what)
{
    if (fine)
        return;
    perror(what);
    exit(1);
}

static int
open_socket(struct sockaddr_in *address)
{
    const int fd = socket(AF_INET, SOCK_DGRAM, 0), receive = 16 << 20, send = 7 << 20;
    socklen_t size = sizeof(*address);
    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    check(fd >= 0 && bind(fd, (struct sockaddr *)address, size) == 0, "bind");
    check(getsockname(fd, (struct sockaddr *)address, &size) == 0, "getsockname");
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &receive, sizeof(receive)) != 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive, sizeof(receive));
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &send, sizeof(send)) != 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send, sizeof(send));
    return fd;
}

static void
send_run(int fd, struct sockaddr_in *to, unsigned char *bytes, size_t size)
{
    char control[CMSG_SPACE(sizeof(uint16_t))] = {0};
    struct iovec pieces[RUN];
    struct msghdr message = {.msg_name = to, .msg_namelen = sizeof(*to), .msg_iov = pieces, .msg_iovlen = RUN};
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    const uint16_t segment = (uint16_t)size;
    header->cmsg_level = IPPROTO_UDP;
    header->cmsg_type = UDP_SEGMENT;
    header->cmsg_len = CMSG_LEN(sizeof(segment));
    memcpy(CMSG_DATA(header), &segment, sizeof(segment));
    for (size_t i = 0; i < RUN; i++)
        pieces[i] = (struct iovec){bytes + i * size, size};
    check(sendmsg(fd, &message, MSG_DONTWAIT) == (ssize_t)(RUN * size), "sendmsg");
}

/* Reads everything, with the source and the control messages that a server looks at. Returns the bytes. The
 * next run goes `step` bytes behind the last one. */
static size_t
receive_all(int fd, unsigned char *bytes, size_t step)
{
    size_t total = 0;
    for (;; bytes += step)
    {
        struct iovec piece = {bytes, ROOM};
        struct sockaddr_in6 from;
        struct msghdr message = {.msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &piece, .msg_iovlen = 1};
        char control[256];
        message.msg_control = control;
        message.msg_controllen = sizeof(control);
        const ssize_t got = recvmsg(fd, &message, MSG_DONTWAIT);
        if (got < 0)
            return total;
        for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header))
            total += header->cmsg_type == 255; /* never: but it is looked at */
        total += (size_t)got;
    }
}

static int
compare(const void *one, const void *other)
{
    const double left = *(const double *)one, right = *(const double *)other;
    return left < right ? -1 : left > right;
}

int
main(int count, char **words)
{
    if (count != 5)
        return 2;
    const bool sending = strcmp(words[1], "send") == 0, keeping = strcmp(words[1], "keep") == 0;
    const size_t size = (size_t)atoi(words[2]);
    const int gro = atoi(words[3]), rounds = atoi(words[4]), on = 1;
    struct sockaddr_in near, far;
    const int from = open_socket(&near), to = open_socket(&far);
    unsigned char *bytes = calloc(RUN, size), *room = malloc((RUNS * RUN + 1) * (size_t)ROOM);
    double *taken = calloc((size_t)rounds, sizeof(*taken));
    check(bytes && room && taken, "memory");
    check(!gro || setsockopt(to, IPPROTO_UDP, UDP_GRO, &gro, sizeof(gro)) == 0, "UDP_GRO");
    setsockopt(to, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on));
    setsockopt(to, IPPROTO_IP, IP_RECVTOS, &on, sizeof(on));
    for (int round = 0; round < rounds; round++)
    {
        const int64_t began = now();
        for (int i = 0; i < RUNS; i++)
            send_run(from, &far, bytes, size);
        const int64_t sent = now();
        check(receive_all(to, room, keeping ? ROOM : 0) == RUNS * RUN * size, "something was lost");
        taken[round] = (double)(sending ? sent - began : now() - sent) / (RUNS * RUN);
    }
    qsort(taken, (size_t)rounds, sizeof(*taken), compare);
    printf("%.2f\n", taken[rounds / 2]);
    return 0;
}
