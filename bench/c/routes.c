/* SPDX-License-Identifier: MIT
 *
 * Measures what it costs to look up the destinations of packets in a table of prefixes.
 *
 *     routes VERSION PREFIXES PACKETS BATCH ROUNDS
 *
 * Prefixes are random, of /8 to /32 or of /32 to /128 below 2000::/3. The packets' destinations are random in three
 * ways, one after the other: anywhere, inside prefixes, and all those of one batch inside 50 prefixes. It prints
 * nanoseconds per packet, one median of the rounds for each of the three, and nanoseconds per prefix that was added.
 */
#include "tunring_routes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Nanoseconds of this thread's processor time: nothing here waits, and the machine may have other work. */
static int64_t
used(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

#define HEADER 40u
#define FEW 50u

static uint64_t state = 88172645463325252u;

static uint32_t
random32(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32);
}

static void
random_bits(BYTE *address, unsigned first, unsigned end)
{
    for (unsigned bit = first; bit < end; bit++)
        if (random32() & 1)
            address[bit / 8] ^= (BYTE)(0x80u >> bit % 8);
}

static void
random_prefix(tunring_prefix *prefix, unsigned version)
{
    memset(prefix, 0, sizeof(*prefix));
    prefix->version = (uint8_t)version;
    prefix->length = (uint8_t)(version == 4 ? 8 + random32() % 25 : 32 + random32() % 97);
    random_bits(prefix->address, version == 4 ? 0 : 3, prefix->length);
    if (version == 6)
        prefix->address[0] |= 0x20;
}

static int
compare(const void *one, const void *other)
{
    const double left = *(const double *)one, right = *(const double *)other;
    return left < right ? -1 : left > right;
}

int
main(int count, char **words)
{
    if (count != 6)
        return 2;
    const unsigned version = (unsigned)atoi(words[1]), offset = version == 4 ? 16 : 24, bits = version == 4 ? 32 : 128;
    const uint32_t prefixes = (uint32_t)atoi(words[2]), packets = (uint32_t)atoi(words[3]);
    const uint32_t batch = (uint32_t)atoi(words[4]);
    const int rounds = atoi(words[5]);
    tunring_route *routes = calloc(prefixes, sizeof(*routes));
    BYTE *memory = calloc(packets, HEADER);
    tunring_packet *list = calloc(packets, sizeof(*list));
    int32_t *values = calloc(packets, sizeof(*values));
    double *taken = calloc((size_t)rounds, sizeof(*taken));
    tunring_routes *table = tunring_routes_new();
    if (!routes || !memory || !list || !values || !taken || !table)
        return 1;
    for (uint32_t i = 0; i < prefixes; i++)
    {
        random_prefix(&routes[i].prefix, version);
        routes[i].value = (int32_t)i;
    }
    int64_t began = used();
    uint32_t done;
    if (tunring_routes_set(table, routes, prefixes, &done) != ERROR_SUCCESS)
        return 1;
    const double adding = (double)(used() - began) / prefixes;
    for (int way = 0; way < 3; way++)
    {
        for (uint32_t i = 0; i < packets; i++)
        {
            BYTE *packet = memory + (size_t)i * HEADER;
            memset(packet, 0, HEADER);
            packet[0] = version == 4 ? 0x45 : 0x60;
            list[i] = (tunring_packet){packet, HEADER};
            unsigned fixed = version == 4 ? 0 : 3;
            packet[offset] = version == 4 ? 0 : 0x20;
            if (way > 0)
            {
                const tunring_prefix *inside = &routes[random32() % (way == 1 ? prefixes : FEW)].prefix;
                memcpy(packet + offset, inside->address, bits / 8);
                fixed = inside->length;
            }
            random_bits(packet + offset, fixed, bits);
        }
        for (int round = 0; round < rounds; round++)
        {
            began = used();
            for (uint32_t i = 0; i < packets; i += batch)
                tunring_routes_lookup_packets(table, list + i, packets - i < batch ? packets - i : batch, false,
                                              values + i);
            taken[round] = (double)(used() - began) / packets;
        }
        qsort(taken, (size_t)rounds, sizeof(*taken), compare);
        printf("%.2f\n", taken[rounds / 2]);
    }
    printf("%.0f\n", adding);
    tunring_routes_free(table);
    free(routes), free(memory), free(list), free(values), free(taken);
    return 0;
}
