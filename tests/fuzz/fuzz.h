/* SPDX-License-Identifier: MIT
 *
 * Shared by the fuzz targets.
 */
#ifndef TUNRING_FUZZ_H
#define TUNRING_FUZZ_H

#include "wintun.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* The fuzzer keeps the input that gets here. */
#define REQUIRE(condition) \
    do                     \
    {                      \
        if (!(condition))  \
            abort();       \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Memory that ends with the bytes, so that ASan sees any access beyond them. */
static inline BYTE *
exact_copy(const uint8_t *bytes, size_t length)
{
    BYTE *copy = malloc(length ? length : 1);
    REQUIRE(copy);
    if (length)
        memcpy(copy, bytes, length);
    return copy;
}

/* The checksum's sum, word by word. */
static inline uint32_t
add_words(const BYTE *bytes, size_t length, uint32_t sum)
{
    for (size_t i = 0; i < length; i++)
        sum += i % 2 ? bytes[i] : (uint32_t)bytes[i] << 8;
    while (sum >> 16)
        sum = (sum & 0xFFFF) + (sum >> 16);
    return sum;
}

#endif
