/* SPDX-License-Identifier: MIT
 *
 * A network namespace for a test of tun_linux: interfaces, addresses, sockets and packets.
 */
#ifndef TUNRING_TUN_NET_H
#define TUNRING_TUN_NET_H

#include "check.h"
#include "backends/common/exports.h"
#include "packet/checksum.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define SKIPPED 77
#define PORT 4789

static const char *const local4 = "10.66.0.1";
static const char *const remote4 = "10.66.0.2";
static const char *const local6 = "fd66::1";
static const char *const remote6 = "fd66::2";

/* As linux/ipv6.h has it, which clashes with netinet/in.h. */
struct ipv6_request
{
    struct in6_addr address;
    uint32_t prefix_length;
    int index;
};

/* ---- The ABI with plain strings ---- */

static inline const WCHAR *
wide(const char *text)
{
    static _Thread_local WCHAR units[4][512];
    static _Thread_local unsigned turn;
    WCHAR *result = units[turn++ % 4];
    size_t i = 0;
    for (; text[i]; i++)
        result[i] = (unsigned char)text[i];
    result[i] = 0;
    return result;
}

static inline WINTUN_ADAPTER_HANDLE
create(const char *name)
{
    WINTUN_ADAPTER_HANDLE adapter = WintunCreateAdapter(wide(name), wide("Test"), NULL);
    CHECK(adapter);
    return adapter;
}

/* The last log line, in ASCII. */
static char last_line[1024];

static inline void CALLBACK
keep_line(WINTUN_LOGGER_LEVEL level, DWORD64 timestamp, LPCWSTR message)
{
    (void)level;
    CHECK(timestamp > 130000000000000000u);
    size_t i = 0;
    for (; message[i] && i < sizeof(last_line) - 1; i++)
        last_line[i] = (char)message[i];
    last_line[i] = 0;
}

#define CHECK_FAILS(call, code)                                                               \
    do                                                                                        \
    {                                                                                         \
        last_line[0] = 0;                                                                     \
        SetLastError(0);                                                                      \
        CHECK(!(call));                                                                       \
        if (GetLastError() != (code))                                                         \
            fprintf(stderr, "last error %u; log: %s\n", (unsigned)GetLastError(), last_line); \
        CHECK(GetLastError() == (code));                                                      \
    } while (0)

static inline bool
readable(HANDLE event, int milliseconds)
{
    struct pollfd state = {.fd = (int)(intptr_t)event, .events = POLLIN};
    return poll(&state, 1, milliseconds) == 1 && state.revents & POLLIN;
}

static inline bool
ready(WINTUN_SESSION_HANDLE session)
{
    return readable(WintunGetReadWaitEvent(session), 0);
}

/* ---- The system ---- */

static inline void
write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}

static inline int
control4(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    return fd;
}

static inline struct ifreq
request_named(const char *name)
{
    struct ifreq request = {0};
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    return request;
}

static inline short
link_flags(const char *name)
{
    struct ifreq request = request_named(name);
    int fd = control4();
    CHECK(ioctl(fd, SIOCGIFFLAGS, &request) == 0);
    close(fd);
    return request.ifr_flags;
}

static inline void
set_up(const char *name, bool up)
{
    struct ifreq request = request_named(name);
    request.ifr_flags = (short)(up ? link_flags(name) | IFF_UP : link_flags(name) & ~IFF_UP);
    int fd = control4();
    CHECK(ioctl(fd, SIOCSIFFLAGS, &request) == 0);
    close(fd);
}

static inline void
set_ipv6(const char *name, bool on)
{
    char path[128];
    snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/disable_ipv6", name);
    write_file(path, on ? "0" : "1");
}

static inline void
add_address4(const char *name)
{
    struct ifreq request = request_named(name);
    struct sockaddr_in *address = (struct sockaddr_in *)(void *)&request.ifr_addr;
    int fd = control4();
    address->sin_family = AF_INET;
    CHECK(inet_pton(AF_INET, local4, &address->sin_addr) == 1);
    CHECK(ioctl(fd, SIOCSIFADDR, &request) == 0);
    CHECK(inet_pton(AF_INET, "255.255.255.0", &address->sin_addr) == 1);
    CHECK(ioctl(fd, SIOCSIFNETMASK, &request) == 0);
    close(fd);
}

/* Before the interface is up: no duplicate address detection, no link-local address and so no traffic of its own. */
static inline void
add_address6(const char *name)
{
    struct ipv6_request request = {.prefix_length = 64, .index = (int)if_nametoindex(name)};
    char path[128];
    snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/accept_dad", name);
    write_file(path, "0");
    snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/addr_gen_mode", name);
    write_file(path, "1");
    int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    CHECK(inet_pton(AF_INET6, local6, &request.address) == 1);
    CHECK(ioctl(fd, SIOCSIFADDR, &request) == 0);
    close(fd);
}

/* A namespace of our own, which goes with the process. */
static inline void
enter_namespace(void)
{
    if (unshare(CLONE_NEWNET) != 0)
    {
        perror("no network namespace");
        exit(SKIPPED);
    }
    set_up("lo", true);
    WintunSetLogger(keep_line);
}

/* The interface carries IPv4 only, and nothing that we don't send. */
static inline void
configure4(const char *name)
{
    set_ipv6(name, false);
    add_address4(name);
    set_up(name, true);
}

static inline int
run(const char *command)
{
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static inline int
udp_socket(int family)
{
    int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    return fd;
}

/* A datagram from the kernel into the interface. */
static inline void
kernel_sends(int fd, int family, const void *data, size_t size)
{
    struct sockaddr_in to4 = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    struct sockaddr_in6 to6 = {.sin6_family = AF_INET6, .sin6_port = htons(PORT)};
    CHECK(inet_pton(AF_INET, remote4, &to4.sin_addr) == 1);
    CHECK(inet_pton(AF_INET6, remote6, &to6.sin6_addr) == 1);
    const struct sockaddr *to = family == AF_INET ? (struct sockaddr *)&to4 : (struct sockaddr *)&to6;
    const socklen_t length = family == AF_INET ? sizeof(to4) : sizeof(to6);
    CHECK(sendto(fd, data, size, 0, to, length) == (ssize_t)size);
}

/* ---- Packets ---- */

static inline uint32_t
add_up(uint32_t sum, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        sum += i % 2 ? data[i] : (uint32_t)data[i] << 8;
    return sum;
}

static inline uint32_t
folded(uint32_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xFFFF) + (sum >> 16);
    return ~sum & 0xFFFF;
}

static inline DWORD
udp_size(int family, DWORD size)
{
    return size + 8 + (family == AF_INET ? 20 : 40);
}

/* A datagram from the far host to port PORT of the near one. */
static inline void
build_udp(BYTE *packet, int family, const void *data, DWORD size)
{
    const uint32_t length = size + 8;
    BYTE *udp = packet + (family == AF_INET ? 20 : 40);
    const BYTE *addresses = packet + (family == AF_INET ? 12 : 8);
    memset(packet, 0, (size_t)(udp - packet) + 8);
    if (family == AF_INET)
    {
        packet[0] = 0x45;
        packet_put16(packet + 2, length + 20);
        packet[6] = 0x40; /* not to be fragmented, so that equal identifications don't matter */
        packet[8] = 64;
        packet[9] = IPPROTO_UDP;
        CHECK(inet_pton(AF_INET, remote4, packet + 12) == 1);
        CHECK(inet_pton(AF_INET, local4, packet + 16) == 1);
        packet_put16(packet + 10, folded(add_up(0, packet, 20)));
    }
    else
    {
        packet[0] = 0x60;
        packet_put16(packet + 4, length);
        packet[6] = IPPROTO_UDP;
        packet[7] = 64;
        CHECK(inet_pton(AF_INET6, remote6, packet + 8) == 1);
        CHECK(inet_pton(AF_INET6, local6, packet + 24) == 1);
    }
    packet_put16(udp, PORT);
    packet_put16(udp + 2, PORT);
    packet_put16(udp + 4, length);
    memcpy(udp + 8, data, size);
    uint32_t sum = add_up(length + IPPROTO_UDP, addresses, family == AF_INET ? 8 : 32);
    packet_put16(udp + 6, folded(add_up(sum, udp, length)));
}

static inline int
bound_socket(int family)
{
    struct sockaddr_in near4 = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    struct sockaddr_in6 near6 = {.sin6_family = AF_INET6, .sin6_port = htons(PORT)};
    int fd = udp_socket(family);
    const struct timeval limit = {.tv_sec = 2};
    CHECK(inet_pton(AF_INET, local4, &near4.sin_addr) == 1);
    CHECK(inet_pton(AF_INET6, local6, &near6.sin6_addr) == 1);
    if (family == AF_INET)
        CHECK(bind(fd, (struct sockaddr *)&near4, sizeof(near4)) == 0);
    else
        CHECK(bind(fd, (struct sockaddr *)&near6, sizeof(near6)) == 0);
    /* A ring full of packets, if we may. */
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &(int){16 << 20}, sizeof(int));
    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) == 0);
    return fd;
}

/* Sends one datagram through the ring. */
static inline void
ring_sends(WINTUN_SESSION_HANDLE session, int family, const void *data, DWORD size)
{
    BYTE *packet = WintunAllocateSendPacket(session, udp_size(family, size));
    CHECK(packet);
    build_udp(packet, family, data, size);
    WintunSendPacket(session, packet);
}

/* The next packet of the session, waiting for it. */
static inline BYTE *
next_packet(WINTUN_SESSION_HANDLE session, DWORD *size)
{
    BYTE *packet;
    while (!(packet = WintunReceivePacket(session, size)))
    {
        CHECK(GetLastError() == ERROR_NO_MORE_ITEMS);
        CHECK(readable(WintunGetReadWaitEvent(session), 2000));
    }
    return packet;
}

#endif
