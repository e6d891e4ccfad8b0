/* SPDX-License-Identifier: MIT
 *
 * Changing a trie. The sorted list defines the trie: the routes
 * below an entry are a range of it, and where these part is where the entry's
 * node looks.
 */
#include "core/routes.h"

#include "core/table.h"

#include <stdlib.h>
#include <string.h>

/* A top looks at no more bits than this: it has 8 MiB then. */
#define MAX_TOP_BITS 20u
/* With fewer routes the top has a single entry. */
#define FEW_ROUTES 5u

/* A change. */
typedef struct route_change
{
    tunring_routes *table;
    route_trie *trie;
    const route *subject; /* the route that comes or goes; NULL: everything is made anew */
    const route *coming;  /* the subject if it comes: routes inside it may not know
                          it as their parent yet */
    unsigned top_end;     /* the first bit that the top does not look at */
    bool failed;          /* there was no memory for a node */
} route_change;

/* Bits of an address that a node, or the top, looks at. */
typedef struct route_look
{
    unsigned bit, bits;
} route_look;

/* ---- Keys ---- */

static route_key
key_of(const route *route)
{
    return (route_key){route->high, route->low};
}

static route_key
mask_of(unsigned length)
{
    route_key mask = {0, 0};
    if (length > 64)
        mask = (route_key){UINT64_MAX, UINT64_MAX << (128 - length)};
    else if (length > 0)
        mask.high = UINT64_MAX << (64 - length);
    return mask;
}

static bool
contains(const route *outer, const route *inner)
{
    return outer->length <= inner->length && ((outer->high ^ inner->high) & outer->high_mask) == 0 &&
           ((outer->low ^ inner->low) & outer->low_mask) == 0;
}

/* Where a prefix is in the order of the list: below 0 for before the route. */
static int
compare(route_key prefix, unsigned length, const route *other)
{
    if (prefix.high != other->high)
        return prefix.high < other->high ? -1 : 1;
    if (prefix.low != other->low)
        return prefix.low < other->low ? -1 : 1;
    return (int)length - (int)other->length;
}

static unsigned
leading_zeros(uint64_t word)
{
    unsigned count = 0;
    for (unsigned half = 32; half > 0; half /= 2)
        if (!(word >> (64 - half)))
        {
            count += half;
            word <<= half;
        }
    return count;
}

/* Bits that two different addresses begin with alike. */
static unsigned
common_bits(const route *one, const route *other)
{
    const uint64_t high = one->high ^ other->high;
    return high ? leading_zeros(high) : 64 + leading_zeros(one->low ^ other->low);
}

/* The bits are in one half of the address. */
static uint32_t
way_of(route_look look, const route *route)
{
    if (look.bits == 0)
        return 0;
    const unsigned end = look.bit + look.bits;
    const uint64_t half = end > 64 ? route->low : route->high;
    return (uint32_t)(half >> ((128 - end) & 63u)) & ((1u << look.bits) - 1);
}

/* ---- Entries ---- */

static bool
is_node(route_entry entry)
{
    return (entry & ROUTE_NODE) != 0;
}

/* An entry for a node that looks at the bits from this one on, a multiple of 4. */
static route_entry
node_entry(const route_node *node, unsigned bit)
{
    const unsigned shift = 64 - ROUTE_BITS - (bit & 63u);
    return (route_entry)node | shift / 2 | (bit >= 64 ? ROUTE_LOW : 0) | ROUTE_NODE;
}

static route_look
node_look(route_entry entry)
{
    const unsigned shift = (unsigned)((entry & ROUTE_SHIFT) << 1);
    return (route_look){(entry & ROUTE_LOW ? 64 : 0) + 64 - ROUTE_BITS - shift, ROUTE_BITS};
}

static route_entry
load(const _Atomic route_entry *entry)
{
    return atomic_load_explicit(entry, memory_order_relaxed);
}

static void
retire_nodes(tunring_routes *table, route_entry entry)
{
    if (!is_node(entry))
        return;
    for (unsigned way = 0; way < ROUTE_WAYS; way++)
        retire_nodes(table, load(&route_node_of(entry)->entries[way]));
    routes_retire(table, route_node_of(entry));
}

/* Those that nobody else has seen, or uses any more. */
static void
free_nodes(route_entry entry)
{
    if (!is_node(entry))
        return;
    for (unsigned way = 0; way < ROUTE_WAYS; way++)
        free_nodes(load(&route_node_of(entry)->entries[way]));
    os_aligned_free(route_node_of(entry));
}

/* ---- The list ---- */

/* The first route that is not before this prefix. */
static uint32_t
find_place(const route_trie *trie, route_key prefix, unsigned length)
{
    uint32_t first = 0, end = trie->count;
    while (first < end)
    {
        const uint32_t middle = first + (end - first) / 2;
        if (compare(prefix, length, trie->sorted[middle]) > 0)
            first = middle + 1;
        else
            end = middle;
    }
    return first;
}

/* The first in a range that goes this way, or a later one. */
static uint32_t
find_way(const route_trie *trie, uint32_t first, uint32_t end, route_look look, uint32_t way)
{
    while (first < end)
    {
        const uint32_t middle = first + (end - first) / 2;
        if (way_of(look, trie->sorted[middle]) < way)
            first = middle + 1;
        else
            end = middle;
    }
    return first;
}

static bool
make_room(route_trie *trie)
{
    if (trie->count < trie->room)
        return true;
    const uint32_t room = trie->room ? 2 * trie->room : 16;
    route **sorted = room > trie->room ? table_realloc(trie->sorted, 0, room, sizeof(route *)) : NULL;
    if (!sorted)
        return false;
    trie->sorted = sorted;
    trie->room = room;
    return true;
}

static void
put_in_list(route_trie *trie, uint32_t at, route *added)
{
    memmove(trie->sorted + at + 1, trie->sorted + at, (trie->count - at) * sizeof(route *));
    trie->sorted[at] = added;
    trie->count++;
}

static void
take_from_list(route_trie *trie, uint32_t at)
{
    trie->count--;
    memmove(trie->sorted + at, trie->sorted + at + 1, (trie->count - at) * sizeof(route *));
}

/* Gives another parent to the routes from `at` on that are inside `outer` and
 * have the parent `from`. */
static void
change_parents(const route_trie *trie, uint32_t at, const route *outer, const route *from, route *to)
{
    for (; at < trie->count && contains(outer, trie->sorted[at]); at++)
        if (atomic_load_explicit(&trie->sorted[at]->parent, memory_order_relaxed) == from)
            atomic_store(&trie->sorted[at]->parent, to);
}

/* The parent that a route has when the change is done. */
static const route *
parent_of(const route_change *change, const route *inner)
{
    const route *parent = atomic_load_explicit(&inner->parent, memory_order_relaxed), *coming = change->coming;
    if (coming && coming != inner && contains(coming, inner) &&
        parent == atomic_load_explicit(&coming->parent, memory_order_relaxed))
        return coming;
    return parent;
}

/* ---- What the trie has to be ---- */

/* Part of what `fill` is about: the entries of a node or of the top. */
typedef struct route_ways
{
    _Atomic route_entry *entries;
    route_look look;
    unsigned known; /* bits that are the same in everything that gets here: a node may look at some of the top's */
    bool is_new;
    /* An entry from before that all the old routes are below of, in a node that
   * is new; it belongs where `inside` is. */
    route_entry kept;
    const route *inside;
} route_ways;

static route_entry entry_for(route_change *change, route_entry old, uint32_t first, uint32_t end, const route *cover);

/* Returns whether a route, no longer than the bits looked at, contains everything that goes this way. */
static bool
covers(const route *outer, const route_ways *ways, uint32_t way)
{
    const route_look look = ways->look;
    const unsigned end = look.bit + look.bits;
    return outer->length <= ways->known ||
           (outer->length <= end && way - way_of(look, outer) < 1u << (end - outer->length));
}

/* The ways that the change concerns: from *first up to but not *end. */
static void
concerned_ways(const route_change *change, const route_ways *ways, uint32_t *first, uint32_t *end)
{
    const route_look look = ways->look;
    *first = 0;
    *end = 1u << look.bits;
    if (ways->is_new || !change->subject || change->subject->length <= ways->known)
        return;
    const unsigned length = change->subject->length - look.bit;
    *first = way_of(look, change->subject);
    *end = *first + (length < look.bits ? 1u << (look.bits - length) : 1);
}

/* Makes entries what they have to be for a range of routes; `cover` is the
 * longest one around them. */
static void
fill(route_change *change, const route_ways *ways, uint32_t first, uint32_t end, const route *cover)
{
    route **sorted = change->trie->sorted;
    const route_look look = ways->look;
    const unsigned last_bit = look.bit + look.bits;
    uint32_t way, last;
    concerned_ways(change, ways, &way, &last);
    if (way > 0)
    {
        const uint32_t begin = first;
        first = find_way(change->trie, first, end, look, way);
        if (first > begin)
            cover = sorted[first - 1];
    }
    for (; way < last; way++)
    {
        while (!covers(cover, ways, way))
            cover = parent_of(change, cover);
        /* Routes that end among the bits that are looked at come before those
     * inside them. */
        while (first < end && sorted[first]->length <= last_bit && way_of(look, sorted[first]) == way)
            cover = sorted[first++];
        const uint32_t begin = first;
        while (first < end && way_of(look, sorted[first]) == way)
            first++;
        const route_entry before = ways->is_new ? 0 : load(&ways->entries[way]);
        const bool has_kept = is_node(ways->kept) && way_of(look, ways->inside) == way;
        const route_entry now = entry_for(change, has_kept ? ways->kept : before, begin, first, cover);
        if (now != before)
            atomic_store(&ways->entries[way], now);
    }
}

/* The node that a change has room for; or as many as it takes, where everything
 * is made anew. */
static route_node *
take_node(route_change *change)
{
    route_node *node = change->table->spare;
    change->table->spare = NULL;
    if (!node)
        node = os_aligned_alloc(sizeof(*node));
    if (node)
        memset(node, 0, sizeof(*node));
    else
        change->failed = true;
    return node;
}

/* The entry for a range of routes, which are all that are inside
 * its bits; `cover` is the longest route around them. Nodes of the old entry
 * are used again, and changed, or retired. */
static route_entry
entry_for(route_change *change, route_entry old, uint32_t first, uint32_t end, const route *cover)
{
    route **sorted = change->trie->sorted;
    /* Routes one inside the other need no node: the innermost leads to the others
   * by its parents. */
    uint32_t parting = first;
    while (parting < end && contains(sorted[parting], sorted[end - 1]))
        parting++;
    if (parting == end)
    {
        retire_nodes(change->table, old);
        return (route_entry)(first < end ? sorted[end - 1] : cover);
    }
    /* Those in between have all the bits that these two have in common, and are
   * longer. */
    const unsigned bit = common_bits(sorted[parting], sorted[end - 1]) & ~(ROUTE_BITS - 1);
    while (sorted[first]->length <= bit)
        cover = sorted[first++];
    while (is_node(old) && node_look(old).bit < bit)
    {
        /* The subject is gone which had parted from the others here. */
        const route_entry unused = old;
        old = load(&route_node_of(old)->entries[way_of(node_look(old), sorted[parting])]);
        routes_retire(change->table, route_node_of(unused));
    }
    route_ways ways = {.look = {bit, ROUTE_BITS}, .known = bit > change->top_end ? bit : change->top_end};
    if (is_node(old) && node_look(old).bit == bit)
    {
        ways.entries = route_node_of(old)->entries;
        fill(change, &ways, first, end, cover);
        return old;
    }
    /* The subject has come, and parts from all the others here: a change takes at
   * most this one node. The last of the others is below the old node, if there
   * is one. */
    route_node *node = take_node(change);
    if (!node)
        return (route_entry)cover;
    ways.entries = node->entries;
    ways.is_new = true;
    ways.kept = old;
    ways.inside = sorted[end - 1] == change->subject ? sorted[end - 2] : sorted[end - 1];
    fill(change, &ways, first, end, cover);
    return node_entry(node, bit);
}

/* ---- The top ---- */

static void
init_top(route_top *top, _Atomic route_entry *entries, route_look look)
{
    const unsigned end = look.bit + look.bits;
    *top = (route_top){.entries = entries, .last_way = (1u << look.bits) - 1};
    top->bit = (uint8_t)look.bit;
    top->bits = (uint8_t)look.bits;
    top->low = end > 64;
    top->shift = look.bits ? (uint8_t)((128 - end) & 63u) : 0;
}

/* Where the top should look: from the first bit on where routes part, with two
 * to four ways for each of them. */
static route_look
best_look(const route_trie *trie)
{
    route_look look = {trie->bits, 0};
    uint32_t parting = 0;
    while (parting < trie->count && contains(trie->sorted[parting], trie->sorted[trie->count - 1]))
        parting++;
    if (parting == trie->count)
        return look;
    look.bit = common_bits(trie->sorted[parting], trie->sorted[trie->count - 1]);
    if (trie->count < FEW_ROUTES)
        return look;
    const unsigned end = look.bit < 64 && trie->bits > 64 ? 64 : trie->bits;
    while (look.bits < MAX_TOP_BITS && look.bit + look.bits < end && 1u << look.bits < 2 * trie->count)
        look.bits++;
    return look;
}

/* Returns whether the top no longer serves: routes part before it looks, it is too
 * small, or much too large. */
static bool
wants_top(const route_trie *trie, route_look best)
{
    const route_top *top = atomic_load_explicit(&trie->top, memory_order_relaxed);
    return best.bits > top->bits || (top->bits > 0 && best.bit < top->bit) ||
           (top->bits > 0 && 1u << top->bits > 32 * (trie->count + FEW_ROUTES));
}

static void
free_top(route_trie *trie, route_top *top)
{
    for (uint32_t way = 0; way <= top->last_way; way++)
        free_nodes(load(&top->entries[way]));
    if (top != &trie->small)
        free(top);
    else
        atomic_store(&trie->small_entry, (route_entry)&trie->none);
}

/* A new top with new nodes. NULL without memory. */
static route_top *
make_top(route_change *change, route_look look)
{
    const size_t ways = (size_t)1 << look.bits;
    if (look.bits == 0)
        look.bit = 0;
    route_top *top = calloc(1, sizeof(*top) + ways * sizeof(top->entries[0]));
    if (!top)
        return NULL;
    init_top(top, (_Atomic route_entry *)(top + 1), look);
    const route_ways all = {.entries = top->entries, .look = look, .known = look.bit, .is_new = true};
    change->top_end = look.bit + look.bits;
    fill(change, &all, 0, change->trie->count, &change->trie->none);
    if (!change->failed)
        return top;
    free_top(change->trie, top);
    return NULL;
}

/* Readers go by the new top from here on. */
static void
replace_top(tunring_routes *table, route_trie *trie, route_top *top)
{
    route_top *before = atomic_exchange(&trie->top, top);
    /* Nothing is linked below it any more, and it may be used again. */
    routes_await_readers(table);
    free_top(trie, before);
}

/* ---- Changes ---- */

void
route_trie_init(route_trie *trie, unsigned bits)
{
    atomic_init(&trie->none.value, TUNRING_NO_ROUTE);
    atomic_init(&trie->small_entry, (route_entry)&trie->none);
    init_top(&trie->small, &trie->small_entry, (route_look){0, 0});
    atomic_init(&trie->top, &trie->small);
    trie->bits = bits;
}

route *
route_trie_get(const route_trie *trie, route_key prefix, unsigned length)
{
    const uint32_t at = find_place(trie, prefix, length);
    return at < trie->count && compare(prefix, length, trie->sorted[at]) == 0 ? trie->sorted[at] : NULL;
}

static void
apply(route_change *change)
{
    route_trie *trie = change->trie;
    const route_top *top = atomic_load_explicit(&trie->top, memory_order_relaxed);
    const route_ways ways = {.entries = top->entries, .look = {top->bit, top->bits}, .known = top->bit};
    change->top_end = (unsigned)top->bit + top->bits;
    fill(change, &ways, 0, trie->count, &trie->none);
}

static route *
new_route(route_trie *trie, route_key prefix, unsigned length, int32_t value, uint32_t at)
{
    route *added = os_aligned_alloc(sizeof(*added));
    if (!added)
        return NULL;
    const route_key mask = mask_of(length);
    memset(added, 0, sizeof(*added));
    added->high = prefix.high;
    added->low = prefix.low;
    added->high_mask = mask.high;
    added->low_mask = mask.low;
    added->length = (uint8_t)length;
    atomic_init(&added->value, value);
    route *outer = at > 0 ? trie->sorted[at - 1] : &trie->none;
    while (!contains(outer, added))
        outer = atomic_load_explicit(&outer->parent, memory_order_relaxed);
    atomic_init(&added->parent, outer);
    return added;
}

bool
route_trie_add(tunring_routes *table, route_trie *trie, route_key prefix, unsigned length, int32_t value)
{
    const uint32_t at = find_place(trie, prefix, length);
    route_top *top = NULL;
    if (!table->spare)
        table->spare = os_aligned_alloc(sizeof(route_node));
    if (!table->spare || !make_room(trie))
        return false;
    route *added = new_route(trie, prefix, length, value, at);
    if (!added)
        return false;
    put_in_list(trie, at, added);
    route_change change = {.table = table, .trie = trie, .subject = added, .coming = added};
    const route_look best = best_look(trie);
    if (wants_top(trie, best) && !(top = make_top(&change, best)))
    {
        take_from_list(trie, at);
        os_aligned_free(added);
        return false;
    }
    change_parents(trie, at + 1, added, atomic_load_explicit(&added->parent, memory_order_relaxed), added);
    if (top)
        replace_top(table, trie, top);
    else
        apply(&change);
    return true;
}

void
route_trie_remove(tunring_routes *table, route_trie *trie, route *gone)
{
    const uint32_t at = find_place(trie, key_of(gone), gone->length);
    route_change change = {.table = table, .trie = trie, .subject = gone};
    routes_make_room(table);
    take_from_list(trie, at);
    change_parents(trie, at, gone, gone, atomic_load_explicit(&gone->parent, memory_order_relaxed));
    apply(&change);
    routes_retire(table, gone);
    const route_look best = best_look(trie);
    route_change anew = {.table = table, .trie = trie};
    route_top *top = wants_top(trie, best) ? make_top(&anew, best) : NULL;
    if (top)
        replace_top(table, trie, top);
}

void
route_trie_clear(tunring_routes *table, route_trie *trie)
{
    route_top *top = atomic_load_explicit(&trie->top, memory_order_relaxed);
    for (uint32_t way = 0; way <= top->last_way; way++)
    {
        const route_entry before = atomic_exchange(&top->entries[way], (route_entry)&trie->none);
        retire_nodes(table, before);
    }
    /* Parents are in front of what is inside them. */
    while (trie->count > 0)
        routes_retire(table, trie->sorted[--trie->count]);
    if (top != &trie->small)
        replace_top(table, trie, &trie->small);
}

void
route_trie_free(route_trie *trie)
{
    free_top(trie, atomic_load(&trie->top));
    while (trie->count > 0)
        os_aligned_free(trie->sorted[--trie->count]);
}
