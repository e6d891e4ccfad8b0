/* SPDX-License-Identifier: MIT
 *
 * Memory for tables whose length the caller of the library chooses: a product that address space can't hold is no
 * memory, where a mere multiplication of 32 bits would wrap.
 */
#ifndef TUNRING_TABLE_H
#define TUNRING_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* False if the bytes of a header and `count` entries are more than a size_t holds. */
static inline bool
table_fits(size_t header, size_t count, size_t entry)
{
    return count <= (SIZE_MAX - header) / entry;
}

/* NULL without memory. free() frees it. */
static inline void *
table_alloc(size_t header, size_t count, size_t entry)
{
    return table_fits(header, count, entry) ? malloc(header + count * entry) : NULL;
}

/* The same in place of another table, which stays as it is on failure; NULL is none. */
static inline void *
table_realloc(void *table, size_t header, size_t count, size_t entry)
{
    return table_fits(header, count, entry) ? realloc(table, header + count * entry) : NULL;
}

#endif
