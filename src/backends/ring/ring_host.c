/* SPDX-License-Identifier: MIT
 *
 * The host half of the ring: what the driver does.
 */
#include "backends/ring/poison.h"
#include "backends/ring/ring.h"

#include <string.h>

static bool
offset_valid(const ring_side *side, uint32_t offset)
{
    return offset < side->capacity && offset % RING_ALIGNMENT == 0;
}

/* Bytes of S that can be filled from `at` on. */
static uint32_t
room_at(const ring_side *side, uint32_t at)
{
    uint32_t head = atomic_load_explicit(&side->ring->head, memory_order_acquire);
    if (!offset_valid(side, at) || head >= side->capacity)
        return 0;
    return (head - at - RING_ALIGNMENT) & (side->capacity - 1);
}

uint32_t
ring_host_tail(const ring_side *side)
{
    return atomic_load_explicit(&side->ring->tail, memory_order_relaxed);
}

uint32_t
ring_host_room(const ring_side *side)
{
    return room_at(side, ring_host_tail(side));
}

BYTE *
ring_host_place(const ring_side *side, uint32_t at, uint32_t size)
{
    if (size > WINTUN_MAX_IP_PACKET_SIZE || ring_slot_size(size) > room_at(side, at))
        return NULL;
    unpoison(side->ring->data + at, ring_slot_size(size));
    return side->ring->data + at + sizeof(uint32_t);
}

uint32_t
ring_host_fill(const ring_side *side, uint32_t at, uint32_t size)
{
    BYTE *packet = side->ring->data + at + sizeof(uint32_t);
    atomic_store_explicit(ring_size_word(packet), size, memory_order_relaxed);
    return (at + ring_slot_size(size)) & (side->capacity - 1);
}

void
ring_host_show(ring_side *side, uint32_t at)
{
    uint32_t room = room_at(side, at);
    uint32_t largest = ring_slot_size(WINTUN_MAX_IP_PACKET_SIZE);
    /* The last place may have been larger than what was filled. */
    poison(side->ring->data + at, room < largest ? room : largest);
    atomic_store_explicit(&side->ring->tail, at, memory_order_release);
}

bool
ring_host_put_chain(ring_side *side, const tunring_packet *chain, uint32_t count)
{
    uint32_t at = ring_host_tail(side);
    uint64_t needed = 0;
    for (uint32_t i = 0; i < count; i++)
        needed += chain[i].length > WINTUN_MAX_IP_PACKET_SIZE ? 0 : ring_slot_size(chain[i].length);
    if (!offset_valid(side, at) || needed > room_at(side, at))
        return false;
    for (uint32_t i = 0; i < count; i++)
    {
        BYTE *place = ring_host_place(side, at, chain[i].length);
        if (!place)
            continue; /* too large */
        if (!chain[i].data)
            memset(place, 0, chain[i].length);
        else
            memcpy(place, chain[i].data, chain[i].length);
        at = ring_host_fill(side, at, chain[i].length);
    }
    ring_host_show(side, at);
    return true;
}

void
ring_host_rewind(ring_side *side)
{
    uint32_t next = atomic_load_explicit(&side->next, memory_order_relaxed);
    /* The client's packets lie between `next` and the head (S) or the tail (R). */
    if (next == 0 || atomic_load_explicit(&side->ring->head, memory_order_acquire) != next ||
        atomic_load_explicit(&side->ring->tail, memory_order_acquire) != next)
    {
        return;
    }
    atomic_store_explicit(&side->next, 0, memory_order_relaxed);
    side->oldest = 0;
    atomic_store_explicit(&side->ring->head, 0, memory_order_release);
    atomic_store_explicit(&side->ring->tail, 0, memory_order_release);
}

POISON_UNCHECKED static uint32_t
size_word_at(const ring_side *side, uint32_t offset)
{
    const BYTE *packet = side->ring->data + offset + sizeof(uint32_t);
    return atomic_load_explicit(ring_size_word(packet), memory_order_relaxed);
}

/* The bytes of the slot at a valid offset, and the size of its packet; 0 if there can be none. */
static uint32_t
slot_at(const ring_side *side, uint32_t head, uint32_t tail, uint32_t *size)
{
    const uint32_t content = (tail - head) & (side->capacity - 1);
    if (content < sizeof(uint32_t))
        return 0;
    const uint32_t word = size_word_at(side, head);
    uint32_t slot = ring_slot_size(word);
    if (word > WINTUN_MAX_IP_PACKET_SIZE)
    {
        if ((word & (RING_FLAG | RING_SHORTER)) != RING_SHORTER)
            return 0;
        slot = ring_word_slot_size(word);
    }
    *size = word & RING_SIZE_MASK;
    return slot > content ? 0 : slot;
}

uint32_t
ring_host_head(const ring_side *side)
{
    return atomic_load_explicit(&side->ring->head, memory_order_relaxed);
}

DWORD
ring_host_next(ring_side *side, uint32_t *at, const BYTE **packet, uint32_t *size)
{
    uint32_t offset = *at;
    uint32_t tail = atomic_load_explicit(&side->ring->tail, memory_order_acquire);
    uint32_t slot = 0;
    if (offset == RING_GONE)
        return ERROR_HANDLE_EOF;
    if (offset == tail)
        return ERROR_NO_MORE_ITEMS;
    if (offset_valid(side, offset) && tail < side->capacity)
        slot = slot_at(side, offset, tail, size);
    if (!slot)
    {
        ring_host_end_send(side);
        return ERROR_INVALID_DATA;
    }
    unpoison(side->ring->data + offset, ring_slot_size(*size));
    *packet = side->ring->data + offset + sizeof(uint32_t);
    *at = (offset + slot) & (side->capacity - 1);
    return ERROR_SUCCESS;
}

DWORD
ring_host_peek(ring_side *side, const BYTE **packet, uint32_t *size)
{
    uint32_t at = ring_host_head(side);
    return ring_host_next(side, &at, packet, size);
}

void
ring_host_take(ring_side *side, uint32_t size)
{
    const uint32_t head = ring_host_head(side);
    ring_host_take_to(side, size, (head + ring_word_slot_size(size_word_at(side, head))) & (side->capacity - 1));
}

void
ring_host_take_to(ring_side *side, uint32_t size, uint32_t at)
{
    poison(side->ring->data + ring_host_head(side) + sizeof(uint32_t), size);
    atomic_store_explicit(&side->ring->head, at, memory_order_release);
}

void
ring_host_end_receive(ring_side *side)
{
    atomic_exchange(&side->ring->tail, RING_GONE);
}

void
ring_host_end_send(ring_side *side)
{
    atomic_exchange(&side->ring->head, RING_GONE);
}
