/* SPDX-License-Identifier: MIT
 *
 * Blocks on their way to a pcapng file: a ring of chunks, one of which is being filled. They are used in turn, rather
 * than the newest first, so that a chunk has left the cache of the processor that wrote it to the file before another
 * one fills it again: memory is faster than the other's cache. The caller locks.
 */
#ifndef TUNRING_PCAPNG_BUFFER_H
#define TUNRING_PCAPNG_BUFFER_H

#include "wintun.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of a chunk, which is also what the file gets at once; and chunks: some milliseconds of a fast session. */
#define PCAPNG_CHUNK 0x100000u
#define PCAPNG_CHUNKS 16u

typedef struct pcapng_chunk
{
    BYTE *data;
    size_t filled; /* bytes of its blocks */
} pcapng_chunk;

typedef struct pcapng_buffer
{
    BYTE *memory;
    pcapng_chunk chunks[PCAPNG_CHUNKS];
    /* Chunks so far: given back, taken, and full. The next one of the last is being filled. */
    uint32_t returned, taken, full;
} pcapng_buffer;

/* False if there is no memory. */
bool pcapng_buffer_open(pcapng_buffer *self);
void pcapng_buffer_close(pcapng_buffer *self);

/* Where a block of at most that size may be written, or NULL; and the size that it really has. */
BYTE *pcapng_buffer_room(pcapng_buffer *self, size_t size);
void pcapng_buffer_add(pcapng_buffer *self, size_t size);

/* Full chunks wait to be taken. */
static inline bool
pcapng_buffer_has_full(const pcapng_buffer *self)
{
    return self->full != self->taken;
}

static inline bool
pcapng_buffer_is_half_full(const pcapng_buffer *self)
{
    return self->full - self->returned >= PCAPNG_CHUNKS / 2;
}

bool pcapng_buffer_is_empty(const pcapng_buffer *self);
/* The oldest blocks, for the caller to write and to give back before taking the next; NULL if there are none. */
pcapng_chunk *pcapng_buffer_take(pcapng_buffer *self);
void pcapng_buffer_give_back(pcapng_buffer *self, pcapng_chunk *chunk);

/* Empties it for good, except for blocks that are taken. Returns the number of packets lost. */
uint64_t pcapng_buffer_discard(pcapng_buffer *self);

/* Packets among the blocks of a chunk from there on. */
uint64_t pcapng_chunk_packets(const pcapng_chunk *self, size_t from);
/* Where the first block of a chunk begins that doesn't end before `end`. */
size_t pcapng_chunk_whole(const pcapng_chunk *self, size_t end);

#endif
