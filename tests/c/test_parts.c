/* SPDX-License-Identifier: MIT
 *
 * Parts of a lease: what they read, where it came from, and how opening in place shuts every other reader out.
 */
/* build: parts=core */
#include "check.h"
#include "core/lease.h"
#include "core/table.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint32_t given_back;

static void
give_back(tunring_source *source, const tunring_slot *slots, uint32_t count)
{
    (void)source;
    (void)slots;
    given_back += count;
}

static void
nothing(tunring_source *source)
{
    (void)source;
}

static const source_ops ops = {.give_back = give_back, .detach = nothing, .end = nothing, .free = nothing};
static tunring_source source;
static BYTE memory[10][40];

static tunring_lease *
make_lease(void)
{
    tunring_lease *lease = lease_new(10);
    CHECK(lease);
    for (uint32_t i = 0; i < 10; i++)
    {
        const tunring_endpoint from = {.port = (uint16_t)(i / 4)};
        CHECK(lease_add_origin(lease, &from, 0));
        memset(memory[i], (int)i, sizeof(memory[i]));
        lease_append(lease, memory[i], 20 + i);
    }
    lease_bind(lease, &source, false);
    given_back = 0;
    return lease;
}

static tunring_part *
make_part(const tunring_lease *lease, uint32_t first, uint32_t step)
{
    tunring_part *part = tunring_part_new(10, 0);
    CHECK(part);
    for (uint32_t i = first; i < lease->count; i += step)
        tunring_part_append(part, &lease->slots[i], i);
    return part;
}

static void
finish(tunring_lease *lease, tunring_part *part)
{
    tunring_lease_release(lease);
    CHECK_EQUAL(given_back, 10);
    tunring_lease_free(lease);
    free(part);
}

static void
test_reading(void)
{
    tunring_lease *lease = make_lease();
    tunring_part *part = make_part(lease, 1, 3); /* 1, 4, 7 */
    CHECK(part->count == 3 && part->bytes == 21 + 24 + 27);
    CHECK_EQUAL(lease->origins->count, 3);
    uint32_t numbers[10];
    tunring_slots_origins(lease, part, numbers);
    CHECK(numbers[0] == 0 && numbers[1] == 1 && numbers[2] == 1);
    tunring_slots_origins(lease, NULL, numbers);
    for (uint32_t i = 0; i < 10; i++)
        CHECK_EQUAL(numbers[i], i / 4);
    CHECK(tunring_slots_offsets(part->slots, part->count, numbers));
    CHECK(numbers[0] == 0 && numbers[1] == 21 && numbers[2] == 45);
    BYTE headers[3][24];
    tunring_slots_headers(part->slots, part->count, 24, headers[0]);
    CHECK(headers[0][20] == 1 && headers[0][21] == 0 && headers[0][23] == 0);
    CHECK(headers[2][0] == 7 && headers[2][23] == 7);
    finish(lease, part);
}

static void
test_opening(void)
{
    tunring_lease *lease = make_lease();
    tunring_part *part = make_part(lease, 0, 2); /* 0, 2, 4, 6, 8 */

    CHECK(tunring_lease_hold(lease, 4, 0));
    uint32_t index = 99;
    CHECK(tunring_lease_open(lease, part, &index) == ERROR_BUSY && index == 2);
    tunring_lease_unhold(lease, 4);
    CHECK(tunring_lease_enter(lease, NULL, &index) == ERROR_SUCCESS);
    CHECK(tunring_lease_open(lease, part, &index) == ERROR_BUSY);
    tunring_lease_leave(lease, NULL);

    CHECK(tunring_lease_open(lease, part, &index) == ERROR_SUCCESS);
    CHECK(!tunring_lease_hold(lease, 4, 0) && tunring_lease_hold(lease, 3, 0));
    CHECK(tunring_lease_open(lease, part, &index) == ERROR_ALREADY_EXISTS && index == 0);
    CHECK(tunring_lease_enter(lease, NULL, &index) == ERROR_BUSY && index == 0);
    tunring_part *opened = make_part(lease, 0, 2);
    opened->level = 1;
    tunring_lease_release(lease);
    CHECK_EQUAL(given_back, 0); /* the operation is still in progress, and slot 3 is held */
    tunring_lease_opened(lease);
    CHECK_EQUAL(given_back, 9);
    CHECK(!tunring_lease_hold(lease, 4, 1));
    tunring_lease_unhold(lease, 3);
    free(opened);
    finish(lease, part);
}

static void
test_reading_what_was_opened(void)
{
    tunring_lease *lease = make_lease();
    tunring_part *opened = make_part(lease, 0, 2);
    uint32_t index;
    CHECK(tunring_lease_open(lease, opened, &index) == ERROR_SUCCESS);
    tunring_lease_opened(lease);
    opened->level = 1;
    CHECK(tunring_lease_hold(lease, 4, 1));
    CHECK(tunring_lease_enter(lease, opened, &index) == ERROR_SUCCESS);
    tunring_part *rest = make_part(lease, 1, 2);
    CHECK(tunring_lease_open(lease, rest, &index) == ERROR_SUCCESS); /* beside it */
    tunring_lease_opened(lease);
    CHECK(tunring_lease_open(lease, opened, &index) == ERROR_BUSY && index == 2);
    tunring_lease_leave(lease, opened);
    tunring_lease_unhold(lease, 4);
    CHECK(tunring_lease_open(lease, opened, &index) == ERROR_SUCCESS); /* a second layer */
    tunring_lease_opened(lease);
    CHECK(tunring_lease_enter(lease, opened, &index) == ERROR_BUSY);
    free(rest);
    finish(lease, opened);
}

static void
test_groups(void)
{
    const int64_t keys[] = {7, -1, 7, INT64_MIN, -1, 7, 0, INT64_MIN};
    const uint32_t expected[] = {0, 1, 0, 2, 1, 0, 3, 2};
    uint32_t groups[8];
    CHECK_EQUAL(tunring_group(keys, 8, groups), 4);
    CHECK(memcmp(groups, expected, sizeof(groups)) == 0);
}

static void
test_groups_of_rows(void)
{
    /* Of each width, rows that differ in one byte only. */
    enum
    {
        WIDEST = 20,
        ROWS = 3 * WIDEST + 3
    };
    BYTE rows[ROWS * WIDEST];
    uint32_t groups[ROWS];
    for (uint32_t width = 0; width <= WIDEST; width++)
    {
        const uint32_t distinct = width + 1, count = 3 * distinct;
        memset(rows, 0, sizeof(rows));
        for (uint32_t i = 0; i < count; i++)
            if (i % distinct)
                rows[i * width + i % distinct - 1] = 1;
        CHECK_EQUAL(tunring_group_rows(rows, width, count, groups), distinct);
        for (uint32_t i = 0; i < count; i++)
            CHECK_EQUAL(groups[i], i % distinct);
    }
}

/* Keys that agree in many bits are told apart without long searches. */
static void
test_groups_of_similar_keys(void)
{
    enum
    {
        COUNT = 65536
    };
    static int64_t keys[COUNT];
    static uint32_t groups[COUNT];
    for (unsigned shift = 0; shift <= 48; shift += 8)
    {
        for (int64_t i = 0; i < COUNT; i++)
            keys[i] = (int64_t)((uint64_t)i << shift);
        const clock_t began = clock();
        CHECK_EQUAL(tunring_group(keys, COUNT, groups), COUNT);
        CHECK_EQUAL(tunring_group_rows((const BYTE *)keys, sizeof(keys[0]), COUNT, groups), COUNT);
        CHECK(clock() - began < CLOCKS_PER_SEC); /* of processor time */
    }
}

/* Sealed batches may be that large; their packets are not looked at. */
static void
test_offsets_of_many_bytes(void)
{
    enum
    {
        COUNT = 65539 /* 2^32 + 2^17 bytes in all, less a few */
    };
    tunring_slot *slots = calloc(COUNT, sizeof(*slots));
    uint32_t *offsets = calloc(COUNT, sizeof(*offsets));
    CHECK(slots && offsets);
    for (uint32_t i = 0; i < COUNT; i++)
        slots[i].length = 65535;
    CHECK(tunring_slots_offsets(slots, 65537, offsets)); /* 2^32 - 1 */
    CHECK_EQUAL(offsets[65536], 65536u * 65535u);
    CHECK(!tunring_slots_offsets(slots, 65538, offsets));
    CHECK(!tunring_slots_offsets(slots, COUNT, offsets));
    free(offsets);
    free(slots);
}

static void
test_tables_beyond_memory(void)
{
    CHECK(table_fits(0, SIZE_MAX, 1) && table_fits(8, (SIZE_MAX - 8) / 24, 24));
    CHECK(!table_fits(1, SIZE_MAX, 1) && !table_fits(0, SIZE_MAX / 24 + 1, 24));
    CHECK(!table_alloc(16, SIZE_MAX / 16, 16));
    void *table = table_alloc(16, 4, 16);
    CHECK(table && !table_realloc(table, 16, SIZE_MAX / 16, 16));
    free(table);
}

int
main(void)
{
    CHECK(source_open(&source, &ops));
    test_reading();
    test_opening();
    test_reading_what_was_opened();
    test_groups();
    test_groups_of_rows();
    test_groups_of_similar_keys();
    test_offsets_of_many_bytes();
    test_tables_beyond_memory();
    source_discard(&source);
    return 0;
}
