/* SPDX-License-Identifier: MIT
 *
 * The cost of the offloads per packet, beside a memcpy of the same bytes in the same run: the ratio is what to compare.
 *
 *     cc -std=c11 -D_GNU_SOURCE -O2 $(python3 sources.py include) -Itests/c bench/c/offload.c \
 *         $(python3 sources.py linux offloads) -o build/bench-offload && build/bench-offload
 *
 * Superpackets are as large as they come; the packets go to and come from a ring's memory, one after the other.
 */
#include "backends/tun_linux/offload_coalesce.h"
#include "offload_packets.h"
#include "backends/tun_linux/offload_split.h"

#include <time.h>

#define ROUNDS 400
#define REPEATS 15
#define ARENA (256u << 10)

typedef struct work
{
    BYTE whole[66000];
    uint32_t length;
    virtio_header virtio;
    BYTE arena[ARENA + 66000]; /* the packets, as in a ring: each behind 4 bytes and at a multiple of 4 */
    tunring_packet packets[4000];
    uint32_t count;
    uint32_t size;
    uint32_t at;
} work;

static work job;
static offload_run run;
static offload_frame frame;

static double
now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static BYTE *
next_place(uint32_t size)
{
    BYTE *place = job.arena + job.at + 4;
    job.at = (job.at + size + 7) & ~3u;
    if (job.at >= ARENA)
        job.at = 0;
    return place;
}

static void
split_all(void)
{
    offload_split split;
    CHECK(offload_split_begin(&split, &job.virtio, job.whole, job.length));
    job.count = 0;
    for (uint32_t size; (size = offload_split_next(&split)) > 0;)
    {
        BYTE *place = next_place(size);
        offload_split_write(&split, place);
        job.packets[job.count++] = (tunring_packet){place, size};
    }
}

static void
copy_all(void)
{
    for (uint32_t i = 0, at = 0; i < job.count; i++)
    {
        const uint32_t size = job.packets[i].length;
        memcpy(next_place(size), job.whole + at, size);
        at = at + 2 * size < sizeof(job.whole) ? at + size : 0;
    }
}

/* Takes the packets that are there, as many as one run takes, without the write. */
static void
coalesce_all(void)
{
    for (uint32_t i = 0; i < job.count; i += OFFLOAD_RUN)
    {
        const uint32_t count = job.count - i < OFFLOAD_RUN ? job.count - i : OFFLOAD_RUN;
        offload_coalesce(&run, job.packets + i, count, OFFLOAD_TSO4 | OFFLOAD_TSO6 | OFFLOAD_USO);
        for (uint32_t g = 0; g < run.group_count; g++)
            offload_group_frame(&run, &run.groups[g], &frame);
    }
}

/* The best of some repeats, in nanoseconds per packet. */
static double
measure(void (*function)(void))
{
    double best = 1e18;
    for (int repeat = 0; repeat < REPEATS; repeat++)
    {
        const double start = now();
        for (int round = 0; round < ROUNDS; round++)
            function();
        const double time = (now() - start) / ROUNDS / job.count;
        best = time < best ? time : best;
    }
    return best;
}

static void
report(uint8_t version, uint8_t protocol, uint32_t size)
{
    shape super = plain(version, protocol, 0);
    super.tcp_options = protocol == TCP && size > 100 ? 12 : 0;
    const uint32_t headers = headers_of(&super), segment = size - headers;
    const uint32_t max = (65535 - headers) / segment;
    super.payload = segment * (protocol == UDP && max > 64 ? 64 : max);
    job.virtio = virtio_of(&super, segment);
    job.length = build_partial(&super, job.whole);
    split_all();
    const double copy = measure(copy_all), split = measure(split_all);
    /* The packets as the last split left them. */
    const double coalesce = measure(coalesce_all);
    printf("%s IPv%u %4u bytes, %4u packets: memcpy %6.1f ns, split %6.1f ns = %4.2f, coalesce %6.1f ns = %4.2f\n",
           protocol == TCP ? "TCP" : "UDP", version, size, job.count, copy, split, split / copy, coalesce,
           coalesce / copy);
}

int
main(void)
{
    static const uint32_t sizes[] = {64, 1400};
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 2; k++)
            report(i & 2 ? 6 : 4, i & 1 ? TCP : UDP, sizes[k] + (i == 3 && k == 0 ? 16 : 0));
    return 0;
}
