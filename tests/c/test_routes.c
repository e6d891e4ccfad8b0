/* SPDX-License-Identifier: MIT
 *
 * Tables of prefixes against a list that is searched from one end to the other,
 * with the nodes counted: random prefixes near each other, so that they lie
 * inside each other, part at every bit, and come and go.
 */
/* build: parts=core flags=-Wl,--wrap=posix_memalign -Wl,--wrap=malloc
 * -Wl,--wrap=realloc */
#include "check.h"
#include "core/routes.h"

#include <string.h>

#define MAX_ROUTES 400u

/* Memory that the code under test asks for fails from this time on; below 0:
 * never. */
static int failing_after = -1;
static long nodes;
static unsigned compared; /* tables with others that have the same routes */

static bool
fails(void)
{
    return failing_after >= 0 && failing_after-- == 0;
}

int __real_posix_memalign(void **memory, size_t alignment, size_t size);
void *__real_malloc(size_t size);
void *__real_realloc(void *memory, size_t size);

int
__wrap_posix_memalign(void **memory, size_t alignment, size_t size)
{
    return fails() ? 12 : __real_posix_memalign(memory, alignment, size);
}

void *
__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *
__wrap_realloc(void *memory, size_t size)
{
    return fails() ? NULL : __real_realloc(memory, size);
}

static uint64_t state = 0x5EED5EED5EEDu;
static tunring_route model[MAX_ROUTES];
static uint32_t model_count;

static bool
same_prefix(const tunring_prefix *one, const tunring_prefix *other)
{
    return memcmp(one, other, sizeof(*one)) == 0;
}

static bool
inside(const tunring_prefix *prefix, unsigned version, const BYTE *address)
{
    if (prefix->version != version)
        return false;
    for (unsigned bit = 0; bit < prefix->length; bit++)
        if ((prefix->address[bit / 8] ^ address[bit / 8]) >> (7 - bit % 8) & 1)
            return false;
    return true;
}

static int32_t
expected(unsigned version, const BYTE *address)
{
    int32_t value = TUNRING_NO_ROUTE;
    int longest = -1;
    for (uint32_t i = 0; i < model_count; i++)
        if (inside(&model[i].prefix, version, address) && (int)model[i].prefix.length > longest)
        {
            longest = model[i].prefix.length;
            value = model[i].value;
        }
    return value;
}

/* Addresses are near each other: they have few different bytes, or begin as a
 * prefix that is there. */
static void
random_address(unsigned version, BYTE *address)
{
    static const BYTE bytes[] = {0, 1, 2, 8, 0x10, 0x80, 0xC0, 0xFF};
    const unsigned size = version == 4 ? 4 : 16;
    memset(address, 0, 16);
    if (model_count && check_random(&state) % 2)
    {
        const tunring_prefix *near = &model[check_random(&state) % model_count].prefix;
        memcpy(address, near->address, size);
        for (unsigned bit = check_random(&state) % (near->length + 1u); bit < size * 8; bit++)
            address[bit / 8] ^= (BYTE)((check_random(&state) & 1) << (7 - bit % 8));
        return;
    }
    for (unsigned i = 0; i < size; i++)
        address[i] = bytes[check_random(&state) % 2 ? 0 : check_random(&state) % 8];
}

static tunring_prefix
random_prefix(void)
{
    tunring_prefix prefix = {.version = check_random(&state) % 2 ? 4 : 6};
    random_address(prefix.version, prefix.address);
    prefix.length = (uint8_t)(check_random(&state) % (prefix.version == 4 ? 33u : 129u));
    for (unsigned bit = prefix.length; bit < 128; bit++)
        prefix.address[bit / 8] &= (BYTE) ~(0x80u >> bit % 8);
    return prefix;
}

static tunring_route *
find_model(const tunring_prefix *prefix)
{
    for (uint32_t i = 0; i < model_count; i++)
        if (same_prefix(&model[i].prefix, prefix))
            return &model[i];
    return NULL;
}

static void
remove_from_model(tunring_route *there)
{
    *there = model[--model_count];
}

static void
count_nodes(route_entry entry)
{
    if (!(entry & ROUTE_NODE))
        return;
    nodes++;
    for (unsigned way = 0; way < ROUTE_WAYS; way++)
        count_nodes(atomic_load(&route_node_of(entry)->entries[way]));
}

/* The nodes are those that the routes need, whatever was there before. */
static void
check_nodes(tunring_routes *table)
{
    tunring_routes *fresh = tunring_routes_new();
    tunring_route list[MAX_ROUTES];
    const uint32_t count = tunring_routes_list(table, list, MAX_ROUTES);
    CHECK_EQUAL(count, model_count);
    uint32_t done;
    CHECK(tunring_routes_set(fresh, list, count, &done) == ERROR_SUCCESS && done == count);
    long counted[2][2];
    bool alike[2];
    for (int version = 0; version < 2; version++)
    {
        const route_top *tops[2];
        for (int i = 0; i < 2; i++)
        {
            tops[i] = atomic_load(&(i ? fresh : table)->tries[version].top);
            nodes = 0;
            for (uint32_t way = 0; way <= tops[i]->last_way; way++)
                count_nodes(atomic_load(&tops[i]->entries[way]));
            counted[version][i] = nodes;
        }
        /* A top that was needed once is kept for a while. */
        alike[version] = tops[0]->bit == tops[1]->bit && tops[0]->bits == tops[1]->bits;
        CHECK(tops[0]->last_way < 64 * (count + 8));
        if (alike[version])
            CHECK_EQUAL(counted[version][0], counted[version][1]);
        CHECK(counted[version][0] <= (long)count);
    }
    compared += alike[0] + alike[1];
    tunring_routes_free(fresh);
}

static void
check_lookups(tunring_routes *table, unsigned times)
{
    for (unsigned i = 0; i < times; i++)
    {
        const unsigned version = check_random(&state) % 2 ? 4 : 6;
        BYTE address[16];
        if (model_count && check_random(&state) % 2)
        {
            const tunring_prefix *near = &model[check_random(&state) % model_count].prefix;
            memcpy(address, near->address, 16);
            const unsigned bit = check_random(&state) % (near->version == 4 ? 32u : 128u);
            address[bit / 8] ^= (BYTE)(0x80u >> bit % 8);
            CHECK_EQUAL(tunring_routes_lookup(table, near->version, address), expected(near->version, address));
        }
        random_address(version, address);
        CHECK_EQUAL(tunring_routes_lookup(table, version, address), expected(version, address));
    }
}

static void
set_one(tunring_routes *table)
{
    tunring_route added = {random_prefix(), (int32_t)(check_random(&state) % 8)};
    tunring_route *there = find_model(&added.prefix);
    if (!there && model_count == MAX_ROUTES)
        return;
    uint32_t done;
    if (check_random(&state) % 4 == 0)
    {
        failing_after = (int)(check_random(&state) % 3);
        const DWORD code = tunring_routes_set(table, &added, 1, &done);
        const bool failed = failing_after < 0;
        failing_after = -1;
        CHECK(failed || code == ERROR_SUCCESS);
        if (code != ERROR_SUCCESS)
        {
            CHECK(code == ERROR_NOT_ENOUGH_MEMORY && done == 0);
            check_lookups(table, 4);
        }
    }
    CHECK(tunring_routes_set(table, &added, 1, &done) == ERROR_SUCCESS && done == 1);
    *(there ? there : &model[model_count++]) = added;
}

static void
remove_one(tunring_routes *table)
{
    tunring_prefix prefix = random_prefix();
    if (model_count && check_random(&state) % 8)
        prefix = model[check_random(&state) % model_count].prefix;
    tunring_route *there = find_model(&prefix);
    const route_node *spare = table->spare;
    const route_top *top = atomic_load(&table->tries[prefix.version == 4 ? 0 : 1].top);
    int32_t value;
    const DWORD code = tunring_routes_remove(table, &prefix, &value);
    /* A removal needs no memory, unless it makes a smaller top. */
    CHECK(table->spare == spare || atomic_load(&table->tries[prefix.version == 4 ? 0 : 1].top) != top);
    CHECK_EQUAL(code, there ? ERROR_SUCCESS : ERROR_NOT_FOUND);
    if (there)
    {
        CHECK_EQUAL(value, there->value);
        remove_from_model(there);
    }
}

static void
remove_value(tunring_routes *table)
{
    const int32_t value = (int32_t)(check_random(&state) % 8);
    uint32_t gone = 0;
    for (uint32_t i = model_count; i-- > 0;)
        if (model[i].value == value)
        {
            remove_from_model(&model[i]);
            gone++;
        }
    uint32_t removed;
    CHECK(tunring_routes_remove_value(table, value, &removed) == ERROR_SUCCESS);
    CHECK_EQUAL(removed, gone);
}

static void
test_random(void)
{
    tunring_routes *table = tunring_routes_new();
    CHECK(table);
    for (unsigned step = 0; step < 20000; step++)
    {
        const unsigned what = check_random(&state) % 1000;
        /* It grows and shrinks. */
        const unsigned sets = step / 2000 % 2 ? 300 : 700;
        if (what < sets)
            set_one(table);
        else if (what < 995)
            remove_one(table);
        else if (what < 999)
            remove_value(table);
        else
        {
            CHECK(tunring_routes_clear(table) == ERROR_SUCCESS);
            model_count = 0;
        }
        check_lookups(table, 2);
        if (step % 20 == 0)
            check_nodes(table);
        CHECK_EQUAL(tunring_routes_count(table), model_count);
    }
    CHECK(compared > 200);
    tunring_routes_free(table);
    model_count = 0;
}

/* Every length of prefix, one inside the other, in any order. */
static void
test_nested(void)
{
    for (unsigned turn = 0; turn < 20; turn++)
    {
        tunring_routes *table = tunring_routes_new();
        BYTE address[16];
        for (unsigned i = 0; i < 16; i++)
            address[i] = (BYTE)check_random(&state);
        const unsigned step = turn % 2 ? 50 : 1; /* prime to 129 */
        uint32_t done;
        for (unsigned i = 0; i <= 128; i++)
        {
            tunring_route route = {{.version = 6, .length = (uint8_t)(i * step % 129)}, 0};
            memcpy(route.prefix.address, address, 16);
            for (unsigned bit = route.prefix.length; bit < 128; bit++)
                route.prefix.address[bit / 8] &= (BYTE) ~(0x80u >> bit % 8);
            route.value = route.prefix.length;
            CHECK(tunring_routes_set(table, &route, 1, &done) == ERROR_SUCCESS);
        }
        CHECK_EQUAL(tunring_routes_lookup(table, 6, address), 128);
        for (unsigned bit = 0; bit < 128; bit++)
        {
            BYTE other[16];
            memcpy(other, address, 16);
            other[bit / 8] ^= (BYTE)(0x80u >> bit % 8);
            CHECK_EQUAL(tunring_routes_lookup(table, 6, other), bit);
        }
        tunring_routes_free(table);
    }
}

static void
test_arguments(void)
{
    tunring_routes *table = tunring_routes_new();
    tunring_route routes[] = {{{.address = {10, 30}, .version = 4, .length = 16}, 7},
                              {{.address = {10, 30, 1}, .version = 4, .length = 16}, 7}};
    CHECK(tunring_prefix_valid(&routes[0].prefix) && !tunring_prefix_valid(&routes[1].prefix));
    uint32_t done;
    CHECK(tunring_routes_set(table, routes, 2, &done) == ERROR_INVALID_PARAMETER && done == 0);
    CHECK_EQUAL(tunring_routes_count(table), 0);
    routes[1].prefix.length = 33;
    CHECK(!tunring_prefix_valid(&routes[1].prefix));
    routes[1].prefix.length = 24;
    routes[1].prefix.version = 5;
    CHECK(!tunring_prefix_valid(&routes[1].prefix));
    routes[1].prefix.version = 4;
    int32_t value;
    routes[1].value = -1;
    CHECK(tunring_routes_set(table, routes, 2, &done) == ERROR_INVALID_PARAMETER);
    routes[1].value = INT32_MAX;
    CHECK(tunring_routes_set(table, routes, 2, &done) == ERROR_SUCCESS && done == 2);
    CHECK(tunring_routes_move(table, &routes[0].prefix, 6, 8) == ERROR_NOT_FOUND);
    CHECK(tunring_routes_move(table, &routes[0].prefix, 7, -1) == ERROR_INVALID_PARAMETER);
    CHECK(tunring_routes_move(table, &routes[0].prefix, 7, 8) == ERROR_SUCCESS);
    CHECK(tunring_routes_get(table, &routes[0].prefix, &value) == ERROR_SUCCESS && value == 8);
    routes[0].prefix.length = 17;
    CHECK(tunring_routes_get(table, &routes[0].prefix, &value) == ERROR_NOT_FOUND);
    tunring_routes_free(table);
}

static void
test_packets(void)
{
    tunring_routes *table = tunring_routes_new();
    const tunring_route routes[] = {{{.address = {10, 1}, .version = 4, .length = 16}, 1},
                                    {{.address = {10, 2}, .version = 4, .length = 16}, 2},
                                    {{.address = {0xfd, 1}, .version = 6, .length = 16}, 3},
                                    {{.address = {0xfd, 2}, .version = 6, .length = 16}, 4}};
    BYTE ip4[20] = {[0] = 0x45, [12] = 10, [13] = 1, [16] = 10, [17] = 2};
    BYTE ip6[40] = {[0] = 0x60, [8] = 0xfd, [9] = 1, [24] = 0xfd, [25] = 2};
    BYTE mapped[40] = {[0] = 0x60, [34] = 0xff, [35] = 0xff, [36] = 10, [37] = 2};
    const tunring_packet packets[] = {{ip4, 20}, {ip6, 40}, {mapped, 40}, {ip4, 19}, {ip6, 39}, {NULL, 0}};
    const int32_t destinations[] = {2, 4, -1, -1, -1, -1}, sources[] = {1, 3, -1, -1, -1, -1};
    uint32_t done;
    CHECK(tunring_routes_set(table, routes, 4, &done) == ERROR_SUCCESS);
    int32_t values[6];
    tunring_routes_lookup_packets(table, packets, 6, false, values);
    CHECK(memcmp(values, destinations, sizeof(values)) == 0);
    tunring_slot slots[6];
    for (int i = 0; i < 6; i++)
    {
        slots[i].data = (BYTE *)(uintptr_t)packets[i].data;
        slots[i].length = packets[i].length;
    }
    tunring_routes_lookup_slots(table, slots, 6, true, values);
    CHECK(memcmp(values, sources, sizeof(values)) == 0);
    const uint32_t entered = tunring_routes_enter(table);
    CHECK_EQUAL(tunring_routes_find4(table, ip4 + 16), 2);
    CHECK_EQUAL(tunring_routes_find6(table, ip6 + 8), 3);
    CHECK_EQUAL(tunring_routes_find_packet(table, ip4, 20, true), 1);
    tunring_routes_leave(table, entered);
    tunring_routes_free(table);
}

int
main(void)
{
    test_arguments();
    test_packets();
    test_nested();
    test_random();
    return 0;
}
