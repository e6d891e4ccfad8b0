/* SPDX-License-Identifier: MIT
 *
 * Reading slots, of a whole batch or of a part of one, and choosing parts.
 */
#include "core/copy.h"
#include "tunring.h"

#include <stdlib.h>

void
tunring_slots_lengths(const tunring_slot *slots, uint32_t count, uint32_t *lengths)
{
    for (uint32_t i = 0; i < count; i++)
        lengths[i] = slots[i].length;
}

void
tunring_slots_offsets(const tunring_slot *slots, uint32_t count, uint32_t *offsets)
{
    uint32_t at = 0; /* a ring has at most 64 MiB */
    for (uint32_t i = 0; i < count; i++)
    {
        offsets[i] = at;
        at += slots[i].length;
    }
}

void
tunring_slots_pack(const tunring_slot *slots, uint32_t count, BYTE *buffer)
{
    for (uint32_t i = 0; i < count; i++)
    {
        copy_packet(buffer, slots[i].data, slots[i].length);
        buffer += slots[i].length;
    }
}

void
tunring_slots_headers(const tunring_slot *slots, uint32_t count, uint32_t size, BYTE *buffer)
{
    for (uint32_t i = 0; i < count; i++, buffer += size)
    {
        const uint32_t length = slots[i].length < size ? slots[i].length : size;
        copy_packet(buffer, slots[i].data, length);
        memset(buffer + length, 0, size - length);
    }
}

uint32_t
tunring_slots_packets(const tunring_slot *slots, uint32_t count, bool only_ip, tunring_packet *packets)
{
    uint32_t listed = 0;
    for (uint32_t i = 0; i < count; i++)
        if (!only_ip || tunring_packet_is_ip(slots[i].data, slots[i].length))
            packets[listed++] = (tunring_packet){slots[i].data, slots[i].length};
    return listed;
}

/* The last entry that begins at this slot or before. */
static uint32_t
find_origin(const tunring_origins *origins, uint32_t slot)
{
    uint32_t low = 0, high = origins->count;
    while (high - low > 1)
    {
        const uint32_t middle = low + (high - low) / 2;
        if (origins->list[middle].first <= slot)
            low = middle;
        else
            high = middle;
    }
    return low;
}

void
tunring_slots_origins(const tunring_lease *lease, const tunring_part *part, uint32_t *numbers)
{
    const tunring_origins *origins = lease->origins;
    const uint32_t count = part ? part->count : lease->count;
    uint32_t number = 0;
    for (uint32_t i = 0; i < count; i++)
    {
        const uint32_t slot = part ? part->slots[i].root : i;
        const bool here = origins->list[number].first <= slot &&
                          (number + 1 == origins->count || slot < origins->list[number + 1].first);
        if (!here)
            number = find_origin(origins, slot);
        numbers[i] = number;
    }
}

tunring_part *
tunring_part_new(uint32_t count, uint32_t level)
{
    tunring_part *part = malloc(sizeof(*part) + count * sizeof(part->slots[0]));
    if (!part)
        return NULL;
    part->level = level;
    part->count = 0;
    part->bytes = 0;
    return part;
}

static uint32_t
hash_key(int64_t key)
{
    uint64_t mixed = (uint64_t)key * 0x9E3779B97F4A7C15u;
    return (uint32_t)(mixed >> 32);
}

uint32_t
tunring_group(const int64_t *keys, uint32_t count, uint32_t *groups)
{
    uint32_t size = 16, found = 0;
    while (size < 2 * count)
        size *= 2;
    /* Each place holds a packet of its group plus one, so that zeroed memory is an empty table. */
    uint32_t *table = calloc(size, sizeof(*table));
    if (!table)
        return 0;
    for (uint32_t i = 0; i < count; i++)
    {
        uint32_t at = hash_key(keys[i]) & (size - 1);
        while (table[at] && keys[table[at] - 1] != keys[i])
            at = (at + 1) & (size - 1);
        if (!table[at])
        {
            table[at] = i + 1;
            groups[i] = found++;
        }
        else
            groups[i] = groups[table[at] - 1];
    }
    free(table);
    return found;
}
