/* SPDX-License-Identifier: MIT
 *
 * The peer without a library: read() and write() on a TUN descriptor, a packet a call.
 *
 *     plain receive                 for each number on its standard input reads that many packets
 *plain send PACKET             writes that many; PACKET is in hexadecimal
 *     plain echo                    answers every packet
 *     plain forward NETNS NETNS     between "tun0" in two network namespaces, given as descriptors
 *
 * receive and send print the nanoseconds that it took.
 */
#include "../c/clock.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static void
fail(const char *what)
{
    perror(what);
    exit(1);
}

static int
open_tun(void)
{
    struct ifreq request = {.ifr_name = "tun0", .ifr_flags = IFF_TUN | IFF_NO_PI};
    int tun = open("/dev/net/tun", O_RDWR);
    if (tun < 0 || ioctl(tun, TUNSETIFF, &request) != 0)
        fail("tun0");
    return tun;
}

static size_t
parse_packet(const char *text, unsigned char *packet)
{
    const size_t size = strlen(text) / 2;
    for (size_t i = 0; i < size; i++)
    {
        unsigned value;
        sscanf(text + 2 * i, "%2x", &value);
        packet[i] = (unsigned char)value;
    }
    return size;
}

static void
echo(int tun)
{
    unsigned char packet[65536], address[4];
    for (;;)
    {
        const ssize_t size = read(tun, packet, sizeof(packet));
        if (size < 0)
            fail("read");
        /* The checksums stay right when addresses and ports change places. */
        memcpy(address, packet + 12, 4);
        memcpy(packet + 12, packet + 16, 4);
        memcpy(packet + 16, address, 4);
        memcpy(address, packet + 20, 2);
        memcpy(packet + 20, packet + 22, 2);
        memcpy(packet + 22, address, 2);
        if (write(tun, packet, (size_t)size) < 0)
            fail("write");
    }
}

static void *
forward(void *ways)
{
    const int *way = ways;
    unsigned char packet[65536];
    for (;;)
    {
        const ssize_t size = read(way[0], packet, sizeof(packet));
        if (size < 0)
            fail("read");
        /* A packet that the interface refuses is lost, as on any wire. */
        if (write(way[1], packet, (size_t)size) < 0)
            continue;
    }
    return NULL;
}

static void
forward_both(char **namespaces)
{
    static int ways[2][2];
    for (int i = 0; i < 2; i++)
    {
        if (setns(atoi(namespaces[i]), CLONE_NEWNET) != 0)
            fail("setns");
        ways[i][0] = ways[1 - i][1] = open_tun();
    }
    puts("ready");
    pthread_t thread;
    if (pthread_create(&thread, NULL, forward, ways[0]) != 0)
        fail("thread");
    forward(ways[1]);
}

int
main(int count, char **arguments)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (count == 4)
        forward_both(arguments + 2);
    if (count < 2)
        return 2;
    const int tun = open_tun();
    puts("ready");
    if (strcmp(arguments[1], "echo") == 0)
        echo(tun);
    unsigned char packet[65536];
    const size_t size = count > 2 ? parse_packet(arguments[2], packet) : 0;
    unsigned number;
    while (scanf("%u", &number) == 1)
    {
        const int64_t began = now();
        for (; number > 0; number--)
            if ((size ? write(tun, packet, size) : read(tun, packet, sizeof(packet))) < 0)
                fail("packet");
        printf("%lld\n", (long long)(now() - began));
    }
    return 0;
}
