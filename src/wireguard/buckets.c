/* SPDX-License-Identifier: MIT
 *
 * A source that has no bucket takes the one of its set that was used the longest time ago: with more sources than
 * buckets, all of which must have shown by a cookie that they receive at their address, some get more than their
 * share.
 */
#include "wireguard/buckets.h"

#define COST (INT64_C(1000000000) / 20)
#define FULL (5 * COST)

static uint64_t
source_of(const uint8_t *host)
{
    uint64_t source = 0;
    const unsigned from = tunring_endpoint_is_ipv4(host) ? 8 : 0; /* mapped: ffff and the address */
    for (unsigned i = 0; i < 8; i++)
        source = source << 8 | host[from + i];
    return source;
}

static bucket *
find(buckets *self, uint64_t source)
{
    bucket *set = self->sets[((source ^ self->seed) * UINT64_C(0x9E3779B97F4A7C15)) >> 55];
    bucket *oldest = set;
    for (unsigned i = 0; i < BUCKETS_WAYS; i++)
    {
        if (set[i].last && set[i].source == source)
            return &set[i];
        if (set[i].last < oldest->last)
            oldest = &set[i];
    }
    *oldest = (bucket){.source = source, .tokens = FULL};
    return oldest;
}

bool
buckets_take(buckets *self, const uint8_t *host, int64_t now)
{
    bucket *found = find(self, source_of(host));
    if (found->last)
        found->tokens += now - found->last;
    if (found->tokens > FULL)
        found->tokens = FULL;
    found->last = now;
    if (found->tokens < COST)
        return false;
    found->tokens -= COST;
    return true;
}
