/* SPDX-License-Identifier: MIT
 *
 * Reading slots, of a whole batch or of a part of one, and choosing parts.
 */
#include "core/copy.h"
#include "core/table.h"
#include "platform/os.h"
#include "tunring.h"

#include <stdlib.h>

void
tunring_slots_lengths(const tunring_slot *slots, uint32_t count, uint32_t *lengths)
{
    for (uint32_t i = 0; i < count; i++)
        lengths[i] = slots[i].length;
}

bool
tunring_slots_offsets(const tunring_slot *slots, uint32_t count, uint32_t *offsets)
{
    /* A ring has at most 64 MiB, but sealed batches are as large as memory. */
    uint64_t at = 0;
    for (uint32_t i = 0; i < count && at <= UINT32_MAX; i++)
    {
        offsets[i] = (uint32_t)at;
        at += slots[i].length;
    }
    return at <= UINT32_MAX;
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
    tunring_part *part = table_alloc(sizeof(*part), count, sizeof(part->slots[0]));
    if (!part)
        return NULL;
    part->level = level;
    part->count = 0;
    part->bytes = 0;
    return part;
}

/* A table of groups. A place holds a packet of its group plus one, so that zeroed memory is an empty table. */
typedef struct groups_table
{
    uint32_t *places;
    uint32_t last;   /* place */
    unsigned shift;  /* that leaves a place's number of a hash */
    uint64_t factor; /* odd, and unknown to those who send packets whose keys are to collide */
} groups_table;

static bool
open_table(groups_table *table, uint32_t count)
{
    unsigned bits = 4;
    if (count > UINT32_MAX / 4)
        return false;
    while ((uint64_t)1 << bits < 2 * (uint64_t)count)
        bits++;
    table->last = (uint32_t)(((uint64_t)1 << bits) - 1);
    table->shift = 64 - bits;
    table->places = calloc((size_t)1 << bits, sizeof(*table->places));
    table->factor = (((uintptr_t)table->places ^ (uint64_t)os_now()) * 0x9E3779B97F4A7C15u) | 1;
    return table->places != NULL;
}

/* The packet belongs to the group at this place; it begins one if the place is empty. */
static void
enter_group(groups_table *table, uint32_t place, uint32_t packet, uint32_t *groups, uint32_t *found)
{
    if (table->places[place])
    {
        groups[packet] = groups[table->places[place] - 1];
        return;
    }
    table->places[place] = packet + 1;
    groups[packet] = (*found)++;
}

uint32_t
tunring_group(const int64_t *keys, uint32_t count, uint32_t *groups)
{
    uint32_t found = 0;
    groups_table table;
    if (!open_table(&table, count))
        return 0;
    for (uint32_t i = 0; i < count; i++)
    {
        uint32_t at = (uint32_t)((uint64_t)keys[i] * table.factor >> table.shift);
        while (table.places[at] && keys[table.places[at] - 1] != keys[i])
            at = (at + 1) & table.last;
        enter_group(&table, at, i, groups, &found);
    }
    free(table.places);
    return found;
}

static uint64_t
hash_row(const BYTE *row, size_t width, uint64_t factor)
{
    uint64_t hash = 0;
    for (size_t at = 0; at < width; at += sizeof(uint64_t))
    {
        uint64_t word = 0;
        memcpy(&word, row + at, width - at < sizeof(word) ? width - at : sizeof(word));
        hash = (hash ^ hash >> 32 ^ word) * factor;
    }
    return hash;
}

uint32_t
tunring_group_rows(const BYTE *rows, size_t width, uint32_t count, uint32_t *groups)
{
    uint32_t found = 0;
    groups_table table;
    if (!open_table(&table, count))
        return 0;
    for (uint32_t i = 0; i < count; i++)
    {
        const BYTE *row = rows + i * width;
        uint32_t at = (uint32_t)(hash_row(row, width, table.factor) >> table.shift);
        while (table.places[at] && memcmp(rows + (table.places[at] - 1) * width, row, width) != 0)
            at = (at + 1) & table.last;
        enter_group(&table, at, i, groups, &found);
    }
    free(table.places);
    return found;
}
