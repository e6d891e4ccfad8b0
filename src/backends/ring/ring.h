/* SPDX-License-Identifier: MIT
 *
 * The Wintun ring: layout and both halves. The client half is what a program calls through the ABI; the host half is
 * what the driver does. Memory order and error codes follow the measured behaviour of the official DLL 0.14.1, except
 * that a sender publishes with a sequentially consistent exchange, so that no wake-up is missed, and that sizes are
 * checked.
 *
 * A session has two rings: S carries packets from the host to the client ("receive"), R from the client to the host
 * ("send"). A packet is a 32-bit size and its bytes, rounded up to 4; it is never split, but may run past `capacity`
 * into the spill space. Offsets are multiples of 4 below the capacity. One unit of 4 bytes stays free, so that a full
 * ring differs from an empty one.
 */
#ifndef TUNRING_RING_H
#define TUNRING_RING_H

#include "platform/os.h"
#include "tunring_backend.h"

#define RING_ALIGNMENT 4u
#define RING_SPILL 0x10000u
/* Set in a packet's size word while its slot is being filled (R) or when it was released (S). */
#define RING_FLAG 0x80000000u
/* Set in the size word of a packet that is smaller than its slot (R), see ring_shorten(). The 14 bits below it are then
 * the number of unused units of 4 bytes, and the other 16 the packet's size. The driver knows no such words. */
#define RING_SHORTER 0x40000000u
#define RING_UNUSED_SHIFT 16
#define RING_UNUSED_MASK 0x3FFFu
#define RING_SIZE_MASK 0xFFFFu
/* The value of an index whose side is gone. */
#define RING_GONE 0xFFFFFFFFu

/* As the driver sees it. `data` is `capacity` bytes and the spill. */
typedef struct ring
{
    _Atomic uint32_t head;     /* offset of the oldest byte in use; its consumer writes it */
    _Atomic uint32_t tail;     /* offset of the first free byte; its producer writes it */
    _Atomic int32_t alertable; /* R only: not 0 while the host sleeps and wants its event set */
    uint8_t data[];
} ring;

/* A lock whose work may also be asked for by somebody who must not wait: see ring_lock_combine(). */
typedef struct ring_lock
{
    os_mutex mutex;
    _Atomic uint32_t pending; /* not 0: work was asked for and not done yet */
} ring_lock;

void ring_lock_init(ring_lock *lock);
void ring_lock_destroy(ring_lock *lock);
/* Waits for the lock. Only ever from a call that may wait. */
void ring_lock_enter(ring_lock *lock);
/* False if somebody has it. Never waits. */
bool ring_lock_try(ring_lock *lock);
/* Lets go, and does the work that was asked for meanwhile: work(context) runs under the lock. */
void ring_lock_leave(ring_lock *lock, void (*work)(void *), void *context);
/* Asks for work(context) to be done under the lock, now if the lock is free, else by whoever holds it. Never waits. */
void ring_lock_combine(ring_lock *lock, void (*work)(void *), void *context);

/* One direction as the client holds it. Fields below `lock` are guarded by it unless atomic. */
typedef struct ring_side
{
    ring *ring;
    uint32_t capacity;
    ring_lock lock;
    _Atomic uint32_t next; /* S: offset of the next packet to receive; R: of the next allocation */
    uint32_t oldest;       /* S: offset of the oldest packet held; R: of the oldest allocation not sent */
    uint32_t outstanding;  /* S: packets received and not reclaimed; R: allocations not published */
} ring_side;

/* Both rings in one region, S first and R directly after it. */
typedef struct ring_pair
{
    void *pages;
    size_t size;
    ring_side receive;
    ring_side send;
} ring_pair;

/* ERROR_SUCCESS, ERROR_INVALID_PARAMETER for a bad capacity, or ERROR_NOT_ENOUGH_MEMORY. */
DWORD ring_pair_open(ring_pair *pair, DWORD capacity);
void ring_pair_close(ring_pair *pair);
bool ring_capacity_valid(DWORD capacity);

WINTUN_ASSERT(sizeof(ring) == 12, "the bytes follow three words");

/* Ring bytes that a packet of `size` bytes takes. */
static inline uint32_t
ring_slot_size(uint32_t size)
{
    return (size + (uint32_t)sizeof(uint32_t) + (RING_ALIGNMENT - 1)) & ~(RING_ALIGNMENT - 1);
}

/* The same by a size word without RING_FLAG. */
static inline uint32_t
ring_word_slot_size(uint32_t word)
{
    if (word <= WINTUN_MAX_IP_PACKET_SIZE)
        return ring_slot_size(word);
    const uint32_t unused = (word >> RING_UNUSED_SHIFT) & RING_UNUSED_MASK;
    return ring_slot_size(word & RING_SIZE_MASK) + unused * RING_ALIGNMENT;
}

/* The size word of a packet. */
static inline _Atomic uint32_t *
ring_size_word(const BYTE *packet)
{
    return (_Atomic uint32_t *)(uintptr_t)(packet - sizeof(uint32_t));
}

/* Client half. The caller holds the side's lock, but for the two marks and ring_shorten(), which take none. */

/* The next packet, or NULL with the last error: ERROR_HANDLE_EOF, ERROR_NO_MORE_ITEMS, ERROR_INVALID_DATA. */
BYTE *ring_receive(ring_side *side, DWORD *size);
/* Up to `count` of them; returns the number. The last error is set if there were fewer. */
uint32_t ring_receive_many(ring_side *side, tunring_slot *slots, uint32_t count);
void ring_mark_released(const BYTE *packet);
/* Moves the head over the leading run of released slots. True if it moved. */
bool ring_reclaim(ring_side *side);
/* Room for a packet, or NULL with the last error: ERROR_INVALID_PARAMETER, ERROR_HANDLE_EOF, ERROR_BUFFER_OVERFLOW. */
BYTE *ring_allocate(ring_side *side, DWORD size);
/* The packet takes only the first bytes of its slot, which is not ready yet: the host gets `size` bytes, and room comes
 * back for the whole slot. Only the slot's owner may call it. */
void ring_shorten(const BYTE *packet, uint32_t size);
void ring_mark_ready(const BYTE *packet);
/* Publishes the leading run of slots that are ready. */
typedef enum ring_published
{
    RING_NOTHING, /* an older allocation is still open */
    RING_MORE,    /* the tail moved */
    RING_WAKE     /* the tail moved, and the host sleeps: set its event */
} ring_published;
ring_published ring_publish(ring_side *side);
/* Bytes that ring_allocate can still give. RING_GONE when the ring is gone. */
uint32_t ring_room(ring_side *side);
/* True if `next` differs from the tail, or the ring is gone or corrupt: a receive would not report "empty". Needs no
 * lock, but is exact only while no host publishes or rewinds. */
bool ring_readable(ring_side *side);

/* Host half, producer of S. The caller serialises producers. */

/* A contiguous place for a packet of up to `size` bytes at `at`, an offset that starts as ring_host_tail() and that
 * ring_host_fill moves on; NULL when room lacks or the ring is gone. Nothing is visible before ring_host_show(), which
 * also takes back places that were not filled. */
uint32_t ring_host_tail(const ring_side *side);
BYTE *ring_host_place(const ring_side *side, uint32_t at, uint32_t size);
/* Bytes that can be filled from the tail on: what a place and those after it may take together. */
uint32_t ring_host_room(const ring_side *side);
uint32_t ring_host_fill(const ring_side *side, uint32_t at, uint32_t size);
void ring_host_show(ring_side *side, uint32_t at);
/* All packets or none: false when room lacks. Sizes over 65535 are skipped; NULL stands for bytes that can't be read,
 * which come as zeros. The caller then sets the event. */
bool ring_host_put_chain(ring_side *side, const tunring_packet *chain, uint32_t count);
/* When nothing is in the ring, neither unread nor held (S), neither allocated nor waiting for the host (R): both
 * indices go back to 0, for a hot arena. Of either side; needs its lock, and the host half to be idle. */
void ring_host_rewind(ring_side *side);

/* Host half, consumer of R. The caller serialises consumers. */

/* Walks the packets without taking them: the one at `*at`, an offset that starts as ring_host_head() and moves on. 0;
 * ERROR_NO_MORE_ITEMS behind the last one; ERROR_HANDLE_EOF when the ring is gone; ERROR_INVALID_DATA when it is
 * corrupt: its head is then RING_GONE. */
uint32_t ring_host_head(const ring_side *side);
DWORD ring_host_next(ring_side *side, uint32_t *at, const BYTE **packet, uint32_t *size);
/* The oldest packet, likewise. */
DWORD ring_host_peek(ring_side *side, const BYTE **packet, uint32_t *size);
/* Takes the packet that peek gave, with its whole slot. */
void ring_host_take(ring_side *side, uint32_t size);
/* The same by the offset that ring_host_next() moved on to from the head. */
void ring_host_take_to(ring_side *side, uint32_t size, uint32_t at);

/* The index that the client reads becomes RING_GONE: every later call returns ERROR_HANDLE_EOF. The caller is the host
 * of that side. */
void ring_host_end_receive(ring_side *side);
void ring_host_end_send(ring_side *side);

#endif
