/* SPDX-License-Identifier: MIT
 *
 * Slots on loan. A slot goes back at its last hold; the lease itself is one holder of each. `state` is one word:
 * LEASE_RELEASED once the owner is done, LEASE_HELD once anybody else has held a slot (until then a release needs no
 * atomic operation a slot), and the number of C operations in progress, during which a release has to wait its turn.
 */
#include "core/lease.h"

#include "core/copy.h"

#include <stdlib.h>
#include <string.h>

#define LEASE_RELEASED 1u
#define LEASE_HELD 2u
#define LEASE_OPERATION 4u

/* The table that was freed last, so that batch after batch goes through the same memory. The address sanitizer is to see
 * each one end; a test that lets malloc() fail asks for none too. */
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
    lease = malloc(sizeof(*lease) + room * sizeof(lease->slots[0]));
    if (lease)
        lease->room = room;
    return lease;
}

tunring_lease *
lease_new(uint32_t room)
{
    tunring_lease *lease = allocate(room);
    if (!lease)
        return NULL;
    lease->source = NULL;
    atomic_init(&lease->state, 0);
    atomic_init(&lease->left, 0);
    lease->reserved = false;
    lease->sealed = false;
    lease->generation = os_generation();
    lease->count = 0;
    lease->bytes = 0;
    lease->origins = NULL;
    return lease;
}

bool
lease_grow(tunring_lease **lease, uint32_t most)
{
    const uint32_t room = (*lease)->room;
    const uint32_t wanted = room > most / 2 ? most : room * 2;
    tunring_lease *grown = realloc(*lease, sizeof(*grown) + wanted * sizeof(grown->slots[0]));
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
        tunring_origins *grown = realloc(origins, sizeof(*grown) + room * sizeof(grown->list[0]));
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
        count_add(&source->counts.reservations, 1);
    else
    {
        count_add(&source->counts.pinned_packets, lease->count);
        count_add(&source->counts.pinned_bytes, lease->bytes);
    }
}

/* So many slots are the ring's again. With the last of them the lease lets go of its source. */
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
    if (atomic_fetch_sub(&lease->left, count) != count)
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
    return lease->generation != os_generation();
}

/* True if it was the last hold. */
static bool
drop_hold(tunring_lease *lease, uint32_t index)
{
    return atomic_fetch_sub(&lease->slots[index].holds, 1) == 1;
}

/* Drops the lease's own hold on the slots from `first` on. They go back in runs between those that are still held. */
static void
drop_holds(tunring_lease *lease, uint32_t first)
{
    uint32_t run = first;
    uint32_t gone = 0;
    uint64_t bytes = 0;
    for (uint32_t i = first; i < lease->count; i++)
    {
        if (drop_hold(lease, i))
        {
            gone++;
            bytes += lease->slots[i].length;
            continue;
        }
        return_slots(lease, run, i - run);
        run = i + 1;
    }
    return_slots(lease, run, lease->count - run);
    slots_gone(lease, gone, bytes);
}

/* Nobody but the lease has held a slot, and nobody can any more: tunring_lease_hold() has seen the release, or comes to. */
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

bool
tunring_lease_hold(tunring_lease *lease, uint32_t index)
{
    uint32_t state = atomic_load(&lease->state);
    if (!(state & (LEASE_HELD | LEASE_RELEASED)))
        state = atomic_fetch_or(&lease->state, LEASE_HELD);
    if (state & LEASE_RELEASED)
        return false;
    /* A release may have begun since: then it saw LEASE_HELD, and the count decides. */
    _Atomic uint32_t *holds = &lease->slots[index].holds;
    uint32_t held = atomic_load(holds);
    do
    {
        if (held == 0)
            return false;
    } while (!atomic_compare_exchange_weak(holds, &held, held + 1));
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

bool
tunring_lease_enter(tunring_lease *lease)
{
    uint32_t state = atomic_load(&lease->state);
    do
    {
        if (state & LEASE_RELEASED)
            return false;
    } while (!atomic_compare_exchange_weak(&lease->state, &state, state + LEASE_OPERATION));
    return true;
}

void
tunring_lease_leave(tunring_lease *lease)
{
    uint32_t state = atomic_fetch_sub(&lease->state, LEASE_OPERATION);
    if ((state & LEASE_RELEASED) && state < 2 * LEASE_OPERATION && !foreign(lease))
        return_all(lease, state & LEASE_HELD);
}

void
tunring_lease_release(tunring_lease *lease)
{
    uint32_t state = atomic_fetch_or(&lease->state, LEASE_RELEASED);
    if (!(state & LEASE_RELEASED) && state < LEASE_OPERATION && !foreign(lease))
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
        if (atomic_load(&lease->slots[i].holds) > 1)
            return true;
    return false;
}

/* Claims the first slots for sending, until one that somebody else holds. Returns how many. */
static uint32_t
claim_slots(tunring_lease *lease)
{
    for (uint32_t i = 0; i < lease->count; i++)
    {
        uint32_t only_ours = 1;
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
    if (!source_enter(&session->source))
    {
        abandon(lease, claimed);
        return ERROR_HANDLE_EOF;
    }
    /* Afterwards the slots are the host's. */
    session_capture *capture = &session->source.capture;
    if (session_captures(capture, TUNRING_SENT))
        session_capture_write(capture, TUNRING_SENT, os_wall_clock(), NULL, lease->slots, lease->count);
    /* The oldest last: it publishes them all. */
    for (uint32_t i = lease->count; i-- > 0;)
        session->api->WintunSendPacket(session->handle, lease->slots[i].data);
    wake_guard_note(&session->watch);
    count_add(&session->source.counts.sent_packets, lease->count);
    count_add(&session->source.counts.sent_bytes, lease->bytes);
    count_add(&session->source.counts.sent_batches, 1);
    source_leave(&session->source);
    slots_gone(lease, lease->count, lease->bytes);
    return ERROR_SUCCESS;
}

void
tunring_lease_free(tunring_lease *lease)
{
    if (lease)
    {
        free(lease->origins);
        lease->origins = NULL;
    }
    free(lease && lease->room <= KEPT_ROOM ? atomic_exchange(&spare, lease) : lease);
}

void
tunring_lease_lengths(const tunring_lease *lease, uint32_t *lengths)
{
    const uint32_t count = lease->count; /* which the compiler can't know to stay */
    for (uint32_t i = 0; i < count; i++)
        lengths[i] = lease->slots[i].length;
}

void
tunring_lease_offsets(const tunring_lease *lease, uint32_t *offsets)
{
    const uint32_t count = lease->count;
    uint32_t at = 0; /* a ring has at most 64 MiB */
    for (uint32_t i = 0; i < count; i++)
    {
        offsets[i] = at;
        at += lease->slots[i].length;
    }
}

void
tunring_lease_pack(const tunring_lease *lease, BYTE *buffer)
{
    for (uint32_t i = 0; i < lease->count; i++)
    {
        copy_packet(buffer, lease->slots[i].data, lease->slots[i].length);
        buffer += lease->slots[i].length;
    }
}

uint32_t
tunring_lease_packets(const tunring_lease *lease, tunring_packet *packets)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < lease->count; i++)
        if (tunring_packet_is_ip(lease->slots[i].data, lease->slots[i].length))
            packets[count++] = (tunring_packet){lease->slots[i].data, lease->slots[i].length};
    return count;
}
