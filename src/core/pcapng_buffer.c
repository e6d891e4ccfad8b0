/* SPDX-License-Identifier: MIT
 *
 * pcapng_buffer.h.
 */
#include "core/pcapng_buffer.h"

#include "core/pcapng.h"

#include <stdlib.h>

bool
pcapng_buffer_open(pcapng_buffer *self)
{
    *self = (pcapng_buffer){.memory = malloc((size_t)PCAPNG_CHUNK * PCAPNG_CHUNKS)};
    if (!self->memory)
        return false;
    for (uint32_t i = 0; i < PCAPNG_CHUNKS; i++)
        self->chunks[i].data = self->memory + (size_t)i * PCAPNG_CHUNK;
    return true;
}

void
pcapng_buffer_close(pcapng_buffer *self)
{
    free(self->memory);
}

static pcapng_chunk *
filling(pcapng_buffer *self)
{
    return &self->chunks[self->full % PCAPNG_CHUNKS];
}

BYTE *
pcapng_buffer_room(pcapng_buffer *self, size_t size)
{
    const pcapng_chunk *chunk = filling(self);
    if (PCAPNG_CHUNK - chunk->filled < size)
    {
        if (self->full - self->returned == PCAPNG_CHUNKS - 1)
            return NULL;
        self->full++;
        chunk = filling(self);
    }
    return chunk->data + chunk->filled;
}

void
pcapng_buffer_add(pcapng_buffer *self, size_t size)
{
    filling(self)->filled += size;
}

bool
pcapng_buffer_is_empty(const pcapng_buffer *self)
{
    return !pcapng_buffer_has_full(self) && self->chunks[self->full % PCAPNG_CHUNKS].filled == 0;
}

pcapng_chunk *
pcapng_buffer_take(pcapng_buffer *self)
{
    if (pcapng_buffer_is_empty(self))
        return NULL;
    /* Without a full chunk, the one that is being filled. Nothing is taken, so there is another. */
    if (!pcapng_buffer_has_full(self))
        self->full++;
    return &self->chunks[self->taken++ % PCAPNG_CHUNKS];
}

void
pcapng_buffer_give_back(pcapng_buffer *self, pcapng_chunk *chunk)
{
    chunk->filled = 0;
    self->returned++;
}

uint64_t
pcapng_chunk_packets(const pcapng_chunk *self, size_t from)
{
    uint64_t packets = 0;
    for (size_t at = from; at < self->filled; at += pcapng_block_size(self->data + at))
        packets += pcapng_block_is_packet(self->data + at);
    return packets;
}

uint64_t
pcapng_buffer_discard(pcapng_buffer *self)
{
    uint64_t packets = 0;
    for (uint32_t i = self->taken; i - self->taken <= self->full - self->taken; i++)
    {
        pcapng_chunk *chunk = &self->chunks[i % PCAPNG_CHUNKS];
        packets += pcapng_chunk_packets(chunk, 0);
        chunk->filled = 0;
    }
    self->taken = self->full;
    return packets;
}

size_t
pcapng_chunk_whole(const pcapng_chunk *self, size_t end)
{
    size_t whole = 0;
    while (whole < end)
    {
        const size_t next = whole + pcapng_block_size(self->data + whole);
        if (next > end)
            break;
        whole = next;
    }
    return whole;
}
