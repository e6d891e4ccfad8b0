/* SPDX-License-Identifier: MIT
 *
 * The driver's work on a session's rings, which are the DLL's memory.
 *
 * A device has two directions, one out of its R ring and one into its S ring. By itself a device is on no network: a
 * thread takes what it sends, by the driver's own protocol of sleeping, and drops it. Two connected devices share their
 * directions: what one sends is in the other's ring before WintunSendPacket returns, unless there is no room. A
 * simulated device does only what the simulator's calls ask.
 */
#ifndef STANDIN_DRIVER_H
#define STANDIN_DRIVER_H

#include "backends/ring/ring.h"

#define IOCTL_REGISTER_RINGS 0xCA6CE5C0u

/* The contents of the IOCTL: S, then R. */
typedef struct registered_ring
{
    DWORD size;
    ring *ring;
    HANDLE event;
} registered_ring;

typedef struct registered_rings
{
    registered_ring receive;
    registered_ring send;
} registered_rings;

/* Counts of a device's host half since its session started. */
typedef struct standin_counters
{
    uint64_t taken;            /* packets that passed the filter */
    uint64_t filtered;         /* packets that did not */
    uint64_t dropped;          /* packets lost for want of room, or of a session at the far end */
    uint64_t sleeps;           /* times that the driver's thread fell asleep */
    uint64_t missed_wakes;     /* times that it slept on beside a packet for more than a millisecond */
    uint64_t longest_stranded; /* microseconds that such a packet lay there, at most */
} standin_counters;

typedef enum service
{
    SERVED_BY_DRIVER,   /* the driver's thread takes packets, which go nowhere */
    SERVED_BY_CABLE,    /* they go into the other device's ring */
    SERVED_BY_SIMULATOR /* nothing moves by itself */
} service;

typedef struct direction
{
    os_mutex lock;
    /* Guarded by it. */
    service service;
    struct registration *from; /* the session whose R ring this empties; NULL: none */
    struct registration *to;   /* the session whose S ring this fills */
} direction;

/* A session as the driver knows it. */
typedef struct registration
{
    ring_side receive; /* S; the client's fields of both are not used */
    ring_side send;    /* R */
    HANDLE owner;      /* the device handle that registered */
    HANDLE receive_event;
    HANDLE send_event;
    HANDLE disconnected; /* manual-reset */
    HANDLE stalled;      /* manual-reset: the far ring had no room, so its thread has to look again */
    HANDLE thread;       /* NULL: a simulator's */
    direction *outgoing;
    direction *incoming;
    standin_counters *counters; /* the device's; guarded by `outgoing`, but `dropped` of a chain by `incoming` */
} registration;

/* Directions are never freed: somebody may be on the way into one. NULL when out of memory. */
direction *direction_new(service service);
void direction_enter(direction *direction);
void direction_leave(direction *direction);

/* Checks the rings as the driver does, and starts to serve them. 0 or a Win32 error code. */
DWORD driver_register(const registered_rings *rings, HANDLE owner, direction *outgoing, direction *incoming,
                      standin_counters *counters, registration **result);
/* Both rings are gone afterwards, the client's event is set, and nothing of the client is touched any more. */
void driver_unregister(registration *session);
void driver_free(registration *session);

/* Moves what lies in the near ring. The caller holds the direction. */
void driver_move(direction *direction);
/* Brings a chain to the session at the far end; false when room lacks. The caller holds the direction. */
bool driver_inject(direction *direction, const tunring_packet *chain, DWORD count);

#endif
