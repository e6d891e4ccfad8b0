/* SPDX-License-Identifier: MIT
 *
 * Packets that wait for a key: copies, so that no ring's slot waits with them. A peer keeps a bounded number, and all
 * peers together a bounded size; the oldest give way.
 */
#include "wireguard/device.h"

#include <stdlib.h>

/* Bytes that an allocator adds to each allocation, and the multiple that it rounds up to. */
#define ALLOCATION_OVERHEAD 8u
#define ALLOCATION_STEP 16u

/* Memory that a packet takes while it waits, which for the smallest ones is more than they are long. */
static uint32_t
staged_size(uint32_t length)
{
    const uint32_t bytes = (uint32_t)sizeof(staged_packet) + length + ALLOCATION_OVERHEAD;
    return (bytes + ALLOCATION_STEP - 1) / ALLOCATION_STEP * ALLOCATION_STEP;
}

static void
free_one(tunring_wireguard *device, staged_packet *packet)
{
    atomic_fetch_sub_explicit(&device->counts.staged_bytes, staged_size(packet->length), memory_order_relaxed);
    free(packet);
}

/* Drops the peer's oldest. False if it has none. */
static bool
drop_oldest(tunring_wireguard_peer *peer)
{
    if (!peer->staged_count)
        return false;
    free_one(peer->device, peer->staged[peer->staged_first]);
    peer->staged_first = (peer->staged_first + 1) % TUNRING_WIREGUARD_STAGED;
    atomic_fetch_sub_explicit(&peer->staged_count, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&peer->device->counts.staged_dropped, 1, memory_order_relaxed);
    return true;
}

/* Counts the packet's memory in, unless that is too much together. A peer's only packet has room of its own if it is of
 * ordinary size: peers that nobody answers for must not take the room of one that was merely idle. */
static bool
take_room(tunring_wireguard_peer *peer, uint32_t length)
{
    const uint32_t bytes = staged_size(length);
    _Atomic uint64_t *total = &peer->device->counts.staged_bytes;
    const bool assured = !peer->staged_count && length <= TUNRING_WIREGUARD_STAGED_ASSURED;
    const uint64_t before = atomic_fetch_add_explicit(total, bytes, memory_order_relaxed);
    if (assured || before + bytes <= TUNRING_WIREGUARD_STAGED_BYTES)
        return true;
    atomic_fetch_sub_explicit(total, bytes, memory_order_relaxed);
    return false;
}

static bool
stage_one(tunring_wireguard_peer *peer, const tunring_packet *packet)
{
    tunring_wireguard *device = peer->device;
    if (peer->staged_count == TUNRING_WIREGUARD_STAGED)
        drop_oldest(peer);
    while (!take_room(peer, packet->length))
        if (!drop_oldest(peer))
            return false;
    staged_packet *copy = malloc(sizeof(*copy) + packet->length);
    if (!copy)
    {
        atomic_fetch_sub_explicit(&device->counts.staged_bytes, staged_size(packet->length), memory_order_relaxed);
        return false;
    }
    copy->length = packet->length;
    memcpy(copy->data, packet->data, packet->length);
    peer->staged[(peer->staged_first + peer->staged_count) % TUNRING_WIREGUARD_STAGED] = copy;
    atomic_fetch_add_explicit(&peer->staged_count, 1, memory_order_relaxed);
    return true;
}

void
peer_stage(tunring_wireguard_peer *peer, const tunring_packet *packets, uint32_t count)
{
    uint64_t dropped = 0;
    for (uint32_t i = 0; i < count; i++)
        dropped += !stage_one(peer, &packets[i]);
    if (dropped)
        atomic_fetch_add_explicit(&peer->device->counts.staged_dropped, dropped, memory_order_relaxed);
}

uint32_t
peer_unstage(tunring_wireguard_peer *peer, staged_packet **packets)
{
    const uint32_t count = peer->staged_count;
    for (uint32_t i = 0; i < count; i++)
        packets[i] = peer->staged[(peer->staged_first + i) % TUNRING_WIREGUARD_STAGED];
    atomic_store_explicit(&peer->staged_count, 0, memory_order_relaxed);
    peer->staged_first = 0;
    return count;
}

void
staged_free(tunring_wireguard *device, staged_packet **packets, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        free_one(device, packets[i]);
}
