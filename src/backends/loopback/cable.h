/* SPDX-License-Identifier: MIT
 *
 * The cable between two loopback adapters.
 *
 * Two adapters that were created with the same RequestedGUID are the two ends of one cable. It has two directions; each
 * is one counted object with one lock, and moves packets from the near end's R ring to the far end's S ring. It loses
 * nothing: when the far ring has no room, packets stay in the near one, which fills in turn. Only when nobody has a
 * session at the far end, packets are dropped, and counted by the near one.
 *
 * There is no thread: the callers of the ABI move the packets. The near Send, the far Release, and the far Receive that
 * finds nothing all run the mover.
 *
 * Order of locks: the registry of adapters, a direction, a ring side. Nobody holds two directions.
 */
#ifndef TUNRING_CABLE_H
#define TUNRING_CABLE_H

#include "backends/ring/ring.h"

/* A session as a cable sees it. */
typedef struct cable_end
{
    ring_pair rings;
    os_event event;                   /* readable if and only if a receive would not report "empty" */
    bool has_event;                   /* false once it was closed, after the end was unplugged */
    bool event_is_set, kept;          /* guarded by the incoming direction; the client keeps packets */
    _Atomic bool published;           /* R has packets that the mover was not run for yet */
    _Atomic bool reclaimed;           /* S has room that the mover has not seen yet */
    _Atomic uint64_t dropped;         /* tunring_counters.host_dropped */
    _Atomic uint64_t filtered;        /* tunring_counters.host_filtered */
    struct cable_direction *outgoing; /* near end of; both hold a reference */
    struct cable_direction *incoming; /* far end of */
} cable_end;

typedef struct cable_direction
{
    ring_lock lock;
    _Atomic uint32_t references;
    _Atomic uint32_t stalled; /* not 0: the far ring had no room, so whoever makes some must run the mover */
    /* Guarded by the lock. */
    cable_end *from; /* the session at the near end; NULL: none */
    cable_end *to;   /* at the far end */
    bool manual;     /* nothing moves by itself: a simulator is the host of both its ends */
} cable_direction;

/* NULL when out of memory. */
cable_direction *cable_direction_new(bool manual);
cable_direction *cable_direction_hold(cable_direction *direction);
void cable_direction_drop(cable_direction *direction);

/* Opens rings and event. 0; ERROR_INVALID_PARAMETER; ERROR_NOT_ENOUGH_MEMORY; ERROR_TOO_MANY_OPEN_FILES. Nothing is
 * left open on failure. */
DWORD cable_end_open(cable_end *end, DWORD capacity, cable_direction *outgoing, cable_direction *incoming);
/* Closes the event of an end that is unplugged, and that nobody waits for. Idempotent. */
void cable_end_close_event(cable_end *end);
/* Frees everything; the end is unplugged. */
void cable_end_close(cable_end *end);

/* Puts the end in, and brings what waits for it. */
void cable_plug(cable_end *end);
/* Takes it out: both its rings are gone and its event is set. Packets that it sent and that the far end has no room for
 * are dropped. Idempotent. */
void cable_unplug(cable_end *end);

/* The calls of a session, with its last error. Release, send and allocate_now never wait for a lock. */

/* Returns up to `count` packets. Fewer: there were no more, or an error will come again; 0: the last error is set. */
uint32_t cable_receive(cable_end *end, tunring_slot *slots, uint32_t count);
void cable_release(cable_end *end, const tunring_slot *slots, uint32_t count);
/* The event is set while the client keeps packets, see tunring_backend. */
void cable_report_kept(cable_end *end, bool kept);
BYTE *cable_allocate(cable_end *end, DWORD size);
BYTE *cable_allocate_now(cable_end *end, DWORD size);
void cable_send(cable_end *end, const BYTE *packet);

/* Allocates, copies and sends many, see tunring_backend. */
DWORD cable_send_many(cable_end *end, const tunring_packet *packets, DWORD count, DWORD *sent);

/* Ring bytes that can still be allocated. */
uint32_t cable_room(cable_end *end);

/* Brings the end's event up to date. The caller holds the lock of its incoming direction. */
void cable_update_event(cable_end *end);

/* Work of a direction's lock: runs the mover. */
void cable_move(void *direction);

#endif
