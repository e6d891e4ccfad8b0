/* SPDX-License-Identifier: MIT
 *
 * A table from 32-bit numbers to pointers. The caller holds a lock.
 */
#ifndef TUNRING_WIREGUARD_INDEX_H
#define TUNRING_WIREGUARD_INDEX_H

#include <stdbool.h>
#include <stdint.h>

typedef struct index_entry
{
    void *value; /* NULL: the place is free */
    uint32_t key;
} index_entry;

/* All zeros: empty. */
typedef struct index_table
{
    index_entry *entries;
    uint32_t room; /* a power of two, or 0 */
    uint32_t count;
} index_table;

void index_close(index_table *table);
/* NULL if there is none. */
void *index_find(const index_table *table, uint32_t key);
/* The key must be new. False without memory. */
bool index_add(index_table *table, uint32_t key, void *value);
void index_remove(index_table *table, uint32_t key);

#endif
