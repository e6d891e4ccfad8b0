/* SPDX-License-Identifier: MIT
 *
 * The yardstick of forwarder.py: the same with one read() and one write() per packet.
 *
 *     forwarder NAMESPACE NAMESPACE
 *
 * The arguments are descriptors of network namespaces. It makes an interface "tun0" in each, prints "ready", and ends
 * with its standard input.
 */
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define MAX_PACKET 65535

typedef struct direction
{
    int source;
    int target;
} direction;

static void
check(int result, const char *what)
{
    if (result < 0)
    {
        perror(what);
        exit(1);
    }
}

static int
open_tun(int space)
{
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    strcpy(request.ifr_name, "tun0");
    check(setns(space, CLONE_NEWNET), "setns");
    const int tun = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    check(tun, "/dev/net/tun");
    check(ioctl(tun, TUNSETIFF, &request), "TUNSETIFF");
    return tun;
}

static void *
forward(void *parameter)
{
    const direction *way = parameter;
    char packet[MAX_PACKET];
    for (;;)
    {
        const ssize_t size = read(way->source, packet, sizeof(packet));
        /* Refused while the interface is down, or for being no IP: lost, as by any router. */
        if (size > 0 && write(way->target, packet, (size_t)size) < 0)
            continue;
    }
    return NULL;
}

int
main(int count, char **arguments)
{
    if (count != 3)
        return 2;
    const int first = open_tun(atoi(arguments[1]));
    const int second = open_tun(atoi(arguments[2]));
    direction ways[] = {{first, second}, {second, first}};
    pthread_t thread;
    for (int i = 0; i < 2; i++)
        if (pthread_create(&thread, NULL, forward, &ways[i]) != 0)
            return 1;
    puts("ready");
    fflush(stdout);
    char byte;
    while (read(STDIN_FILENO, &byte, 1) > 0)
        continue;
    return 0;
}
