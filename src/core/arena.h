/* SPDX-License-Identifier: MIT
 *
 * Memory that datagrams are received into and sealed into: chunks that count the slots they have lent and are used
 * again, the newest first, once all are back. A slot is a place in a chunk, so that a run of datagrams lies back to
 * back.
 */
#ifndef TUNRING_ARENA_H
#define TUNRING_ARENA_H

#include "platform/os.h"
#include "tunring_backend.h"

/* A chunk's size, and its alignment: the address of a slot leads to its chunk. */
#define ARENA_CHUNK (256u * 1024u)
/* The largest room that arena_room() promises. */
#define ARENA_MAX_ROOM (128u * 1024u)

typedef struct arena_chunk arena_chunk;

/* One owner's chunks. Room is taken under the owner's lock; slots may come back at any time, from any thread. */
typedef struct arena
{
    arena_chunk *current;             /* room is taken from it; NULL before the first */
    uint32_t used;                    /* bytes of it, its header included */
    arena_chunk *ready;               /* chunks that are all back, newest first; under the owner's lock */
    arena_chunk *_Atomic returned;    /* the same, pushed by the thread that returned the last slot */
    uint32_t chunks;                  /* allocated; under the owner's lock */
    uint32_t max_chunks;              /* at most this many are allocated; 0: no limit */
    atomic_bool starved;              /* arena_room() found no chunk, and came_back() was not called since */
    void (*came_back)(void *context); /* called once when a chunk is back after that; NULL: never */
    void *context;
} arena;

void arena_init(arena *arena, uint32_t max_chunks, void (*came_back)(void *), void *context);
/* Frees every chunk. No slot may be out. */
void arena_close(arena *arena);

/* Contiguous room of at least `bytes`, and *room is the size of that. NULL when no chunk is free: at the limit
 * (then `came_back` will be called once one is), or without memory (then `starved` stays unset). */
BYTE *arena_room(arena *arena, uint32_t bytes, uint32_t *room);
/* Takes the first bytes of the room that arena_room() gave last, as that many slots, which all lie within it. */
void arena_take(arena *arena, uint32_t bytes, uint32_t slots);
/* Slots are no longer used. May be called at any time. */
void arena_give_back(const tunring_slot *slots, uint32_t count);

/* Every chunk that may exist does. Under the owner's lock. */
static inline bool
arena_at_limit(const arena *arena)
{
    return arena->max_chunks && arena->chunks >= arena->max_chunks;
}

#endif
