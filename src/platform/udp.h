/* SPDX-License-Identifier: MIT
 *
 * One datagram, or a run of them, by one system call: udp_linux.c, udp_windows.c.
 */
#ifndef TUNRING_UDP_H
#define TUNRING_UDP_H

#include "platform/os.h"
#include "tunring_endpoint.h"
#include "tunring_packet.h"

#include <stdbool.h>
#include <stdint.h>

#if defined(_WIN32)
typedef uintptr_t udp_handle;
#else
typedef int udp_handle;
#endif
#define UDP_NONE ((udp_handle) - 1)

/* Payload of the largest datagram, over IPv4; and of all datagrams of a run together. */
#define UDP_MAX_PAYLOAD 65507u
/* Datagrams of a run. Linux before 6.9 takes no more. */
#define UDP_MAX_RUN 64u

/* A read: a datagram or, coalesced by the system, several from one sender. */
typedef struct udp_received
{
    uint32_t length;  /* bytes of all datagrams */
    uint32_t segment; /* bytes of each but the last, which may be shorter; `length` for a single one */
    bool truncated;   /* the datagram was longer than the room */
    uint8_t ecn;      /* 0 to 3 */
    tunring_endpoint from;
} udp_received;

/* Reads without waiting, into at least 64 KiB. 0, or the system's error. */
int udp_receive(udp_handle socket, BYTE *room, uint32_t size, udp_received *received);

/* Datagrams of equal length, the last of which may be shorter, to one endpoint. */
typedef struct udp_run
{
    const tunring_packet *packets;
    uint32_t count;
    const tunring_endpoint *to;
    uint8_t ecn;     /* 0 to 3 */
    uint8_t dscp;    /* 0 to 63; not on Windows */
    bool from_local; /* leave from `to`'s local address */
} udp_run;

/* Sends without waiting, by one system call; several datagrams leave by segmentation offload. All of the run or none:
 * 0, or the system's error. */
int udp_send(udp_handle socket, bool ipv6, const udp_run *run);

/* The meaning of an error; each takes the system's number. */
bool udp_would_block(int error);
bool udp_no_route(int error);    /* unreachable, or a firewall refused it */
bool udp_too_large(int error);   /* one datagram exceeds the path's MTU */
bool udp_bad_source(int error);  /* the source address or its interface may be gone */
bool udp_run_refused(int error); /* the run as a whole may be the trouble, not its datagrams */
bool udp_no_offload(int error);  /* the device cannot complete checksums, so no run will ever leave by it */
bool udp_from_peer(int error);   /* an ICMP error that an earlier datagram caused, whatever the call was */
bool udp_own_error(int error);   /* of this call, the socket or the system: no ICMP error is reported like this */
/* The nearest Win32 code. */
DWORD udp_error_code(int error);

/* The ICMP error that waits for the next call, which then will not fail with it; 0: none. */
int udp_take_error(udp_handle socket);

/* Datagrams that the system dropped since the socket was made, as its receive buffer was full. False where the system
 * does not report it. */
bool udp_drops(udp_handle socket, uint64_t *dropped);

/* A copy of the caller's handle, which a forked child closes. UDP_NONE with the last error. */
udp_handle udp_adopt(uintptr_t handle);
void udp_close(udp_handle socket);

/* Sets an option whose value is an int. A refusal is ignored: the value is one that it had. */
void udp_set_option(udp_handle socket, int level, int name, int value);

/* The mark of the datagrams sent from now on, 0 for none. 0, or the system's error. Only Linux has marks. */
int udp_set_mark(udp_handle socket, uint32_t mark);
uint32_t udp_mark(udp_handle socket);

/* The address it is bound to, as `host` and `port`. It is left alone if the system does not report one. */
void udp_own_address(udp_handle socket, tunring_endpoint *own);

/* ---- Readiness ---- */

/* `readable` is ready while it is signalled or, if datagrams are watched for, while the system has any; `writable`
 * while the system has room for one. */
typedef struct udp_events
{
    HANDLE readable;
    HANDLE writable;
    os_event signal;
    bool auto_reset; /* `readable` is Windows' auto-reset event: see wait_rearm() */
} udp_events;

/* Watches for datagrams. False with the last error. */
bool udp_events_open(udp_events *events, udp_handle socket);
void udp_events_close(udp_events *events);
/* One thread at a time. An auto-reset event can be set for something, but not reset when there is nothing any more. */
void udp_events_signal(udp_events *events, bool on);
/* May be called at any time, from any thread. */
void udp_events_watch(udp_events *events, udp_handle socket, bool datagrams);

#endif
