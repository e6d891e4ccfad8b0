/* SPDX-License-Identifier: MIT
 *
 * udp.h for Windows: WSARecvMsg() and WSASendMsg() with the control messages for URO, USO, source address and ECN.
 */
#include <winsock2.h>
#include <ws2tcpip.h>

#include <mswsock.h>

#include "platform/udp_address.h"

/* Newer than some headers. */
#if !defined(UDP_SEND_MSG_SIZE)
#define UDP_SEND_MSG_SIZE 2
#define UDP_COALESCED_INFO 3
#endif
#if !defined(IP_ECN)
#define IP_ECN 50
#endif
#if !defined(SIO_UDP_CONNRESET)
#define SIO_UDP_CONNRESET _WSAIOW(IOC_VENDOR, 12)
#endif
#if !defined(SIO_UDP_NETRESET)
#define SIO_UDP_NETRESET _WSAIOW(IOC_VENDOR, 15)
#endif
#if !defined(IPV6_ECN)
#define IPV6_ECN 50
#endif

/* Room for every control message of one call, aligned as its headers want it. */
typedef union control
{
    WSACMSGHDR header;
    char bytes[WSA_CMSG_SPACE(sizeof(struct in6_pktinfo)) + WSA_CMSG_SPACE(sizeof(struct in_pktinfo)) +
               3 * WSA_CMSG_SPACE(sizeof(DWORD))];
} control;

/* An extension function of the socket's provider, or NULL. */
static void *
extension(udp_handle socket, const GUID *id)
{
    GUID wanted = *id;
    void *function = NULL;
    DWORD size;
    if (WSAIoctl(socket, SIO_GET_EXTENSION_FUNCTION_POINTER, &wanted, sizeof(wanted), &function, sizeof(function),
                 &size, NULL, NULL) != 0)
        return NULL;
    return function;
}

static LPFN_WSARECVMSG
find_receive(udp_handle socket)
{
    static const GUID id = WSAID_WSARECVMSG;
    static _Atomic(LPFN_WSARECVMSG) known;
    LPFN_WSARECVMSG function = atomic_load_explicit(&known, memory_order_relaxed);
    if (!function)
    {
        void *found = extension(socket, &id);
        memcpy(&function, &found, sizeof(function));
        atomic_store_explicit(&known, function, memory_order_relaxed);
    }
    return function;
}

static LPFN_WSASENDMSG
find_send(udp_handle socket)
{
    static const GUID id = WSAID_WSASENDMSG;
    static _Atomic(LPFN_WSASENDMSG) known;
    LPFN_WSASENDMSG function = atomic_load_explicit(&known, memory_order_relaxed);
    if (!function)
    {
        void *found = extension(socket, &id);
        memcpy(&function, &found, sizeof(function));
        atomic_store_explicit(&known, function, memory_order_relaxed);
    }
    return function;
}

/* ---- Receiving ---- */

static void
read_control(WSACMSGHDR *message, udp_received *received)
{
    tunring_endpoint *from = &received->from;
    const void *data = WSA_CMSG_DATA(message);
    DWORD number;
    if (message->cmsg_level == IPPROTO_UDP && message->cmsg_type == UDP_COALESCED_INFO)
    {
        memcpy(&number, data, sizeof(number));
        received->segment = number;
    }
    else if ((message->cmsg_level == IPPROTO_IP && message->cmsg_type == IP_ECN) ||
             (message->cmsg_level == IPPROTO_IPV6 && message->cmsg_type == IPV6_ECN))
    {
        memcpy(&number, data, sizeof(number));
        received->ecn = (uint8_t)(number & ECN_MASK);
    }
    else if (message->cmsg_level == IPPROTO_IP && message->cmsg_type == IP_PKTINFO)
    {
        struct in_pktinfo info;
        memcpy(&info, data, sizeof(info));
        map_ipv4(from->local, &info.ipi_addr);
    }
    else if (message->cmsg_level == IPPROTO_IPV6 && message->cmsg_type == IPV6_PKTINFO)
        read_local_ipv6(data, from);
}

int
udp_receive(udp_handle socket, BYTE *room, uint32_t size, udp_received *received)
{
    WSABUF part = {.len = size, .buf = (char *)room};
    udp_address address;
    control control;
    WSAMSG message = {
        .name = &address.generic,
        .namelen = sizeof(address),
        .lpBuffers = &part,
        .dwBufferCount = 1,
        .Control = {.len = sizeof(control), .buf = control.bytes},
    };
    const LPFN_WSARECVMSG receive = find_receive(socket);
    if (!receive)
        return WSAEOPNOTSUPP;
    DWORD length = 0;
    const int error = receive(socket, &message, &length, NULL, NULL) == 0 ? 0 : WSAGetLastError();
    if (error && error != WSAEMSGSIZE)
        return error;
    *received = (udp_received){.length = length, .truncated = error != 0};
    read_endpoint(&address, &received->from);
    for (WSACMSGHDR *at = WSA_CMSG_FIRSTHDR(&message); at; at = WSA_CMSG_NXTHDR(&message, at))
        read_control(at, received);
    if (received->segment == 0 || received->segment > received->length)
        received->segment = received->length;
    return 0;
}

/* ---- Sending ---- */

static void
add_control(WSAMSG *message, int level, int type, const void *data, size_t size)
{
    WSACMSGHDR *at = (WSACMSGHDR *)(void *)(message->Control.buf + message->Control.len);
    at->cmsg_level = level;
    at->cmsg_type = type;
    at->cmsg_len = WSA_CMSG_LEN(size);
    memcpy(WSA_CMSG_DATA(at), data, size);
    message->Control.len += (ULONG)WSA_CMSG_SPACE(size);
}

static void
add_source(WSAMSG *message, const tunring_endpoint *to)
{
    if (tunring_endpoint_is_ipv4(to->host))
    {
        const struct in_pktinfo info = {.ipi_addr = unmap_ipv4(to->local)};
        add_control(message, IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
        return;
    }
    const struct in6_pktinfo info = local_ipv6(to);
    add_control(message, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof(info));
}

/* One part for packets that lie back to back. Returns how many parts. */
static DWORD
gather(const udp_run *run, WSABUF *parts)
{
    DWORD count = 0;
    const BYTE *end = NULL;
    for (uint32_t i = 0; i < run->count; i++)
    {
        const tunring_packet packet = run->packets[i];
        if (packet.data == end && count)
            parts[count - 1].len += packet.length;
        else
            parts[count++] = (WSABUF){.len = packet.length, .buf = (char *)(uintptr_t)packet.data};
        end = packet.data + packet.length;
    }
    return count;
}

int
udp_send(udp_handle socket, bool ipv6, const udp_run *run)
{
    control control = {0};
    WSABUF parts[UDP_MAX_RUN];
    udp_address address;
    WSAMSG message = {
        .name = &address.generic,
        .namelen = write_receiver(run->to, ipv6, &address),
        .lpBuffers = parts,
        .dwBufferCount = gather(run, parts),
        .Control = {.len = 0, .buf = control.bytes},
    };
    const bool ipv4 = tunring_endpoint_is_ipv4(run->to->host);
    if (run->count > 1)
    {
        const DWORD segment = run->packets[0].length;
        add_control(&message, IPPROTO_UDP, UDP_SEND_MSG_SIZE, &segment, sizeof(segment));
    }
    if (run->from_local)
        add_source(&message, run->to);
    if (run->ecn)
    {
        const INT ecn = run->ecn;
        add_control(&message, ipv4 ? IPPROTO_IP : IPPROTO_IPV6, ipv4 ? IP_ECN : IPV6_ECN, &ecn, sizeof(ecn));
    }
    if (message.Control.len == 0)
        message.Control.buf = NULL;
    const LPFN_WSASENDMSG send = find_send(socket);
    if (!send)
        return WSAEOPNOTSUPP;
    DWORD sent;
    return send(socket, &message, 0, &sent, NULL, NULL) == 0 ? 0 : WSAGetLastError();
}

/* ---- Errors and figures ---- */

bool
udp_would_block(int error)
{
    return error == WSAEWOULDBLOCK;
}

bool
udp_no_route(int error)
{
    return error == WSAENETUNREACH || error == WSAEHOSTUNREACH || error == WSAENETDOWN || error == WSAEACCES ||
           error == WSAECONNREFUSED || error == WSAECONNRESET;
}

bool
udp_too_large(int error)
{
    return error == WSAEMSGSIZE;
}

bool
udp_bad_source(int error)
{
    return error == WSAEINVAL || error == WSAENETUNREACH || error == WSAEADDRNOTAVAIL;
}

bool
udp_run_refused(int error)
{
    return error == WSAEINVAL || error == WSAEMSGSIZE || error == WSAEOPNOTSUPP;
}

bool
udp_no_offload(int error)
{
    return error == WSAEOPNOTSUPP;
}

bool
udp_from_peer(int error)
{
    return error == WSAECONNRESET || error == WSAENETRESET || error == WSAECONNREFUSED;
}

bool
udp_own_error(int error)
{
    switch (error)
    {
    case WSAEWOULDBLOCK:
    case WSAEINTR:
    case WSA_NOT_ENOUGH_MEMORY:
    case WSAENOBUFS:
    case WSAEBADF:
    case WSAENOTSOCK:
    case WSAEINVAL:
    case WSAEFAULT:
    case WSAEACCES:
    case WSAENETDOWN:
    case WSAEADDRNOTAVAIL:
    case WSAEAFNOSUPPORT:
    case WSAEDESTADDRREQ:
    case WSAEOPNOTSUPP:
    case WSAENOTCONN:
    case WSAESHUTDOWN:
    case WSAECONNABORTED:
    case WSANOTINITIALISED:
    case WSA_OPERATION_ABORTED:
        return true;
    default:
        return false;
    }
}

/* Windows' calls report such an error; neither the option nor the event does. */
int
udp_take_error(udp_handle socket)
{
    (void)socket;
    return 0;
}

DWORD
udp_error_code(int error)
{
    return error == WSAENOBUFS ? ERROR_NOT_ENOUGH_MEMORY : ERROR_GEN_FAILURE;
}

void
udp_own_address(udp_handle socket, tunring_endpoint *own)
{
    udp_address address;
    int size = sizeof(address);
    if (getsockname(socket, &address.generic, &size) == 0)
        read_endpoint(&address, own);
}

bool
udp_drops(udp_handle socket, uint64_t *dropped)
{
    (void)socket;
    (void)dropped;
    return false;
}

uint32_t
udp_mark(udp_handle socket)
{
    (void)socket;
    return 0;
}

int
udp_set_mark(udp_handle socket, uint32_t mark)
{
    (void)socket;
    return mark ? WSAEOPNOTSUPP : 0;
}

/* ---- Life ---- */

/* Otherwise the next receive would fail when an ICMP error comes back from some peer. */
static void
ignore_peers_errors(udp_handle socket)
{
    BOOL off = FALSE;
    DWORD size;
    (void)WSAIoctl(socket, SIO_UDP_CONNRESET, &off, sizeof(off), NULL, 0, &size, NULL, NULL);
    (void)WSAIoctl(socket, SIO_UDP_NETRESET, &off, sizeof(off), NULL, 0, &size, NULL, NULL);
}

udp_handle
udp_adopt(uintptr_t handle)
{
    udp_handle copy = UDP_NONE;
    WSAPROTOCOL_INFOW info;
    if (WSADuplicateSocketW(handle, GetCurrentProcessId(), &info) == 0)
        copy = WSASocketW(FROM_PROTOCOL_INFO, FROM_PROTOCOL_INFO, FROM_PROTOCOL_INFO, &info, 0, WSA_FLAG_OVERLAPPED);
    u_long on = 1;
    if (copy == UDP_NONE)
        SetLastError(udp_error_code(WSAGetLastError()));
    else
    {
        (void)ioctlsocket(copy, FIONBIO, &on);
        ignore_peers_errors(copy);
    }
    return copy;
}

void
udp_close(udp_handle socket)
{
    closesocket(socket);
}

void
udp_set_option(udp_handle socket, int level, int name, int value)
{
    (void)setsockopt(socket, level, name, (const char *)&value, sizeof(value));
}

/* ---- Readiness ---- */

/* A socket has room for one event, which receivers need, and its duplicates share that. So a wait for room looks again
 * this often. */
#define ROOM_MILLISECONDS 1

bool
udp_events_open(udp_events *events, udp_handle socket)
{
    const HANDLE readable = CreateEventW(NULL, FALSE, FALSE, NULL);
    const HANDLE writable = CreateWaitableTimerW(NULL, FALSE, NULL);
    const LARGE_INTEGER now = {.QuadPart = 0};
    if (readable && writable && SetWaitableTimer(writable, &now, ROOM_MILLISECONDS, NULL, NULL, FALSE) &&
        WSAEventSelect(socket, readable, FD_READ) == 0)
    {
        *events = (udp_events){.readable = readable, .writable = writable, .auto_reset = true};
        return true;
    }
    SetLastError(ERROR_NOT_ENOUGH_MEMORY);
    if (readable)
        CloseHandle(readable);
    if (writable)
        CloseHandle(writable);
    return false;
}

void
udp_events_close(udp_events *events)
{
    CloseHandle(events->writable);
    CloseHandle(events->readable);
}

void
udp_events_signal(udp_events *events, bool on)
{
    if (on)
        SetEvent(events->readable);
}

void
udp_events_watch(udp_events *events, udp_handle socket, bool datagrams)
{
    /* Switched on again, it reports what has come in the meantime. */
    (void)WSAEventSelect(socket, datagrams ? events->readable : NULL, datagrams ? FD_READ : 0);
}
