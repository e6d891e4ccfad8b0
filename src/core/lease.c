/* SPDX-License-Identifier: MIT
 *
 * Slots on loan. A slot goes back at its last hold; the lease itself is one holder of each. `state` is one word:
 * LEASE_RELEASED once the owner is done, LEASE_HELD once anybody else has held a slot (until then a release needs no
 * atomic operation per slot), LEASE_OPENED once slots were opened in place, LEASE_WHOLE if all of them were before
 * anybody held one, and two numbers of C operations in progress, during which a release has to wait its turn: those
 * that read packets as they were received, and all others.
 *
 * A slot's `holds` has its level, the number of times it was opened, below the count: whoever holds a slot names the
 * level that he means to read, so that what was opened can't be read as it was before.
 */
#include "core/lease.h"
#include "core/reservation.h"
#include "core/table.h"

#include <stdlib.h>

#define LEASE_RELEASED UINT64_C(1)
#define LEASE_HELD UINT64_C(2)
#define LEASE_OPENED UINT64_C(4)
#define LEASE_WHOLE UINT64_C(8)
#define LEASE_READING (UINT64_C(1) << 4)    /* one that reads packets of level 0 */
#define LEASE_OPENING (UINT64_C(1) << 34)   /* one that opens packets, or reads what was opened */
#define LEASE_MAX ((UINT64_C(1) << 30) - 1) /* of each kind: anybody may begin any number, by calls that wait */
#define LEASE_READERS (LEASE_MAX * LEASE_READING)
#define LEASE_OPENERS (LEASE_MAX * LEASE_OPENING)
#define LEASE_OPERATIONS (LEASE_READERS | LEASE_OPENERS)

/* In a slot's `holds`, beside HOLDS_ONE. */
#define HOLDS_LEVEL 1u
#define HOLDS_LEVELS (HOLDS_ONE - 1)
#define HOLDS_MAX (UINT32_MAX - HOLDS_ONE) /* with which there is room for another one */

/* The table that was freed last, so that batch after batch goes through the same memory. The address sanitizer is to
 * see each one end; a test that lets malloc() fail asks for none too. */
#if !defined(KEPT_ROOM)
#if defined(__SANITIZE_ADDRESS__)
#define KEPT_ROOM 0u
#else
#define KEPT_ROOM 4096u
#endif
#endif
static tunring_lease *_Atomic spare;

static tunring_lease *
allocate(uint32_t room)
{
    tunring_lease *lease = atomic_exchange(&spare, NULL);
    if (lease && lease->room >= room)
        return lease;
    free(lease);
    lease = table_alloc(sizeof(*lease), room, sizeof(lease->slots[0]));
    if (lease)
        lease->room = room;
    return lease;
}

static void
begin_lease(tunring_lease *lease)
{
    lease->source = NULL;
    atomic_init(&lease->state, 0);
    atomic_init(&lease->left, 0);
    lease->reserved = false;
    lease->sealed = false;
    lease->generation = os_generation();
    lease->count = 0;
    lease->bytes = 0;
    lease->origins = NULL;
    lease->sizes = NULL;
}

tunring_lease *
lease_new(uint32_t room)
{
    tunring_lease *lease = allocate(room);
    if (lease)
        begin_lease(lease);
    return lease;
}

tunring_lease *
lease_again(tunring_lease *old, uint32_t room)
{
    if (!old || old->room < room || old->room > KEPT_ROOM || old->origins || old->sizes)
    {
        tunring_lease_free(old);
        return lease_new(room);
    }
    begin_lease(old);
    return old;
}

bool
lease_grow(tunring_lease **lease, uint32_t max)
{
    const uint32_t room = (*lease)->room;
    const uint32_t wanted = room > max / 2 ? max : room * 2;
    tunring_lease *grown = table_realloc(*lease, sizeof(*grown), wanted, sizeof(grown->slots[0]));
    if (!grown)
        return false;
    grown->room = wanted;
    *lease = grown;
    return true;
}

/* Origins that a table begins with. */
#define FIRST_ORIGINS 4u

bool
lease_add_origin(tunring_lease *lease, const tunring_endpoint *from, uint8_t ecn)
{
    tunring_origins *origins = lease->origins;
    const tunring_origin *last = origins && origins->count ? &origins->list[origins->count - 1] : NULL;
    if (last && last->ecn == ecn && memcmp(&last->from, from, sizeof(*from)) == 0)
        return true;
    if (!origins || origins->count == origins->room)
    {
        const uint32_t room = origins ? 2 * origins->room : FIRST_ORIGINS;
        tunring_origins *grown = table_realloc(origins, sizeof(*grown), room, sizeof(grown->list[0]));
        if (!grown)
            return false;
        if (!origins)
            grown->count = 0;
        grown->room = room;
        lease->origins = origins = grown;
    }
    origins->list[origins->count++] = (tunring_origin){.first = lease->count, .ecn = ecn, .from = *from};
    return true;
}

/* The origins of the packets from `first` on, as those of a lease that begins there. */
static bool
copy_origins(const tunring_origins *origins, uint32_t first, tunring_lease *rest)
{
    const uint32_t all = rest->count;
    for (uint32_t i = 0; origins && i < origins->count; i++)
    {
        const tunring_origin *origin = &origins->list[i];
        if (i + 1 < origins->count && origins->list[i + 1].first <= first)
            continue;
        rest->count = origin->first > first ? origin->first - first : 0;
        if (!lease_add_origin(rest, &origin->from, origin->ecn))
            return false;
    }
    rest->count = all;
    return true;
}

tunring_lease *
lease_cut(tunring_lease *lease, uint32_t first)
{
    tunring_lease *rest = lease_new(lease->count - first);
    if (!rest)
        return NULL;
    for (uint32_t i = first; i < lease->count; i++)
        lease_append(rest, lease->slots[i].data, lease->slots[i].length);
    if (!copy_origins(lease->origins, first, rest))
    {
        tunring_lease_free(rest);
        return NULL;
    }
    tunring_origins *origins = lease->origins;
    while (origins && origins->count && origins->list[origins->count - 1].first >= first)
        origins->count--;
    lease->count = first;
    lease->bytes -= rest->bytes;
    return rest;
}

void
lease_bind(tunring_lease *lease, tunring_source *source, bool reserved)
{
    lease->source = source;
    lease->reserved = reserved;
    atomic_init(&lease->left, lease->count);
    if (lease->count == 0)
        return;
    source_pin(source);
    if (reserved)
    {
        /* The caller, which reserves, is about to look at the slots. */
        atomic_init(&lease->state, LEASE_HELD);
        count_add(&source->counts.reservations, 1);
    }
    else
    {
        count_add(&source->counts.pinned_packets, lease->count);
        count_add(&source->counts.pinned_bytes, lease->bytes);
    }
}

/* `count` slots are the ring's again. With the last of them the lease lets go of its source. */
static void
slots_gone(tunring_lease *lease, uint32_t count, uint64_t bytes)
{
    tunring_source *source = lease->source;
    if (count == 0)
        return;
    if (!lease->reserved)
    {
        count_sub(&source->counts.pinned_packets, count);
        count_sub(&source->counts.pinned_bytes, bytes);
    }
    /* Nobody but the caller counts where all slots go at once. */
    if (count != lease->count && atomic_fetch_sub(&lease->left, count) != count)
        return;
    if (lease->reserved)
        count_sub(&source->counts.reservations, 1);
    source_unpin(source);
}

/* These slots are nobody's any more. slots_gone() is left to the caller: until then the lease pins its source. */
static void
return_slots(const tunring_lease *lease, uint32_t first, uint32_t count)
{
    tunring_source *source = lease->source;
    if (count == 0)
        return;
    if (lease->reserved)
        source->ops->abandon(source, &lease->slots[first], count);
    else
        source->ops->give_back(source, &lease->slots[first], count);
}

static bool
foreign(const tunring_lease *lease)
{
    return OS_FOREIGN(lease);
}

/* True if it was the last hold. */
static bool
drop_hold(tunring_lease *lease, uint32_t index)
{
    return atomic_fetch_sub(&lease->slots[index].holds, HOLDS_ONE) < 2 * HOLDS_ONE;
}

/* Drops the lease's own hold on the slots from `first` on. They go back in runs between those that are still held. */
static void
drop_holds(tunring_lease *lease, uint32_t first)
{
    uint32_t run = first;
    uint32_t kept = 0;
    uint64_t kept_bytes = 0;
    for (uint32_t i = first; i < lease->count; i++)
    {
        if (drop_hold(lease, i))
            continue;
        kept++;
        kept_bytes += lease->slots[i].length;
        return_slots(lease, run, i - run);
        run = i + 1;
    }
    return_slots(lease, run, lease->count - run);
    /* Only a reservation's `first` is not 0, and nobody counts the bytes of those. */
    slots_gone(lease, lease->count - first - kept, lease->bytes - kept_bytes);
}

/* Nobody but the lease has held a slot, and nobody can any more: tunring_lease_hold() has seen the release, or comes
 * to. */
static void
return_unheld(tunring_lease *lease)
{
    return_slots(lease, 0, lease->count);
    slots_gone(lease, lease->count, lease->bytes);
}

/* Drops the lease's own hold on every slot. */
static void
return_all(tunring_lease *lease, bool held)
{
    if (held)
        drop_holds(lease, 0);
    else
        return_unheld(lease);
}

/* True if slots of this level may be held. Sets LEASE_HELD first. */
static bool
may_hold(tunring_lease *lease, uint32_t level)
{
    const uint64_t refused = level == 0 ? LEASE_RELEASED | LEASE_WHOLE : LEASE_RELEASED;
    uint64_t state = atomic_load(&lease->state);
    if (!(state & (LEASE_HELD | refused)))
        state = atomic_fetch_or(&lease->state, LEASE_HELD);
    return !(state & refused);
}

bool
tunring_lease_hold(tunring_lease *lease, uint32_t index, uint32_t level)
{
    const uint64_t state = atomic_load(&lease->state) & (LEASE_HELD | LEASE_RELEASED | LEASE_WHOLE);
    if (state != LEASE_HELD && !may_hold(lease, level))
        return false;
    /* A release may have begun since: then it saw LEASE_HELD, and the count decides. open_whole() would have seen it,
     * too. Most often only the lease holds the slot. */
    _Atomic uint32_t *holds = &lease->slots[index].holds;
    const uint32_t only_ours = HOLDS_ONE + level * HOLDS_LEVEL;
    uint32_t held = only_ours;
    while (!atomic_compare_exchange_weak(holds, &held, held + HOLDS_ONE))
        if (held < HOLDS_ONE || held > HOLDS_MAX || (held & HOLDS_LEVELS) != level * HOLDS_LEVEL)
            return false;
    return true;
}

void
tunring_lease_unhold(tunring_lease *lease, uint32_t index)
{
    if (!drop_hold(lease, index) || foreign(lease))
        return;
    return_slots(lease, index, 1);
    slots_gone(lease, 1, lease->slots[index].length);
}

/* The amount that an operation on packets of this level adds to `state`. */
static uint64_t
operation(const tunring_part *part)
{
    return part && part->level ? LEASE_OPENING : LEASE_READING;
}

static DWORD
begin(tunring_lease *lease, uint64_t unit)
{
    const uint64_t max = LEASE_MAX * unit;
    uint64_t state = atomic_load(&lease->state);
    do
    {
        if (state & LEASE_RELEASED)
            return ERROR_HANDLE_EOF;
        if ((state & max) == max)
            return ERROR_NOT_ENOUGH_MEMORY;
    } while (!atomic_compare_exchange_weak(&lease->state, &state, state + unit));
    return ERROR_SUCCESS;
}

static void
finish(tunring_lease *lease, uint64_t unit)
{
    uint64_t state = atomic_fetch_sub(&lease->state, unit);
    if ((state & LEASE_RELEASED) && (state & LEASE_OPERATIONS) == unit && !foreign(lease))
        return_all(lease, state & LEASE_HELD);
}

static bool
is_of_level(const tunring_lease *lease, uint32_t index, uint32_t level)
{
    return (atomic_load(&lease->slots[index].holds) & HOLDS_LEVELS) / HOLDS_LEVEL == level;
}

/* Every packet is of the level that the part reads. Whoever opens packets one by one changes their level first, and
 * looks for readers second; a reader has made itself known before it looks. open_whole() looks for readers when it sets
 * LEASE_WHOLE, and changes levels last. */
static bool
all_of_level(const tunring_lease *lease, const tunring_part *part, uint32_t *index)
{
    const uint32_t count = part ? part->count : lease->count;
    const uint32_t level = part ? part->level : 0;
    const bool none = level == 0 && (atomic_load(&lease->state) & LEASE_WHOLE);
    for (uint32_t i = 0; i < count; i++)
        if (none || !is_of_level(lease, part ? part->slots[i].root : i, level))
        {
            *index = i;
            return false;
        }
    return true;
}

DWORD
tunring_lease_enter(tunring_lease *lease, const tunring_part *part, uint32_t *index)
{
    DWORD code = begin(lease, operation(part));
    if (code != ERROR_SUCCESS)
        return code;
    if (!(atomic_load(&lease->state) & LEASE_OPENED) || all_of_level(lease, part, index))
        return ERROR_SUCCESS;
    finish(lease, operation(part));
    return ERROR_BUSY;
}

void
tunring_lease_leave(tunring_lease *lease, const tunring_part *part)
{
    finish(lease, operation(part));
}

/* Takes the first slots of a part back to their old level. */
static void
close_again(tunring_lease *lease, const tunring_part *part, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        atomic_fetch_sub(&lease->slots[part ? part->slots[i].root : i].holds, HOLDS_LEVEL);
}

/* True while nothing but this operation may read packets of the level. Those of one lease are not told apart. */
static bool
no_reader(const tunring_lease *lease, uint32_t level)
{
    const uint64_t state = atomic_load(&lease->state);
    return level == 0 ? !(state & LEASE_READERS) : (state & LEASE_OPENERS) == LEASE_OPENING;
}

/* Opens all slots of a lease of which nobody has held or opened one, or reads one now: `state` was 0. Whoever comes
 * from here on finds LEASE_WHOLE there, and leaves slots of level 0 alone; so their words are ours to write. */
static bool
open_whole(tunring_lease *lease)
{
    uint64_t untouched = 0;
    if (!atomic_compare_exchange_strong(&lease->state, &untouched, LEASE_WHOLE | LEASE_OPENED | LEASE_OPENING))
        return false;
    for (uint32_t i = 0; i < lease->count; i++)
        atomic_store_explicit(&lease->slots[i].holds, HOLDS_ONE + HOLDS_LEVEL, memory_order_relaxed);
    return true;
}

/* The same for slots that others may hold, one by one. */
static DWORD
open_each(tunring_lease *lease, const tunring_part *part, uint32_t *index)
{
    const uint32_t count = part ? part->count : lease->count;
    const uint32_t level = part ? part->level : 0;
    const uint32_t only_ours = HOLDS_ONE + level * HOLDS_LEVEL;
    *index = 0;
    DWORD code = begin(lease, LEASE_OPENING);
    if (code != ERROR_SUCCESS)
        return code;
    const uint64_t before = atomic_fetch_or(&lease->state, LEASE_HELD | LEASE_OPENED);
    if (count && level == 0 && (before & LEASE_WHOLE))
        code = ERROR_ALREADY_EXISTS;
    uint32_t i = 0;
    for (; i < count && code == ERROR_SUCCESS; i++)
    {
        const uint32_t root = part ? part->slots[i].root : i;
        uint32_t held = only_ours;
        if (atomic_compare_exchange_strong(&lease->slots[root].holds, &held, only_ours + HOLDS_LEVEL))
            continue;
        code = (held & HOLDS_LEVELS) / HOLDS_LEVEL == level ? ERROR_BUSY : ERROR_ALREADY_EXISTS;
        *index = i--;
    }
    if (code == ERROR_SUCCESS && !no_reader(lease, level))
    {
        code = ERROR_BUSY;
        *index = 0;
    }
    if (code == ERROR_SUCCESS)
        return code;
    close_again(lease, part, i);
    finish(lease, LEASE_OPENING);
    return code;
}

DWORD
tunring_lease_open(tunring_lease *lease, const tunring_part *part, uint32_t *index)
{
    if (part && part->level == HOLDS_LEVELS)
    {
        *index = 0;
        return ERROR_BUSY;
    }
    return !part && open_whole(lease) ? ERROR_SUCCESS : open_each(lease, part, index);
}

void
tunring_lease_opened(tunring_lease *lease)
{
    finish(lease, LEASE_OPENING);
}

void
tunring_lease_release(tunring_lease *lease)
{
    uint64_t state = atomic_fetch_or(&lease->state, LEASE_RELEASED);
    if (!(state & (LEASE_RELEASED | LEASE_OPERATIONS)) && !foreign(lease))
        return_all(lease, state & LEASE_HELD);
}

bool
tunring_lease_released(const tunring_lease *lease)
{
    return (atomic_load(&lease->state) & LEASE_RELEASED) != 0;
}

bool
tunring_lease_held(const tunring_lease *lease)
{
    for (uint32_t i = 0; i < lease->count; i++)
        if (atomic_load(&lease->slots[i].holds) >= 2 * HOLDS_ONE)
            return true;
    return false;
}

/* ---- The end of a reservation ---- */

/* Claims the first slots for sending, until one that somebody else holds. Returns how many. */
static uint32_t
claim_slots(tunring_lease *lease)
{
    for (uint32_t i = 0; i < lease->count; i++)
    {
        uint32_t only_ours = HOLDS_ONE;
        if (!atomic_compare_exchange_strong(&lease->slots[i].holds, &only_ours, 0))
            return i;
    }
    return lease->count;
}

static void
abandon(tunring_lease *lease, uint32_t claimed)
{
    return_slots(lease, 0, claimed);
    slots_gone(lease, claimed, 0);
    drop_holds(lease, claimed);
}

DWORD
tunring_lease_commit(tunring_lease *lease)
{
    tunring_session *session = session_of(lease->source);
    if (foreign(lease) || (atomic_fetch_or(&lease->state, LEASE_RELEASED) & LEASE_RELEASED))
        return ERROR_HANDLE_EOF;
    uint32_t claimed = claim_slots(lease);
    if (claimed < lease->count)
    {
        abandon(lease, claimed);
        return ERROR_BUSY;
    }
    if (source_closing(&session->source))
    {
        abandon(lease, claimed);
        return ERROR_HANDLE_EOF;
    }
    /* A close need not wait for this: the lease pins the session, and slots may be sent as long as they are out. */
    reservation_send(session, lease);
    slots_gone(lease, lease->count, lease->bytes);
    return ERROR_SUCCESS;
}

void
tunring_lease_free(tunring_lease *lease)
{
    if (!lease)
        return;
    if (lease->origins || lease->sizes)
    {
        free(lease->origins);
        free(lease->sizes);
        lease->origins = NULL;
        lease->sizes = NULL;
    }
    free(lease->room <= KEPT_ROOM ? atomic_exchange(&spare, lease) : lease);
}
