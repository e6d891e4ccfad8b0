/* SPDX-License-Identifier: MIT
 *
 * The region that holds a session's two rings.
 */
#include "backends/ring/poison.h"
#include "backends/ring/ring.h"

bool
ring_capacity_valid(DWORD capacity)
{
    return capacity >= WINTUN_MIN_RING_CAPACITY && capacity <= WINTUN_MAX_RING_CAPACITY &&
           (capacity & (capacity - 1)) == 0;
}

static size_t
ring_bytes(DWORD capacity)
{
    return sizeof(ring) + capacity + RING_SPILL;
}

static void
side_open(ring_side *side, void *memory, DWORD capacity)
{
    side->ring = memory;
    side->capacity = capacity;
    ring_lock_init(&side->lock);
    atomic_init(&side->next, 0);
    side->oldest = 0;
    side->outstanding = 0;
    poison(side->ring->data, capacity + RING_SPILL);
}

DWORD
ring_pair_open(ring_pair *pair, DWORD capacity)
{
    if (!ring_capacity_valid(capacity))
        return ERROR_INVALID_PARAMETER;
    pair->size = 2 * ring_bytes(capacity);
    pair->pages = os_pages_alloc(pair->size);
    if (!pair->pages)
        return ERROR_NOT_ENOUGH_MEMORY;
    side_open(&pair->receive, pair->pages, capacity);
    side_open(&pair->send, (uint8_t *)pair->pages + ring_bytes(capacity), capacity);
    return ERROR_SUCCESS;
}

void
ring_pair_close(ring_pair *pair)
{
    ring_lock_destroy(&pair->send.lock);
    ring_lock_destroy(&pair->receive.lock);
    /* Somebody else may get these addresses. */
    unpoison(pair->pages, pair->size);
    os_pages_free(pair->pages, pair->size);
    pair->pages = NULL;
}
