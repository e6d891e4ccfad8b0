/* SPDX-License-Identifier: MIT
 *
 * Opening in place: of a whole lease, of a part, of what several openers share; what is used, opened before, or
 * released.
 */
/* build: parts=core flags=-ldl */
#include "aead_libraries.h"

#include "core/source.h"

#include <pthread.h>
#include <sched.h>

#define PACKETS 150
#define HEADER 2u

static const BYTE key[AEAD_MAX_KEY] = {8};
static const tunring_aead_format one = {.header = (const BYTE *)"1.", .header_size = HEADER};
static const tunring_aead_format two = {.header = (const BYTE *)"2.", .header_size = HEADER};
static const tunring_aead_format any = {.header_size = HEADER};
static tunring_sealer *sealers[2];
static tunring_opener *openers[2], *any_opener;
static tunring_store *store;

static void
begin(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    CHECK_EQUAL(tunring_sealer_new(library, algorithm, key, &one, 1, UINT32_MAX, 0, &sealers[0]), ERROR_SUCCESS);
    CHECK_EQUAL(tunring_sealer_new(library, algorithm, key, &two, 1, UINT32_MAX, 5000, &sealers[1]), ERROR_SUCCESS);
    CHECK_EQUAL(tunring_opener_new(library, algorithm, key, &one, 8192, false, &openers[0]), ERROR_SUCCESS);
    CHECK_EQUAL(tunring_opener_new(library, algorithm, key, &two, 8192, false, &openers[1]), ERROR_SUCCESS);
    CHECK_EQUAL(tunring_opener_new(library, algorithm, key, &any, 8192, false, &any_opener), ERROR_SUCCESS);
    CHECK_EQUAL(tunring_store_new(&store), ERROR_SUCCESS);
}

static void
finish(void)
{
    CHECK_EQUAL(atomic_load(&tunring_store_source(store)->counts.pinned_packets), 0);
    tunring_source_close(tunring_store_source(store));
    tunring_source_drop(tunring_store_source(store));
    for (int i = 0; i < 2; i++)
    {
        tunring_sealer_free(sealers[i]);
        tunring_opener_free(openers[i]);
    }
    tunring_opener_free(any_opener);
}

static uint32_t numbers[PACKETS];

static tunring_lease *
seal(tunring_sealer *sealer, uint32_t count)
{
    tunring_packet packets[PACKETS];
    for (uint32_t i = 0; i < count; i++)
    {
        numbers[i] = i;
        packets[i] = (tunring_packet){(const BYTE *)&numbers[i], sizeof(numbers[i])};
    }
    tunring_lease *lease;
    CHECK_EQUAL(tunring_store_seal(store, sealer, packets, count, &lease), ERROR_SUCCESS);
    return lease;
}

/* Turns every second datagram into one of the other header: both openers have the same key, and no additional data says
 * which it is, so the tag is wrong. All that matters is whose it seems to be. */
static void
mark_foreign(tunring_lease *lease)
{
    for (uint32_t i = 1; i < lease->count; i += 2)
        lease->slots[i].data[0] = '2';
}

static void
let_go(tunring_lease *lease)
{
    tunring_lease_release(lease);
    tunring_lease_free(lease);
}

static uint32_t
number_at(const tunring_part *part, uint32_t index)
{
    uint32_t number;
    CHECK_EQUAL(part->slots[index].length, sizeof(number));
    memcpy(&number, part->slots[index].data, sizeof(number));
    return number;
}

static void
test_whole(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    begin(library, algorithm);
    tunring_lease *lease = seal(sealers[0], PACKETS);
    lease->slots[3].data[lease->slots[3].length - 1] ^= 1;
    uint32_t index = 7;
    tunring_part *opened;
    CHECK_EQUAL(tunring_open_part(openers[0], lease, NULL, &opened, &index), ERROR_SUCCESS);
    CHECK_EQUAL(opened->level, 1);
    CHECK_EQUAL(opened->count, PACKETS - 1);
    CHECK_EQUAL(opened->bytes, (PACKETS - 1) * sizeof(uint32_t));
    for (uint32_t i = 0; i < opened->count; i++)
    {
        CHECK_EQUAL(number_at(opened, i), i < 3 ? i : i + 1);
        CHECK_EQUAL(opened->slots[i].root, i < 3 ? i : i + 1);
        CHECK(tunring_lease_hold(lease, opened->slots[i].root, 1));
        tunring_lease_unhold(lease, opened->slots[i].root);
    }
    /* Nothing else can read them, the rejected one included. */
    for (uint32_t i = 0; i < PACKETS; i++)
        CHECK(!tunring_lease_hold(lease, i, 0));
    tunring_part *again;
    CHECK_EQUAL(tunring_open_part(openers[0], lease, NULL, &again, &index), ERROR_ALREADY_EXISTS);
    CHECK(!again);
    /* An opened packet is not a datagram, but may be opened again: then it is rejected. */
    CHECK_EQUAL(tunring_open_part(any_opener, lease, opened, &again, &index), ERROR_SUCCESS);
    CHECK(!again);
    CHECK_EQUAL(tunring_open_part(openers[0], lease, opened, &again, &index), ERROR_ALREADY_EXISTS);
    free(opened);
    let_go(lease);
    finish();
}

/* A tunnel in a tunnel: what was opened is opened once more. */
static void
test_twice(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    begin(library, algorithm);
    tunring_lease *inner = seal(sealers[1], PACKETS);
    tunring_packet packets[PACKETS];
    for (uint32_t i = 0; i < PACKETS; i++)
        packets[i] = (tunring_packet){inner->slots[i].data, inner->slots[i].length};
    tunring_lease *outer;
    CHECK_EQUAL(tunring_store_seal(store, sealers[0], packets, PACKETS, &outer), ERROR_SUCCESS);
    let_go(inner);
    tunring_part *first;
    uint32_t index;
    CHECK_EQUAL(tunring_open_part(openers[0], outer, NULL, &first, &index), ERROR_SUCCESS);
    tunring_part *second;
    CHECK_EQUAL(tunring_open_part(openers[1], outer, first, &second, &index), ERROR_SUCCESS);
    CHECK_EQUAL(second->count, PACKETS);
    CHECK_EQUAL(second->level, 2);
    for (uint32_t i = 0; i < PACKETS; i++)
        CHECK_EQUAL(number_at(second, i), i);
    CHECK_EQUAL(tunring_lease_enter(outer, first, &index), ERROR_BUSY);
    CHECK_EQUAL(tunring_lease_enter(outer, second, &index), ERROR_SUCCESS);
    tunring_lease_leave(outer, second);
    free(first);
    free(second);
    let_go(outer);
    finish();
}

static void
test_foreign(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    begin(library, algorithm);
    tunring_lease *lease = seal(sealers[0], PACKETS);
    mark_foreign(lease);
    const BYTE byte = lease->slots[1].data[HEADER + TUNRING_AEAD_COUNTER];
    tunring_part *mine;
    uint32_t index;
    CHECK_EQUAL(tunring_open_part(openers[0], lease, NULL, &mine, &index), ERROR_SUCCESS);
    CHECK_EQUAL(mine->count, PACKETS / 2);
    for (uint32_t i = 0; i < PACKETS / 2; i++)
        CHECK_EQUAL(mine->slots[i].root, 2 * i);
    tunring_opener_counts counts;
    tunring_opener_counts_read(openers[0], &counts);
    CHECK_EQUAL(counts.foreign, PACKETS / 2);
    /* The others are as they were, and can be held, or opened through a part of them. */
    CHECK_EQUAL(lease->slots[1].data[HEADER + TUNRING_AEAD_COUNTER], byte);
    CHECK(tunring_lease_hold(lease, 1, 0));
    tunring_part *rest = tunring_part_new(PACKETS, 0);
    for (uint32_t i = 1; i < PACKETS; i += 2)
        tunring_part_append(rest, &lease->slots[i], i);
    tunring_part *theirs;
    CHECK_EQUAL(tunring_open_part(openers[1], lease, rest, &theirs, &index), ERROR_BUSY);
    CHECK_EQUAL(index, 0);
    tunring_lease_unhold(lease, 1);
    CHECK(tunring_lease_hold(lease, 9, 0));
    CHECK_EQUAL(tunring_open_part(openers[1], lease, rest, &theirs, &index), ERROR_BUSY);
    CHECK_EQUAL(index, 4); /* of the part */
    tunring_lease_unhold(lease, 9);
    CHECK_EQUAL(tunring_open_part(openers[1], lease, rest, &theirs, &index), ERROR_SUCCESS);
    CHECK(!theirs); /* their header is not the one that was sealed */
    tunring_opener_counts_read(openers[1], &counts);
    CHECK_EQUAL(counts.rejected, PACKETS / 2);
    CHECK_EQUAL(counts.foreign, 0);
    free(mine);
    free(rest);
    let_go(lease);
    finish();
}

static void
test_refused(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    begin(library, algorithm);
    tunring_lease *lease = seal(sealers[0], PACKETS);
    /* Held by an export, then by an operation. */
    CHECK(tunring_lease_hold(lease, 70, 0));
    tunring_part *opened;
    uint32_t index;
    CHECK_EQUAL(tunring_open_part(openers[0], lease, NULL, &opened, &index), ERROR_BUSY);
    CHECK_EQUAL(index, 70);
    tunring_lease_unhold(lease, 70);
    CHECK_EQUAL(tunring_lease_enter(lease, NULL, &index), ERROR_SUCCESS);
    CHECK_EQUAL(tunring_open_part(openers[0], lease, NULL, &opened, &index), ERROR_BUSY);
    tunring_lease_leave(lease, NULL);
    /* Nothing was changed: no counter is taken for seen. */
    tunring_opener_close(openers[1]);
    CHECK_EQUAL(tunring_open_part(openers[1], lease, NULL, &opened, &index), ERROR_HANDLE_EOF);
    CHECK_EQUAL(tunring_open_part(openers[0], lease, NULL, &opened, &index), ERROR_SUCCESS);
    CHECK_EQUAL(opened->count, PACKETS);
    tunring_opener_counts counts;
    tunring_opener_counts_read(openers[0], &counts);
    CHECK_EQUAL(counts.rejected + counts.replayed + counts.foreign, 0);
    free(opened);
    tunring_lease_release(lease);
    CHECK_EQUAL(tunring_open_part(openers[0], lease, NULL, &opened, &index), ERROR_INVALID_HANDLE);
    CHECK(!opened);
    tunring_lease_free(lease);
    finish();
}

/* One packet that is held, when what was opened whole is let go, stays until then; nothing of level 0 is left. */
static void
test_held_of_whole(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    begin(library, algorithm);
    _Atomic uint64_t *pinned = &tunring_store_source(store)->counts.pinned_packets;
    tunring_lease *lease = seal(sealers[0], PACKETS);
    tunring_part *opened, *datagrams = tunring_part_new(1, 0), *again;
    tunring_part_append(datagrams, &lease->slots[5], 5);
    uint32_t index = 7;
    CHECK_EQUAL(tunring_open_part(openers[0], lease, NULL, &opened, &index), ERROR_SUCCESS);
    CHECK_EQUAL(tunring_lease_enter(lease, datagrams, &index), ERROR_BUSY);
    CHECK_EQUAL(index, 0);
    index = 7;
    CHECK_EQUAL(tunring_lease_enter(lease, NULL, &index), ERROR_BUSY);
    CHECK_EQUAL(index, 0);
    index = 7;
    CHECK_EQUAL(tunring_lease_open(lease, datagrams, &index), ERROR_ALREADY_EXISTS);
    CHECK_EQUAL(index, 0);
    index = 7;
    CHECK_EQUAL(tunring_open_part(openers[0], lease, datagrams, &again, &index), ERROR_ALREADY_EXISTS);
    CHECK_EQUAL(index, 0);
    /* No packet, no trouble. */
    datagrams->count = 0;
    CHECK_EQUAL(tunring_lease_enter(lease, datagrams, &index), ERROR_SUCCESS);
    tunring_lease_leave(lease, datagrams);
    CHECK_EQUAL(tunring_lease_open(lease, datagrams, &index), ERROR_SUCCESS);
    tunring_lease_opened(lease);
    CHECK(tunring_lease_hold(lease, 5, 1));
    CHECK(tunring_lease_held(lease));
    tunring_lease_release(lease);
    CHECK_EQUAL(atomic_load(pinned), 1);
    CHECK_EQUAL(number_at(opened, 5), 5);
    CHECK(!tunring_lease_hold(lease, 6, 1));
    tunring_lease_unhold(lease, 5);
    CHECK_EQUAL(atomic_load(pinned), 0);
    free(datagrams);
    free(opened);
    tunring_lease_free(lease);
    finish();
}

#define THREADS 5

static tunring_lease *shared;
static _Atomic uint32_t successes, packets_opened;

static void *
open_shared(void *argument)
{
    (void)argument;
    tunring_part *opened;
    uint32_t index;
    DWORD code = ERROR_SUCCESS;
    /* Busy to the last turn: the system took the processor from a reader or an opener that is inside. */
    for (int turn = 0; turn < 50 || code == ERROR_BUSY; turn++)
    {
        code = tunring_open_part(openers[0], shared, NULL, &opened, &index);
        if (code == ERROR_SUCCESS)
        {
            atomic_fetch_add(&successes, 1);
            atomic_fetch_add(&packets_opened, opened->count);
        }
        else
            CHECK(code == ERROR_BUSY || code == ERROR_ALREADY_EXISTS || code == ERROR_INVALID_HANDLE);
        free(opened);
        if (code == ERROR_BUSY)
            sched_yield();
    }
    return NULL;
}

static void *
read_shared(void *argument)
{
    uint32_t read = 0;
    (void)argument;
    uint32_t index;
    for (int turn = 0; turn < 50; turn++)
    {
        const DWORD code = tunring_lease_enter(shared, NULL, &index);
        if (code != ERROR_SUCCESS)
            continue;
        for (uint32_t i = 0; i < shared->count; i++)
            read += shared->slots[i].data[0];
        tunring_lease_leave(shared, NULL);
    }
    CHECK_EQUAL(read % '1', 0);
    return NULL;
}

/* Reads a datagram's text while it is held: nobody may open it then. */
static void *
hold_shared(void *argument)
{
    (void)argument;
    for (uint32_t turn = 0; turn < 50; turn++)
    {
        const uint32_t i = turn % PACKETS;
        if (!tunring_lease_hold(shared, i, 0))
            continue;
        const volatile BYTE *text = shared->slots[i].data + HEADER + TUNRING_AEAD_COUNTER;
        const BYTE before[2] = {text[0], text[1]};
        sched_yield();
        CHECK(text[0] == before[0] && text[1] == before[1]);
        tunring_lease_unhold(shared, i);
    }
    return NULL;
}

/* One of the openers gets it, whole; readers see it before, or not at all; a release meanwhile takes its turn. */
static void
test_threads(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    begin(library, algorithm);
    static void *(*const works[THREADS])(void *) = {read_shared, hold_shared, open_shared, open_shared, open_shared};
    for (int round = 0; round < 40; round++)
    {
        atomic_store(&successes, 0);
        atomic_store(&packets_opened, 0);
        shared = seal(sealers[0], PACKETS);
        pthread_t threads[THREADS];
        for (int i = 0; i < THREADS; i++)
            CHECK(pthread_create(&threads[i], NULL, works[(i + round) % THREADS], NULL) == 0);
        if (round % 2)
            tunring_lease_release(shared);
        for (int i = 0; i < THREADS; i++)
            pthread_join(threads[i], NULL);
        CHECK(atomic_load(&successes) <= 1);
        CHECK_EQUAL(atomic_load(&packets_opened), atomic_load(&successes) * PACKETS);
        CHECK(round % 2 || atomic_load(&successes) == 1);
        let_go(shared);
    }
    finish();
}

#define MANY 2048
#define ROUNDS 300

static _Atomic int round_begun, round_ended;
static _Atomic bool is_open;
static tunring_part *last; /* slot of the shared lease, which is opened last */

/* The ways to use the last slot. Each begins, if it is let, and ends. */

static bool
begin_hold(void)
{
    return tunring_lease_hold(shared, MANY - 1, 0);
}

static void
end_hold(void)
{
    tunring_lease_unhold(shared, MANY - 1);
}

static bool
begin_read(void)
{
    uint32_t index;
    return tunring_lease_enter(shared, last, &index) == ERROR_SUCCESS;
}

static void
end_read(void)
{
    tunring_lease_leave(shared, last);
}

static bool
begin_open(void)
{
    uint32_t index;
    return tunring_lease_open(shared, last, &index) == ERROR_SUCCESS;
}

static void
end_open(void)
{
    tunring_lease_opened(shared);
}

static const struct
{
    bool (*begin)(void);
    void (*end)(void);
} uses[] = {{begin_hold, end_hold}, {begin_read, end_read}, {begin_open, end_open}};

/* Tries to use the last slot from the moment a round begins. */
static void *
use_last(void *argument)
{
    (void)argument;
    for (int round = 1; round <= ROUNDS; round++)
    {
        while (atomic_load(&round_begun) < round)
            sched_yield();
        bool used = false;
        for (int turn = 0; turn < 1000 && !used; turn++)
            used = uses[round % 3].begin();
        for (int look = 0; used && look < 1000; look++)
            CHECK(!atomic_load(&is_open));
        if (used)
            uses[round % 3].end();
        atomic_store(&round_ended, round);
    }
    return NULL;
}

/* Slots of a lease that nobody has held yet are opened by plain writes: whoever uses one at that moment is seen, or is
 * refused. */
static void
test_first_use(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    static tunring_packet packets[MANY];
    begin(library, algorithm);
    atomic_store(&round_begun, 0);
    atomic_store(&round_ended, 0);
    last = tunring_part_new(1, 0);
    pthread_t user;
    CHECK(pthread_create(&user, NULL, use_last, NULL) == 0);
    for (int round = 1; round <= ROUNDS; round++)
    {
        uint32_t index;
        for (uint32_t i = 0; i < MANY; i++)
            packets[i] = (tunring_packet){(const BYTE *)&numbers[0], sizeof(numbers[0])};
        CHECK_EQUAL(tunring_store_seal(store, sealers[0], packets, MANY, &shared), ERROR_SUCCESS);
        last->count = 0;
        tunring_part_append(last, &shared->slots[MANY - 1], MANY - 1);
        atomic_store(&is_open, false);
        atomic_store(&round_begun, round);
        for (volatile int pause = 0; pause < round; pause++)
            ;
        const DWORD code = tunring_lease_open(shared, NULL, &index);
        CHECK(code == ERROR_SUCCESS || code == ERROR_BUSY || code == ERROR_ALREADY_EXISTS);
        atomic_store(&is_open, code == ERROR_SUCCESS);
        while (atomic_load(&round_ended) < round)
            sched_yield();
        if (code == ERROR_SUCCESS)
            tunring_lease_opened(shared);
        let_go(shared);
    }
    pthread_join(user, NULL);
    free(last);
    finish();
}

int
main(void)
{
    with_each(test_whole);
    with_each(test_twice);
    with_each(test_foreign);
    with_each(test_refused);
    with_each(test_held_of_whole);
    with_each(test_threads);
    with_each(test_first_use);
    return 0;
}
