/* SPDX-License-Identifier: MIT
 *
 * Token buckets by source, in a table of fixed size: 20 messages per second, 5 of them at once.
 */
#ifndef TUNRING_WIREGUARD_BUCKETS_H
#define TUNRING_WIREGUARD_BUCKETS_H

#include "tunring_endpoint.h"

#include <stdbool.h>
#include <stdint.h>

#define BUCKETS_SETS 512u
#define BUCKETS_WAYS 8u

typedef struct bucket
{
    uint64_t source; /* an IPv4 address, or the first half of an IPv6 one */
    int64_t last;    /* message; 0: the bucket is free */
    int64_t tokens;  /* in nanoseconds */
} bucket;

typedef struct buckets
{
    uint64_t seed; /* so that nobody knows which sources share a set */
    bucket sets[BUCKETS_SETS][BUCKETS_WAYS];
} buckets;

/* True if another message of this host may pass. `now` is more than 0 and doesn't run backwards. */
bool buckets_take(buckets *self, const uint8_t *host, int64_t now);

#endif
