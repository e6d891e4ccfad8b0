/* SPDX-License-Identifier: MIT
 *
 * How the core's own files make leases.
 */
#ifndef TUNRING_LEASE_H
#define TUNRING_LEASE_H

#include "core/session.h"

/* An empty lease with room for at least `slots` slots, or NULL. It belongs to no source yet. */
tunring_lease *lease_new(uint32_t room);
/* The same with the table of a lease whose slots are all gone, or NULL; that lease is used again or freed. */
tunring_lease *lease_again(tunring_lease *old, uint32_t room);
/* More room, up to twice as much and at most `max`. False if there is no memory: the lease is as it was. */
bool lease_grow(tunring_lease **lease, uint32_t max);

/* One hold in a slot's `holds`; below it is the slot's level, see lease.c. */
#define HOLDS_ONE 0x100u

/* Sets one slot. The caller counts: it sets `count` and `bytes`. */
static inline void
lease_fill(tunring_lease *lease, uint32_t index, BYTE *data, uint32_t length)
{
    tunring_slot *slot = &lease->slots[index];
    slot->data = data;
    slot->length = length;
    atomic_init(&slot->holds, HOLDS_ONE);
}

static inline void
lease_append(tunring_lease *lease, BYTE *data, uint32_t length)
{
    lease_fill(lease, lease->count++, data, length);
    lease->bytes += length;
}

/* Notes where the packets that will be appended next came from. False without memory. */
bool lease_add_origin(tunring_lease *lease, const tunring_endpoint *from, uint8_t ecn);

/* Leaves the first packets in the lease, which belongs to no source yet, and returns the others in one of their own.
 * NULL without memory: the lease is as it was. */
tunring_lease *lease_cut(tunring_lease *lease, uint32_t first);

/* Gives the filled lease to the source that the slots are of. The caller is in a call on it. One without slots pins
 * nothing. */
void lease_bind(tunring_lease *lease, tunring_source *source, bool reserved);

#endif
