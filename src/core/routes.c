/* SPDX-License-Identifier: MIT
 *
 * Tables of prefixes: lookups, who may use what for how long, and the calls
 * that change a table. routes.h has the idea.
 */
#include "core/routes.h"

#include "core/backoff.h"

#include <stdlib.h>
#include <string.h>

#define ROUTES_ADOPTING UINT32_MAX

/* ---- Addresses ---- */

static inline uint32_t
read32(const BYTE *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static inline uint64_t
read64(const BYTE *bytes)
{
    return (uint64_t)read32(bytes) << 32 | read32(bytes + 4);
}

static void
write64(uint64_t number, BYTE *bytes)
{
    for (int i = 7; i >= 0; i--, number >>= 8)
        bytes[i] = (BYTE)number;
}

/* ---- Looking up ---- */

/* Loads are sequentially consistent, as is entering: so either a change sees
 * the reader, or the reader sees the change. */

static inline int32_t
find4(const route_trie *trie, uint32_t address)
{
    const uint64_t key = (uint64_t)address << 32;
    const route_top *top = atomic_load(&trie->top);
    route_entry entry = atomic_load(&top->entries[key >> top->shift & top->last_way]);
    while (entry & ROUTE_NODE)
        entry = atomic_load(&route_node_of(entry)->entries[key >> ((entry & ROUTE_SHIFT) << 1) & (ROUTE_WAYS - 1)]);
    const route *found = (const route *)entry;
    while ((key ^ found->high) & found->high_mask)
        found = atomic_load(&found->parent);
    return atomic_load(&found->value);
}

static inline int32_t
find6(const route_trie *trie, uint64_t high, uint64_t low)
{
    const route_key key = {high, low};
    const route_top *top = atomic_load(&trie->top);
    route_entry entry = atomic_load(&top->entries[route_top_way(top, key)]);
    while (entry & ROUTE_NODE)
        entry = atomic_load(&route_node_of(entry)->entries[route_way(entry, key)]);
    const route *found = (const route *)entry;
    while (((high ^ found->high) & found->high_mask) | ((low ^ found->low) & found->low_mask))
        found = atomic_load(&found->parent);
    return atomic_load(&found->value);
}

static inline int32_t
find_packet(const tunring_routes *table, const BYTE *packet, uint32_t length, bool source)
{
    /* As tunring_packet_is_ip(), by one look at the version: another thread may change the packet. */
    if (length < 20)
        return TUNRING_NO_ROUTE;
    const unsigned version = packet[0] >> 4;
    if (version == 4)
        return find4(&table->tries[0], read32(packet + (source ? 12 : 16)));
    if (version != 6 || length < 40)
        return TUNRING_NO_ROUTE;
    const BYTE *address = packet + (source ? 8 : 24);
    return find6(&table->tries[1], read64(address), read64(address + 8));
}

int32_t
tunring_routes_find4(const tunring_routes *table, const BYTE *address)
{
    return find4(&table->tries[0], read32(address));
}

int32_t
tunring_routes_find6(const tunring_routes *table, const BYTE *address)
{
    return find6(&table->tries[1], read64(address), read64(address + 8));
}

int32_t
tunring_routes_find_packet(const tunring_routes *table, const BYTE *packet, uint32_t length, bool source)
{
    return find_packet(table, packet, length, source);
}

int32_t
tunring_routes_lookup(tunring_routes *table, unsigned version, const BYTE *address)
{
    const uint32_t entered = tunring_routes_enter(table);
    const int32_t value = version == 4 ? tunring_routes_find4(table, address) : tunring_routes_find6(table, address);
    tunring_routes_leave(table, entered);
    return value;
}

void
tunring_routes_lookup_packets(tunring_routes *table, const tunring_packet *packets, uint32_t count, bool source,
                              int32_t *values)
{
    const uint32_t entered = tunring_routes_enter(table);
    for (uint32_t i = 0; i < count; i++)
        values[i] = find_packet(table, packets[i].data, packets[i].length, source);
    tunring_routes_leave(table, entered);
}

void
tunring_routes_lookup_slots(tunring_routes *table, const tunring_slot *slots, uint32_t count, bool source,
                            int32_t *values)
{
    const uint32_t entered = tunring_routes_enter(table);
    for (uint32_t i = 0; i < count; i++)
        values[i] = find_packet(table, slots[i].data, slots[i].length, source);
    tunring_routes_leave(table, entered);
}

/* ---- Readers ---- */

/* In a forked child nobody looks up any more who did in the parent, and nobody
 * holds the lock. */
static void
adopt(tunring_routes *table)
{
    const uint32_t now = os_generation();
    uint32_t found = atomic_load(&table->generation);
    while (found != now)
    {
        if (found == ROUTES_ADOPTING)
            os_yield(); /* by another thread, which is about to be done */
        else if (atomic_compare_exchange_strong(&table->generation, &found, ROUTES_ADOPTING))
        {
            os_mutex_init(&table->lock);
            table->torn |= table->changing;
            atomic_store(&table->readers[0].count, 0);
            atomic_store(&table->readers[1].count, 0);
            atomic_store(&table->generation, now);
        }
        found = atomic_load(&table->generation);
    }
}

static inline void
adopt_if_forked(tunring_routes *table)
{
    if (atomic_load_explicit(&table->generation, memory_order_acquire) != os_generation())
        adopt(table);
}

uint32_t
tunring_routes_enter(tunring_routes *table)
{
    adopt_if_forked(table);
    const uint32_t turn = atomic_load_explicit(&table->turn, memory_order_relaxed) & 1;
    atomic_fetch_add(&table->readers[turn].count, 1);
    return turn;
}

void
tunring_routes_leave(tunring_routes *table, uint32_t entered)
{
    atomic_fetch_sub_explicit(&table->readers[entered].count, 1, memory_order_release);
}

/* Waits for everybody who entered before. A reader that reads the turn and enters late may do so under the number of
 * any turn, so both numbers must have been seen at 0; whoever comes meanwhile enters under the other one. */
void
routes_await_readers(tunring_routes *table)
{
    for (int i = 0; i < 2; i++)
    {
        const uint32_t before = atomic_fetch_xor(&table->turn, 1) & 1;
        backoff pause = {0};
        while (atomic_load(&table->readers[before].count))
            backoff_pause(&pause);
    }
}

static void
free_retired(tunring_routes *table)
{
    routes_await_readers(table);
    while (table->retired_count > 0)
        os_aligned_free(table->retired[--table->retired_count]);
}

void
routes_make_room(tunring_routes *table)
{
    if (table->retired_count > ROUTES_RETIRED - ROUTES_RETIRED_BY_ONE)
        free_retired(table);
}

void
routes_retire(tunring_routes *table, void *memory)
{
    if (table->retired_count == ROUTES_RETIRED)
        free_retired(table);
    table->retired[table->retired_count++] = memory;
}

/* ---- Making and ending ---- */

tunring_routes *
tunring_routes_new(void)
{
    tunring_routes *table = calloc(1, sizeof(*table));
    if (!table)
        return NULL;
    os_watch_forks();
    os_mutex_init(&table->lock);
    atomic_init(&table->generation, os_generation());
    route_trie_init(&table->tries[0], 32);
    route_trie_init(&table->tries[1], 128);
    return table;
}

void
tunring_routes_free(tunring_routes *table)
{
    adopt_if_forked(table);
    if (table->torn)
        return; /* half a change is left where it is: what was freed in it may still be listed */
    for (int i = 0; i < 2; i++)
    {
        route_trie_free(&table->tries[i]);
        free(table->tries[i].sorted);
    }
    if (table->spare)
        os_aligned_free(table->spare);
    os_mutex_destroy(&table->lock);
    free(table);
}

/* ---- Changing ---- */

bool
tunring_prefix_valid(const tunring_prefix *prefix)
{
    const unsigned bits = prefix->version == 4 ? 32 : 128;
    if ((prefix->version != 4 && prefix->version != 6) || prefix->length > bits)
        return false;
    for (unsigned bit = prefix->length; bit < 128; bit++)
        if (prefix->address[bit / 8] >> (7 - bit % 8) & 1)
            return false;
    return true;
}

static route_trie *
trie_of(tunring_routes *table, const tunring_prefix *prefix)
{
    return &table->tries[prefix->version == 4 ? 0 : 1];
}

static route_key
key_of(const tunring_prefix *prefix)
{
    return (route_key){read64(prefix->address), read64(prefix->address + 8)};
}

static route *
get(tunring_routes *table, const tunring_prefix *prefix)
{
    if (!tunring_prefix_valid(prefix))
        return NULL;
    return route_trie_get(trie_of(table, prefix), key_of(prefix), prefix->length);
}

/* Begins to change or to read the table itself. A child that is forked
 * meanwhile would have half a change. */
static DWORD
lock(tunring_routes *table)
{
    adopt_if_forked(table);
    os_fork_hold();
    os_mutex_lock(&table->lock);
    if (table->torn)
    {
        os_mutex_unlock(&table->lock);
        os_fork_release();
        return ERROR_HANDLE_EOF;
    }
    table->changing = true;
    return ERROR_SUCCESS;
}

static void
unlock(tunring_routes *table)
{
    table->changing = false;
    os_mutex_unlock(&table->lock);
    os_fork_release();
}

/* Begins a call about one route. Only if it returns 0 is the lock held. */
static DWORD
lock_route(tunring_routes *table, const tunring_prefix *prefix, route **there)
{
    const DWORD code = lock(table);
    if (code != ERROR_SUCCESS)
        return code;
    *there = get(table, prefix);
    if (*there)
        return ERROR_SUCCESS;
    unlock(table);
    return ERROR_NOT_FOUND;
}

static DWORD
set(tunring_routes *table, const tunring_route *wanted, bool *replaced)
{
    route *there = get(table, &wanted->prefix);
    if (!there)
        return route_trie_add(table, trie_of(table, &wanted->prefix), key_of(&wanted->prefix), wanted->prefix.length,
                              wanted->value)
                   ? ERROR_SUCCESS
                   : ERROR_NOT_ENOUGH_MEMORY;
    *replaced |= atomic_exchange(&there->value, wanted->value) != wanted->value;
    return ERROR_SUCCESS;
}

DWORD
tunring_routes_set(tunring_routes *table, const tunring_route *routes, uint32_t count, uint32_t *done)
{
    bool replaced = false;
    *done = 0;
    for (uint32_t i = 0; i < count; i++)
        if (!tunring_prefix_valid(&routes[i].prefix) || routes[i].value < 0)
            return ERROR_INVALID_PARAMETER;
    DWORD code = lock(table);
    if (code != ERROR_SUCCESS)
        return code;
    while (*done < count && (code = set(table, &routes[*done], &replaced)) == ERROR_SUCCESS)
        ++*done;
    /* Additions don't concern readers, but a value that is no longer there may. */
    if (replaced || table->retired_count)
        free_retired(table);
    unlock(table);
    return code;
}

DWORD
tunring_routes_move(tunring_routes *table, const tunring_prefix *prefix, int32_t from, int32_t to)
{
    if (to < 0)
        return ERROR_INVALID_PARAMETER;
    route *there;
    DWORD code = lock_route(table, prefix, &there);
    if (code != ERROR_SUCCESS)
        return code;
    if (atomic_load(&there->value) == from)
    {
        atomic_store(&there->value, to);
        routes_await_readers(table);
    }
    else
        code = ERROR_NOT_FOUND;
    unlock(table);
    return code;
}

DWORD
tunring_routes_remove(tunring_routes *table, const tunring_prefix *prefix, int32_t *value)
{
    route *there;
    const DWORD code = lock_route(table, prefix, &there);
    if (code != ERROR_SUCCESS)
        return code;
    *value = atomic_load(&there->value);
    route_trie_remove(table, trie_of(table, prefix), there);
    free_retired(table);
    unlock(table);
    return ERROR_SUCCESS;
}

DWORD
tunring_routes_remove_value(tunring_routes *table, int32_t value, uint32_t *removed)
{
    *removed = 0;
    const DWORD code = lock(table);
    if (code != ERROR_SUCCESS)
        return code;
    for (int i = 0; i < 2; i++)
    {
        route_trie *trie = &table->tries[i];
        for (uint32_t at = trie->count; at-- > 0;)
        {
            if (atomic_load(&trie->sorted[at]->value) != value)
                continue;
            route_trie_remove(table, trie, trie->sorted[at]);
            ++*removed;
        }
    }
    if (*removed)
        free_retired(table);
    unlock(table);
    return code;
}

DWORD
tunring_routes_clear(tunring_routes *table)
{
    const DWORD code = lock(table);
    if (code != ERROR_SUCCESS)
        return code;
    for (int i = 0; i < 2; i++)
        route_trie_clear(table, &table->tries[i]);
    free_retired(table);
    unlock(table);
    return code;
}

/* ---- Reading the table itself ---- */

DWORD
tunring_routes_get(tunring_routes *table, const tunring_prefix *prefix, int32_t *value)
{
    route *there;
    const DWORD code = lock_route(table, prefix, &there);
    if (code != ERROR_SUCCESS)
        return code;
    *value = atomic_load(&there->value);
    unlock(table);
    return ERROR_SUCCESS;
}

uint32_t
tunring_routes_count(tunring_routes *table)
{
    if (lock(table) != ERROR_SUCCESS)
        return 0;
    const uint32_t count = table->tries[0].count + table->tries[1].count;
    unlock(table);
    return count;
}

uint32_t
tunring_routes_list(tunring_routes *table, tunring_route *routes, uint32_t room)
{
    uint32_t count = 0;
    if (lock(table) != ERROR_SUCCESS)
        return 0;
    for (int i = 0; i < 2; i++)
        for (uint32_t at = 0; at < table->tries[i].count; at++, count++)
        {
            const route *found = table->tries[i].sorted[at];
            if (count >= room)
                continue;
            routes[count].prefix.version = i ? 6 : 4;
            routes[count].prefix.length = found->length;
            write64(found->high, routes[count].prefix.address);
            write64(found->low, routes[count].prefix.address + 8);
            routes[count].value = atomic_load(&found->value);
        }
    unlock(table);
    return count;
}
