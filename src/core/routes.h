/* SPDX-License-Identifier: MIT
 *
 * The trie of a table of prefixes, one for each version of IP. A node looks at
 * four bits of an address and has an entry for each of their values: another
 * node, which looks at later bits, or a route. The top is a larger node, whose
 * size follows the number of routes. There are nodes only where prefixes part,
 * so a table has fewer nodes than routes. As bits between two nodes are not
 * looked at, the route at the end need not contain the address: then the first
 * of its parents that does is the longest match.
 *
 * A change stores one entry, parent or value after the other, each atomically, and an address always finds the way to
 * its old or its new route. An unlinked node is freed when every reader that may have met it has left.
 */
#ifndef TUNRING_CORE_ROUTES_H
#define TUNRING_CORE_ROUTES_H

#include "platform/os.h"
#include "tunring_routes.h"

/* An address as two numbers; of IPv4 the upper half of `high`. */
typedef struct route_key
{
    uint64_t high, low;
} route_key;

/* Aligned to a cache line, where what IPv4 needs comes first. */
typedef struct route
{
    uint64_t high, high_mask;
    struct route *_Atomic parent; /* the longest other prefix that contains this
                                   one; NULL for `none` */
    _Atomic int32_t value;
    uint8_t length;
    _Alignas(8) uint64_t low; /* 32-bit Linux would align it by 4 */
    uint64_t low_mask;
    BYTE rest[16]; /* so that the size is a power of two */
} route;

WINTUN_ASSERT(sizeof(route) == 64, "os_aligned_alloc() takes a power of two");

/* A route's address; or a node's with ROUTE_NODE, and with the bits that the
 * node looks at. */
typedef uintptr_t route_entry;

#define ROUTE_NODE 1u
#define ROUTE_SHIFT 0x1Eu /* half of what the bits are to be shifted by */
#define ROUTE_LOW 0x20u   /* they are in the lower half of the address */
#define ROUTE_BITS 4u     /* that a node looks at */
#define ROUTE_WAYS 16u

/* Aligned to its size. */
typedef struct route_node
{
    _Atomic route_entry entries[ROUTE_WAYS];
} route_node;

WINTUN_ASSERT((sizeof(route_node) & 63u) == 0, "an entry has 6 bits beside a node's address");

typedef struct route_top
{
    _Atomic route_entry *entries;
    uint32_t last_way; /* one less than there are, a power of two */
    uint8_t shift;
    bool low;
    uint8_t bit, bits; /* the first that it looks at, and how many */
} route_top;

typedef struct route_trie
{
    route_top *_Atomic top;
    route none; /* contains everything, and has no value */
    /* The top of a table with few routes. */
    route_top small;
    _Atomic route_entry small_entry;
    /* All routes, by address and length; only for those who change the table. */
    route **sorted;
    uint32_t count, room;
    unsigned bits; /* of an address */
} route_trie;

/* Nodes and routes that readers may still use. */
#define ROUTES_RETIRED 256u
/* A change retires its subject and the node where that parted from the others. */
#define ROUTES_RETIRED_BY_ONE 2u

typedef struct routes_readers
{
    _Atomic uint32_t count;
    BYTE apart[60]; /* from what other threads write */
} routes_readers;

struct tunring_routes
{
    route_trie tries[2]; /* IPv4, IPv6 */
    BYTE apart[64];
    routes_readers readers[2]; /* those that entered in an even or an odd turn */
    _Atomic uint32_t turn;
    _Atomic uint32_t generation; /* of the process that uses it; ROUTES_ADOPTING
                                  while it becomes a child's */
    bool changing;               /* in the lock; a forked child that finds it set has half a
                        change */
    bool torn;                   /* it has, so that only lookups are possible */
    os_mutex lock;               /* for all but lookups */
    route_node *spare;           /* for the next route */
    void *retired[ROUTES_RETIRED];
    uint32_t retired_count;
};

static inline route_node *
route_node_of(route_entry entry)
{
    return (route_node *)(entry & ~(route_entry)63u);
}

static inline unsigned
route_way(route_entry entry, route_key key)
{
    const uint64_t half = entry & ROUTE_LOW ? key.low : key.high;
    return (unsigned)(half >> ((entry & ROUTE_SHIFT) << 1)) & (ROUTE_WAYS - 1);
}

static inline uint32_t
route_top_way(const route_top *top, route_key key)
{
    return (uint32_t)((top->low ? key.low : key.high) >> top->shift) & top->last_way;
}

/* ---- core/routes_trie.c: in the lock, but for the first and the last ---- */

void route_trie_init(route_trie *trie, unsigned bits);
/* The route of exactly this prefix, or NULL. */
route *route_trie_get(const route_trie *trie, route_key prefix, unsigned length);
/* Adds a route, which is not there yet. False without memory: nothing is
 * changed. */
bool route_trie_add(tunring_routes *table, route_trie *trie, route_key prefix, unsigned length, int32_t value);
/* Takes a route out, and retires it. */
void route_trie_remove(tunring_routes *table, route_trie *trie, route *gone);
/* Takes everything out. */
void route_trie_clear(tunring_routes *table, route_trie *trie);
/* Frees everything. Nobody uses the trie any more. */
void route_trie_free(route_trie *trie);

/* ---- core/routes.c ---- */

/* Waits until every reader has left that had entered before. */
void routes_await_readers(tunring_routes *table);
/* Makes room for what one change may retire. */
void routes_make_room(tunring_routes *table);
/* Frees a node or a route, by os_aligned_free(), once it is unlinked and every
 * reader has left that may have met it. If there is no room that is now: then
 * it must be unlinked already. */
void routes_retire(tunring_routes *table, void *memory);

#endif
