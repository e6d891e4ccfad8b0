/* SPDX-License-Identifier: MIT
 *
 * Open addressing with linear probing. At most half of the places are taken; removing moves later entries up, so that
 * no search ever passes over places that were.
 */
#include "wireguard/index.h"

#include <stdlib.h>

#define SMALLEST 16u

void
index_close(index_table *table)
{
    free(table->entries);
    *table = (index_table){0};
}

/* Keys may be in sequence, or chosen by somebody else as far as they are only looked for. */
static uint32_t
home(const index_table *table, uint32_t key)
{
    return (uint32_t)((key * UINT64_C(0x9E3779B97F4A7C15)) >> 32) & (table->room - 1);
}

/* Where the key is, or the free place where it would be. */
static uint32_t
place_of(const index_table *table, uint32_t key)
{
    uint32_t at = home(table, key);
    while (table->entries[at].value && table->entries[at].key != key)
        at = (at + 1) & (table->room - 1);
    return at;
}

void *
index_find(const index_table *table, uint32_t key)
{
    return table->room ? table->entries[place_of(table, key)].value : NULL;
}

static bool
grow(index_table *table)
{
    const index_table old = *table;
    index_table larger = {.room = old.room ? old.room * 2 : SMALLEST, .count = old.count};
    larger.entries = calloc(larger.room, sizeof(*larger.entries));
    if (!larger.entries)
        return false;
    for (uint32_t i = 0; i < old.room; i++)
        if (old.entries[i].value)
            larger.entries[place_of(&larger, old.entries[i].key)] = old.entries[i];
    free(old.entries);
    *table = larger;
    return true;
}

bool
index_add(index_table *table, uint32_t key, void *value)
{
    if (table->count >= table->room / 2 && !grow(table))
        return false;
    table->entries[place_of(table, key)] = (index_entry){.value = value, .key = key};
    table->count++;
    return true;
}

void
index_remove(index_table *table, uint32_t key)
{
    if (!table->room)
        return;
    const uint32_t mask = table->room - 1;
    uint32_t hole = place_of(table, key);
    if (!table->entries[hole].value)
        return;
    for (uint32_t at = (hole + 1) & mask; table->entries[at].value; at = (at + 1) & mask)
    {
        /* An entry may fill the hole unless its home lies behind that. */
        if (((at - home(table, table->entries[at].key)) & mask) < ((at - hole) & mask))
            continue;
        table->entries[hole] = table->entries[at];
        hole = at;
    }
    table->entries[hole].value = NULL;
    table->count--;
}
