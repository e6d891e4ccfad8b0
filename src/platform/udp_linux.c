/* SPDX-License-Identifier: MIT
 *
 * udp.h for Linux: recvmsg() and sendmsg() with the control messages for UDP_GRO, UDP_SEGMENT, source address and ECN.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "platform/udp_address.h"

#if !defined(UDP_SEGMENT)
#define UDP_SEGMENT 103
#define UDP_GRO 104
#endif
#if !defined(SO_MEMINFO)
#define SO_MEMINFO 55
#endif

/* Room for every control message of one call, aligned as its headers want it. */
typedef union control
{
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(struct in_pktinfo)) +
               3 * CMSG_SPACE(sizeof(int))];
} control;

/* ---- Receiving ---- */

static void
read_control(const struct cmsghdr *message, udp_received *received)
{
    tunring_endpoint *from = &received->from;
    const void *data = CMSG_DATA(message);
    int number;
    if (message->cmsg_level == SOL_UDP && message->cmsg_type == UDP_GRO)
    {
        memcpy(&number, data, sizeof(number));
        if (number > 0)
            received->segment = (uint32_t)number;
    }
    else if (message->cmsg_level == IPPROTO_IP && message->cmsg_type == IP_TOS)
        received->ecn = *(const uint8_t *)data & ECN_MASK;
    else if (message->cmsg_level == IPPROTO_IPV6 && message->cmsg_type == IPV6_TCLASS)
    {
        memcpy(&number, data, sizeof(number));
        received->ecn = (uint8_t)(number & ECN_MASK);
    }
    else if (message->cmsg_level == IPPROTO_IP && message->cmsg_type == IP_PKTINFO)
    {
        struct in_pktinfo info;
        memcpy(&info, data, sizeof(info));
        map_ipv4(from->local, &info.ipi_spec_dst);
    }
    else if (message->cmsg_level == IPPROTO_IPV6 && message->cmsg_type == IPV6_PKTINFO)
        read_local_ipv6(data, from);
}

int
udp_receive(udp_handle socket, BYTE *room, uint32_t size, udp_received *received)
{
    struct iovec part = {.iov_base = room, .iov_len = size};
    udp_address address;
    control control;
    struct msghdr message = {
        .msg_name = &address,
        .msg_namelen = sizeof(address),
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof(control),
    };
    const ssize_t length = recvmsg(socket, &message, MSG_DONTWAIT);
    if (length < 0)
        return errno;
    *received = (udp_received){.length = (uint32_t)length, .truncated = (message.msg_flags & MSG_TRUNC) != 0};
    read_endpoint(&address, &received->from);
    for (struct cmsghdr *at = CMSG_FIRSTHDR(&message); at; at = CMSG_NXTHDR(&message, at))
        read_control(at, received);
    if (received->segment == 0 || received->segment > received->length)
        received->segment = received->length;
    return 0;
}

/* ---- Sending ---- */

/* Appends a control message. `control` is zeroed, as CMSG_NXTHDR wants it. */
static void
add_control(struct msghdr *message, int level, int type, const void *data, size_t size)
{
    struct cmsghdr *at = (struct cmsghdr *)((char *)message->msg_control + message->msg_controllen);
    at->cmsg_level = level;
    at->cmsg_type = type;
    at->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(at), data, size);
    message->msg_controllen += CMSG_SPACE(size);
}

static void
add_source(struct msghdr *message, const tunring_endpoint *to, bool ipv6)
{
    if (!ipv6)
    {
        const struct in_pktinfo info = {.ipi_spec_dst = unmap_ipv4(to->local)};
        add_control(message, IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
        return;
    }
    const struct in6_pktinfo info = local_ipv6(to);
    add_control(message, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof(info));
}

static void
add_ds(struct msghdr *message, const udp_run *run, bool ipv6)
{
    const int value = run->dscp << 2 | run->ecn;
    if (ipv6 && !tunring_endpoint_is_ipv4(run->to->host))
        add_control(message, IPPROTO_IPV6, IPV6_TCLASS, &value, sizeof(value));
    else
        add_control(message, IPPROTO_IP, IP_TOS, &value, sizeof(value));
}

/* One part for packets that lie back to back. Returns how many parts. */
static size_t
gather(const udp_run *run, struct iovec *parts)
{
    size_t count = 0;
    const BYTE *end = NULL;
    for (uint32_t i = 0; i < run->count; i++)
    {
        const tunring_packet packet = run->packets[i];
        if (packet.data == end && count)
            parts[count - 1].iov_len += packet.length;
        else
            parts[count++] = (struct iovec){.iov_base = (void *)(uintptr_t)packet.data, .iov_len = packet.length};
        end = packet.data + packet.length;
    }
    return count;
}

int
udp_send(udp_handle socket, bool ipv6, const udp_run *run)
{
    control control = {0};
    struct iovec parts[UDP_MAX_RUN];
    udp_address address;
    struct msghdr message = {
        .msg_name = &address,
        .msg_namelen = (socklen_t)write_receiver(run->to, ipv6, &address),
        .msg_iov = parts,
        .msg_iovlen = gather(run, parts),
        .msg_control = &control,
    };
    if (run->count > 1)
    {
        const uint16_t segment = (uint16_t)run->packets[0].length;
        add_control(&message, SOL_UDP, UDP_SEGMENT, &segment, sizeof(segment));
    }
    if (run->from_local)
        add_source(&message, run->to, ipv6);
    if (run->ecn || run->dscp)
        add_ds(&message, run, ipv6);
    if (message.msg_controllen == 0)
        message.msg_control = NULL;
    return sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? errno : 0;
}

/* ---- Errors and figures ---- */

bool
udp_would_block(int error)
{
    return error == EAGAIN || error == EWOULDBLOCK;
}

bool
udp_no_route(int error)
{
    return error == ENETUNREACH || error == EHOSTUNREACH || error == ENETDOWN || error == EPERM || error == EACCES ||
           error == ECONNREFUSED;
}

bool
udp_too_large(int error)
{
    return error == EMSGSIZE;
}

bool
udp_bad_source(int error)
{
    return error == EINVAL || error == ENETUNREACH || error == EADDRNOTAVAIL || error == ENODEV;
}

bool
udp_run_refused(int error)
{
    return error == EIO || error == EINVAL || error == EMSGSIZE;
}

bool
udp_no_offload(int error)
{
    return error == EIO;
}

bool
udp_from_peer(int error)
{
    return error == ECONNREFUSED || error == ENOPROTOOPT || error == EHOSTDOWN || error == ENONET || error == EPROTO;
}

/* The rest of the errors that icmp(7) lists can be either: ENETUNREACH, EHOSTUNREACH, EMSGSIZE, EACCES, EOPNOTSUPP. */
bool
udp_own_error(int error)
{
    switch (error)
    {
    case EAGAIN:
    case EINTR:
    case ENOMEM:
    case ENOBUFS:
    case EBADF:
    case ENOTSOCK:
    case EINVAL:
    case EFAULT:
    case EIO:
    case EPERM:
    case ENOSYS:
    case ENODEV:
    case ENETDOWN:
    case EADDRNOTAVAIL:
    case EAFNOSUPPORT:
    case EDESTADDRREQ:
    case ENOTCONN:
    case EPIPE:
    case ECONNABORTED: /* the administrator ended the socket */
        return true;
    default:
        return false;
    }
}

/* The value of an option of the socket level, or 0. */
static int
read_option(udp_handle socket, int name)
{
    int value = 0;
    socklen_t size = sizeof(value);
    return getsockopt(socket, SOL_SOCKET, name, &value, &size) == 0 ? value : 0;
}

int
udp_take_error(udp_handle socket)
{
    return read_option(socket, SO_ERROR);
}

bool
udp_drops(udp_handle socket, uint64_t *dropped)
{
    uint32_t figures[SK_MEMINFO_VARS];
    socklen_t size = sizeof(figures);
    if (getsockopt(socket, SOL_SOCKET, SO_MEMINFO, figures, &size) < 0 || size <= SK_MEMINFO_DROPS * sizeof(uint32_t))
        return false;
    *dropped = figures[SK_MEMINFO_DROPS];
    return true;
}

uint32_t
udp_mark(udp_handle socket)
{
    return (uint32_t)read_option(socket, SO_MARK);
}

int
udp_set_mark(udp_handle socket, uint32_t mark)
{
    /* The one that it has takes no privilege. */
    if (udp_mark(socket) == mark)
        return 0;
    return setsockopt(socket, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) == 0 ? 0 : errno;
}

void
udp_own_address(udp_handle socket, tunring_endpoint *own)
{
    udp_address address;
    socklen_t size = sizeof(address);
    if (getsockname(socket, &address.generic, &size) == 0)
        read_endpoint(&address, own);
}

DWORD
udp_error_code(int error)
{
    return os_error_from_errno(error);
}

udp_handle
udp_adopt(uintptr_t handle)
{
    const int copy = OS_FD(fcntl((int)handle, F_DUPFD_CLOEXEC, 3));
    if (copy < 0)
        SetLastError(os_error_from_errno(errno));
    return copy;
}

void
udp_close(udp_handle socket)
{
    os_fd_close(socket);
}

void
udp_set_option(udp_handle socket, int level, int name, int value)
{
    (void)setsockopt(socket, level, name, &value, sizeof(value));
}

/* ---- Readiness ---- */

/* An event that is set for good and never closed, one for the process: with the generation that it was made in, and 0
 * if there is none. */
static _Atomic uint64_t ready_for_ever;

/* Its descriptor, or -1 with the last error. */
static int
ever_ready(void)
{
    const uint64_t generation = (uint64_t)os_generation() << 32;
    uint64_t made = atomic_load(&ready_for_ever);
    if (made && (made & ~(uint64_t)UINT32_MAX) == generation)
        return (int)(uint32_t)made;
    os_event event;
    if (!os_event_open(&event))
        return -1;
    os_event_set(&event);
    const int fd = (int)(intptr_t)event.wait;
    if (atomic_compare_exchange_strong(&ready_for_ever, &made, generation | (uint32_t)fd))
        return fd;
    /* Another thread was faster. */
    os_event_close(&event);
    return (int)(uint32_t)made;
}

/* An epoll descriptor that is ready when the descriptor is. */
static int
open_epoll(int watched, uint32_t wanted)
{
    struct epoll_event event = {.events = wanted};
    const int epoll = OS_FD(epoll_create1(EPOLL_CLOEXEC));
    if (epoll >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, watched, &event) == 0)
        return epoll;
    SetLastError(os_error_from_errno(errno));
    os_fd_close(epoll);
    return -1;
}

bool
udp_events_open(udp_events *events, udp_handle socket)
{
    struct epoll_event event = {.events = EPOLLIN};
    if (ever_ready() < 0 || !os_event_open(&events->signal))
        return false;
    const int readable = open_epoll((int)(intptr_t)events->signal.wait, EPOLLIN);
    if (readable < 0)
        goto close_signal;
    if (epoll_ctl(readable, EPOLL_CTL_ADD, socket, &event) < 0)
    {
        SetLastError(os_error_from_errno(errno));
        goto close_readable;
    }
    const int writable = open_epoll(socket, EPOLLOUT);
    if (writable < 0)
        goto close_readable;
    events->readable = (HANDLE)(intptr_t)readable;
    events->writable = (HANDLE)(intptr_t)writable;
    return true;

close_readable:
    os_fd_close(readable);
close_signal:
    os_event_close(&events->signal);
    return false;
}

void
udp_events_close(udp_events *events)
{
    struct epoll_event event = {.events = EPOLLIN};
    /* A thread of the user's that waits for the descriptor keeps what it stands for, and nothing else would end its
     * wait: a descriptor that is closed is watched no longer. */
    (void)epoll_ctl((int)(intptr_t)events->readable, EPOLL_CTL_ADD, ever_ready(), &event);
    os_fd_close((int)(intptr_t)events->writable);
    os_fd_close((int)(intptr_t)events->readable);
    os_event_close(&events->signal);
}

void
udp_events_signal(udp_events *events, bool on)
{
    if (on)
        os_event_set(&events->signal);
    else
        os_event_clear(&events->signal);
}

void
udp_events_watch(udp_events *events, udp_handle socket, bool datagrams)
{
    struct epoll_event event = {.events = datagrams ? EPOLLIN : 0};
    (void)epoll_ctl((int)(intptr_t)events->readable, EPOLL_CTL_MOD, socket, &event);
}
