/* SPDX-License-Identifier: MIT
 *
 * Macros that every C test uses.
 */
#ifndef TUNRING_CHECK_H
#define TUNRING_CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                            \
    do                                                                              \
    {                                                                               \
        if (!(condition))                                                           \
        {                                                                           \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                                \
        }                                                                           \
    } while (0)

/* The same for two integers, which it shows. */
#define CHECK_EQUAL(left, right)                                                                              \
    do                                                                                                        \
    {                                                                                                         \
        long long left_value = (long long)(left), right_value = (long long)(right);                           \
        if (left_value != right_value)                                                                        \
        {                                                                                                     \
            fprintf(stderr, "%s:%d: %s is %lld, %s is %lld\n", __FILE__, __LINE__, #left, left_value, #right, \
                    right_value);                                                                             \
            exit(1);                                                                                          \
        }                                                                                                     \
    } while (0)

/* A small generator of random numbers, the same everywhere. The state must not be 0. */
static inline uint32_t
check_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (uint32_t)(*state >> 32);
}

#endif
