/* SPDX-License-Identifier: MIT
 *
 * The client half of the ring: what a program does through the ABI.
 */
#include "backends/ring/poison.h"
#include "backends/ring/ring.h"

/* The packet at an offset. */
static BYTE *
packet_at(const ring_side *side, uint32_t offset)
{
    return side->ring->data + offset + sizeof(uint32_t);
}

/* `offset` moved on by a packet of `size` bytes. */
static uint32_t
after(const ring_side *side, uint32_t offset, uint32_t size)
{
    return (offset + ring_slot_size(size)) & (side->capacity - 1);
}

POISON_UNCHECKED static uint32_t
load_size(const BYTE *packet)
{
    return atomic_load_explicit(ring_size_word(packet), memory_order_acquire);
}

BYTE *
ring_receive(ring_side *side, DWORD *size)
{
    uint32_t next = atomic_load_explicit(&side->next, memory_order_relaxed);
    uint32_t tail = atomic_load_explicit(&side->ring->tail, memory_order_acquire);
    if (tail >= side->capacity)
    {
        SetLastError(ERROR_HANDLE_EOF);
        return NULL;
    }
    if (tail == next)
    {
        SetLastError(ERROR_NO_MORE_ITEMS);
        return NULL;
    }
    uint32_t content = (tail - next) & (side->capacity - 1);
    BYTE *packet = packet_at(side, next);
    uint32_t length = content < sizeof(uint32_t) ? UINT32_MAX : load_size(packet);
    if (length > WINTUN_MAX_IP_PACKET_SIZE || ring_slot_size(length) > content)
    {
        SetLastError(ERROR_INVALID_DATA);
        return NULL;
    }
    unpoison(packet - sizeof(uint32_t), ring_slot_size(length));
    atomic_store_explicit(&side->next, after(side, next, length), memory_order_relaxed);
    side->outstanding++;
    *size = length;
    return packet;
}

uint32_t
ring_receive_many(ring_side *side, tunring_slot *slots, uint32_t count)
{
    uint32_t taken = 0;
    DWORD size;
    while (taken < count && (slots[taken].data = ring_receive(side, &size)))
        slots[taken++].length = size;
    return taken;
}

void
ring_mark_released(const BYTE *packet)
{
    _Atomic uint32_t *word = ring_size_word(packet);
    uint32_t size = atomic_load_explicit(word, memory_order_relaxed);
    /* Before the mark, after which the host may fill the slot anew. */
    if ((size & RING_FLAG) == 0)
        poison(packet, size);
    atomic_store_explicit(word, size | RING_FLAG, memory_order_release);
}

bool
ring_reclaim(ring_side *side)
{
    uint32_t before = side->outstanding;
    while (side->outstanding > 0)
    {
        uint32_t size = load_size(packet_at(side, side->oldest));
        if ((size & RING_FLAG) == 0)
            break;
        side->oldest = after(side, side->oldest, size & ~RING_FLAG);
        side->outstanding--;
    }
    if (side->outstanding == before)
        return false;
    atomic_store_explicit(&side->ring->head, side->oldest, memory_order_release);
    return true;
}

bool
ring_readable(ring_side *side)
{
    uint32_t tail = atomic_load_explicit(&side->ring->tail, memory_order_acquire);
    return tail >= side->capacity || tail != atomic_load_explicit(&side->next, memory_order_relaxed);
}

BYTE *
ring_allocate(ring_side *side, DWORD size)
{
    uint32_t next = atomic_load_explicit(&side->next, memory_order_relaxed);
    uint32_t head = atomic_load_explicit(&side->ring->head, memory_order_acquire);
    if (size > WINTUN_MAX_IP_PACKET_SIZE)
    {
        SetLastError(ERROR_INVALID_PARAMETER);
        return NULL;
    }
    if (head >= side->capacity)
    {
        SetLastError(ERROR_HANDLE_EOF);
        return NULL;
    }
    if (ring_slot_size(size) > ((head - next - RING_ALIGNMENT) & (side->capacity - 1)))
    {
        SetLastError(ERROR_BUFFER_OVERFLOW);
        return NULL;
    }
    BYTE *packet = packet_at(side, next);
    unpoison(packet - sizeof(uint32_t), ring_slot_size(size));
    atomic_store_explicit(ring_size_word(packet), size | RING_FLAG, memory_order_relaxed);
    atomic_store_explicit(&side->next, after(side, next, size), memory_order_relaxed);
    side->outstanding++;
    return packet;
}

void
ring_shorten(const BYTE *packet, uint32_t size)
{
    _Atomic uint32_t *word = ring_size_word(packet);
    const uint32_t slot = ring_word_slot_size(atomic_load_explicit(word, memory_order_relaxed) & ~RING_FLAG);
    const uint32_t unused = (slot - ring_slot_size(size)) / RING_ALIGNMENT;
    const uint32_t mark = unused ? RING_SHORTER | unused << RING_UNUSED_SHIFT : 0;
    atomic_store_explicit(word, RING_FLAG | mark | size, memory_order_relaxed);
}

void
ring_mark_ready(const BYTE *packet)
{
    _Atomic uint32_t *word = ring_size_word(packet);
    uint32_t size = atomic_load_explicit(word, memory_order_relaxed);
    /* Before the mark, after which the host may read the slot. */
    if ((size & RING_FLAG) != 0)
        poison(packet, ring_word_slot_size(size & ~RING_FLAG) - sizeof(uint32_t));
    atomic_store_explicit(word, size & ~RING_FLAG, memory_order_release);
}

ring_published
ring_publish(ring_side *side)
{
    uint32_t before = side->outstanding;
    while (side->outstanding > 0)
    {
        const uint32_t word = load_size(packet_at(side, side->oldest));
        uint32_t slot = ring_slot_size(word);
        if (word > WINTUN_MAX_IP_PACKET_SIZE)
        {
            if ((word & RING_FLAG) != 0)
                break;
            slot = ring_word_slot_size(word);
        }
        side->oldest = (side->oldest + slot) & (side->capacity - 1);
        side->outstanding--;
    }
    if (side->outstanding == before)
        return RING_NOTHING;
    /* The host sets `alertable` and then reads the tail, with a full barrier between; so must we, the other way round.
     * An exchange is one that the thread sanitizer understands. */
    atomic_exchange(&side->ring->tail, side->oldest);
    return atomic_load(&side->ring->alertable) != 0 ? RING_WAKE : RING_MORE;
}

uint32_t
ring_room(ring_side *side)
{
    uint32_t next = atomic_load_explicit(&side->next, memory_order_relaxed);
    uint32_t head = atomic_load_explicit(&side->ring->head, memory_order_acquire);
    return head >= side->capacity ? RING_GONE : (head - next - RING_ALIGNMENT) & (side->capacity - 1);
}
