/* SPDX-License-Identifier: MIT
 *
 * Chunks: room is contiguous, what is out is never lent twice, memory is bounded and used again, and whoever found no
 * chunk is called once one is back.
 */
/* build: parts=os sources=src/core/arena.c */
#include "core/arena.h"
#include "check.h"

#include <string.h>

static unsigned calls;

static void
came_back(void *context)
{
    CHECK(context == &calls);
    calls++;
}

static tunring_slot
take(arena *arena, uint32_t bytes)
{
    uint32_t room;
    BYTE *data = arena_room(arena, bytes, &room);
    tunring_slot slot = {.data = data, .length = bytes};
    if (data)
    {
        CHECK(room >= bytes);
        arena_take(arena, bytes, 1);
    }
    return slot;
}

static void
test_runs_lie_back_to_back(void)
{
    arena arena;
    arena_init(&arena, 0, NULL, NULL);
    tunring_slot slots[4];
    for (int i = 0; i < 4; i++)
        slots[i] = take(&arena, 1000);
    for (int i = 1; i < 4; i++)
        CHECK(slots[i].data == slots[i - 1].data + 1000);
    arena_give_back(slots, 4);
    /* All is back, so the same memory comes again. */
    tunring_slot again = take(&arena, 10);
    CHECK(again.data == slots[0].data);
    arena_give_back(&again, 1);
    CHECK_EQUAL(arena.chunks, 1);
    arena_close(&arena);
}

static void
test_the_newest_chunk_comes_first(void)
{
    arena arena;
    arena_init(&arena, 0, NULL, NULL);
    tunring_slot slots[3];
    for (int i = 0; i < 3; i++)
        slots[i] = take(&arena, ARENA_MAX_ROOM + 1);
    CHECK_EQUAL(arena.chunks, 3);
    arena_give_back(&slots[1], 1);
    arena_give_back(&slots[0], 1);
    tunring_slot first = take(&arena, ARENA_MAX_ROOM + 1);
    tunring_slot second = take(&arena, ARENA_MAX_ROOM + 1);
    CHECK(first.data == slots[0].data && second.data == slots[1].data);
    CHECK_EQUAL(arena.chunks, 3);
    tunring_slot all[] = {first, second, slots[2]};
    arena_give_back(all, 3);
    arena_close(&arena);
}

static void
test_the_limit(void)
{
    calls = 0;
    arena arena;
    arena_init(&arena, 2, came_back, &calls);
    tunring_slot slots[2];
    slots[0] = take(&arena, ARENA_MAX_ROOM + 1);
    slots[1] = take(&arena, ARENA_MAX_ROOM + 1);
    uint32_t room;
    CHECK(!arena_room(&arena, ARENA_MAX_ROOM + 1, &room) && !arena_room(&arena, 1, &room));
    CHECK_EQUAL(arena.chunks, 2);
    CHECK_EQUAL(calls, 0);
    arena_give_back(&slots[0], 1);
    arena_give_back(&slots[1], 1);
    CHECK_EQUAL(calls, 1);
    slots[0] = take(&arena, 1);
    CHECK(slots[0].data);
    arena_give_back(&slots[0], 1);
    CHECK_EQUAL(calls, 1); /* nobody waits */
    arena_close(&arena);
}

/* One thread takes, others give back; each slot carries a number that must still be there when it comes back. */
#define THREADS 3
#define SLOTS 200000u

static tunring_slot queue[SLOTS];
static _Atomic uint32_t queued, taken;

static void *
give_back_all(void *unused)
{
    (void)unused;
    for (;;)
    {
        const uint32_t mine = atomic_fetch_add(&taken, 1);
        if (mine >= SLOTS)
            return NULL;
        while (atomic_load(&queued) <= mine)
            os_yield();
        uint32_t number;
        memcpy(&number, queue[mine].data, sizeof(number));
        CHECK_EQUAL(number, mine);
        arena_give_back(&queue[mine], 1);
    }
}

static void
test_threads(void)
{
    arena arena;
    arena_init(&arena, 4, NULL, NULL);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, give_back_all, NULL) == 0);
    for (uint32_t i = 0; i < SLOTS; i++)
    {
        while (!(queue[i] = take(&arena, 4 + i % 3000)).data)
            os_yield();
        memcpy(queue[i].data, &i, sizeof(i));
        atomic_store(&queued, i + 1);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    CHECK(arena.chunks <= 4);
    arena_close(&arena);
}

int
main(void)
{
    test_runs_lie_back_to_back();
    test_the_newest_chunk_comes_first();
    test_the_limit();
    test_threads();
    return 0;
}
