/* SPDX-License-Identifier: MIT
 *
 * Chunks of an arena. The current chunk counts one slot more than it has lent, so that it is not given back while room
 * is still being taken from it.
 */
#include "core/arena.h"

struct arena_chunk
{
    arena *owner;
    arena_chunk *next;     /* in a list of chunks that are all back */
    _Atomic uint32_t lent; /* slots that are out, and one for the current chunk */
};

/* Where a chunk's room begins: on a cache line of its own. */
#define FIRST 64u

static arena_chunk *
chunk_of(const BYTE *data)
{
    return (arena_chunk *)((uintptr_t)data & ~(uintptr_t)(ARENA_CHUNK - 1));
}

void
arena_init(arena *arena, uint32_t max_chunks, void (*came_back)(void *), void *context)
{
    arena->current = NULL;
    arena->used = ARENA_CHUNK;
    arena->ready = NULL;
    atomic_init(&arena->returned, NULL);
    arena->chunks = 0;
    arena->max_chunks = max_chunks;
    atomic_init(&arena->starved, false);
    arena->came_back = came_back;
    arena->context = context;
}

static void
free_list(arena_chunk *chunk)
{
    while (chunk)
    {
        arena_chunk *next = chunk->next;
        os_aligned_free(chunk);
        chunk = next;
    }
}

void
arena_close(arena *arena)
{
    if (arena->current)
        os_aligned_free(arena->current);
    free_list(arena->ready);
    free_list(atomic_exchange(&arena->returned, NULL));
    arena_init(arena, arena->max_chunks, arena->came_back, arena->context);
}

/* Slots of a chunk are back. The last of them brings the chunk back. */
static void
count_back(arena_chunk *chunk, uint32_t slots)
{
    arena *arena = chunk->owner;
    if (atomic_fetch_sub(&chunk->lent, slots) != slots)
        return;
    arena_chunk *first = atomic_load(&arena->returned);
    do
        chunk->next = first;
    while (!atomic_compare_exchange_weak(&arena->returned, &first, chunk));
    /* arena_room() sets `starved` first and looks at `returned` second. */
    if (atomic_load(&arena->starved) && atomic_exchange(&arena->starved, false) && arena->came_back)
        arena->came_back(arena->context);
}

void
arena_give_back(const tunring_slot *slots, uint32_t count)
{
    while (count)
    {
        arena_chunk *chunk = chunk_of(slots->data);
        uint32_t same = 1;
        while (same < count && chunk_of(slots[same].data) == chunk)
            same++;
        count_back(chunk, same);
        slots += same;
        count -= same;
    }
}

/* A returned chunk lies on top of those that were ready before: its memory is the most likely to be in the cache. */
static arena_chunk *
take_ready(arena *arena)
{
    arena_chunk *returned = atomic_exchange(&arena->returned, NULL);
    if (returned)
    {
        arena_chunk *last = returned;
        while (last->next)
            last = last->next;
        last->next = arena->ready;
        arena->ready = returned;
    }
    arena_chunk *chunk = arena->ready;
    if (chunk)
        arena->ready = chunk->next;
    return chunk;
}

static arena_chunk *
allocate(arena *arena)
{
    arena_chunk *chunk = os_aligned_alloc(ARENA_CHUNK);
    if (!chunk)
        return NULL;
    chunk->owner = arena;
    atomic_init(&chunk->lent, 0);
    arena->chunks++;
    return chunk;
}

static arena_chunk *
next_chunk(arena *arena)
{
    arena_chunk *chunk = take_ready(arena);
    if (chunk)
        return chunk;
    if (!arena_at_limit(arena))
        return allocate(arena);
    atomic_store(&arena->starved, true);
    chunk = take_ready(arena);
    if (chunk)
        atomic_store(&arena->starved, false);
    return chunk;
}

/* The current chunk has no room left. It comes back with its last slot, at once if that is back already. */
static void
retire(arena *arena)
{
    arena_chunk *chunk = arena->current;
    arena->current = NULL;
    arena->used = ARENA_CHUNK;
    if (chunk)
        count_back(chunk, 1);
}

BYTE *
arena_room(arena *arena, uint32_t bytes, uint32_t *room)
{
    /* Everything that was lent of the chunk is back: it begins anew, in memory that the cache still has. */
    if (arena->current && atomic_load(&arena->current->lent) == 1)
        arena->used = FIRST;
    if (ARENA_CHUNK - arena->used < bytes)
    {
        retire(arena);
        arena->current = next_chunk(arena);
        if (!arena->current)
            return NULL;
        atomic_store(&arena->current->lent, 1);
        arena->used = FIRST;
    }
    *room = ARENA_CHUNK - arena->used;
    return (BYTE *)arena->current + arena->used;
}

void
arena_take(arena *arena, uint32_t bytes, uint32_t slots)
{
    arena->used += bytes;
    atomic_fetch_add(&arena->current->lent, slots);
}
