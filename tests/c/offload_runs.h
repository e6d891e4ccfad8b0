/* SPDX-License-Identifier: MIT
 *
 * Runs of packets for the tests of coalescing, and what has to be true of every run.
 */
#ifndef TUNRING_OFFLOAD_RUNS_H
#define TUNRING_OFFLOAD_RUNS_H

#include "backends/tun_linux/offload_coalesce.h"
#include "offload_packets.h"
#include "backends/tun_linux/offload_split.h"

#define ALL (OFFLOAD_TSO4 | OFFLOAD_TSO6 | OFFLOAD_USO)

typedef struct packets
{
    tunring_packet list[OFFLOAD_RUN]; /* each in memory that ends with it, for ASan */
    uint32_t count;
} packets;

static inline BYTE *
add_bytes(packets *run, const BYTE *bytes, uint32_t length)
{
    BYTE *copy = malloc(length ? length : 1);
    CHECK(copy && run->count < OFFLOAD_RUN);
    if (length)
        memcpy(copy, bytes, length);
    run->list[run->count++] = (tunring_packet){copy, length};
    return copy;
}

/* The packet may be changed. */
static inline BYTE *
add_packet(packets *run, const shape *shape)
{
    static BYTE bytes[70000];
    return add_bytes(run, bytes, build(shape, bytes));
}

static inline void
free_packets(packets *run)
{
    for (uint32_t i = 0; i < run->count; i++)
        free((BYTE *)(uintptr_t)run->list[i].data);
    run->count = 0;
}

/* Writes a group in one piece; returns its length without the virtio header. */
static inline uint32_t
join_frame(const offload_frame *frame, virtio_header *virtio, BYTE *bytes)
{
    CHECK(frame->count >= 2 && frame->count <= 1 + OFFLOAD_RUN);
    CHECK(frame->pieces[0].iov_len >= sizeof(*virtio));
    memcpy(virtio, frame->pieces[0].iov_base, sizeof(*virtio));
    uint32_t length = 0;
    for (uint32_t i = 0; i < frame->count; i++)
    {
        const uint32_t skip = i ? 0 : (uint32_t)sizeof(*virtio);
        const uint32_t size = (uint32_t)frame->pieces[i].iov_len - skip;
        CHECK(length + size <= 65535);
        memcpy(bytes + length, (const BYTE *)frame->pieces[i].iov_base + skip, size);
        length += size;
    }
    return length;
}

/* Equal, but for the identification of a packet that must not be fragmented and the header checksum that covers it, and
 * for the two ways to write a checksum of TCP that is 0. */
static inline void
check_same(const BYTE *got, const tunring_packet *packet)
{
    BYTE *expected = malloc(packet->length);
    CHECK(expected);
    memcpy(expected, packet->data, packet->length);
    const bool ip4 = expected[0] >> 4 == 4;
    const uint32_t transport = ip4 ? 20 : 40;
    if (ip4)
    {
        CHECK_EQUAL(add_up(got, 20, 0), 0xFFFF);
        if (expected[6] & 0x40)
            memcpy(expected + 4, got + 4, 2);
        memcpy(expected + 10, got + 10, 2);
    }
    if (expected[ip4 ? 9 : 6] == TCP && packet_get16(expected + transport + 16) == 0xFFFF)
        packet_put16(expected + transport + 16, 0);
    CHECK(memcmp(got, expected, packet->length) == 0);
    free(expected);
}

/* The group, split again, is its packets. */
static inline void
check_group(const offload_run *run, const offload_group *group)
{
    offload_frame frame;
    offload_group_frame(run, group, &frame);
    virtio_header virtio;
    static BYTE whole[65536];
    const uint32_t length = join_frame(&frame, &virtio, whole);
    uint32_t index = group->first;
    const virtio_header none = {0};
    if (group->count == 1)
    {
        CHECK(memcmp(&virtio, &none, sizeof(none)) == 0);
        CHECK_EQUAL(frame.count, 2);
        CHECK(frame.pieces[1].iov_base == run->packets[index].data);
        CHECK_EQUAL(length, run->packets[index].length);
        return;
    }
    CHECK_EQUAL(frame.count, 1u + group->count);
    offload_split split;
    CHECK(offload_split_begin(&split, &virtio, whole, length));
    static BYTE part[65536];
    for (uint32_t i = 0; i < group->count; i++)
    {
        CHECK_EQUAL(offload_split_next(&split), run->packets[index].length);
        offload_split_write(&split, part);
        check_same(part, &run->packets[index]);
        index = run->next[index];
    }
    CHECK_EQUAL(offload_split_next(&split), 0);
}

/* Every packet is in one group; groups and packets in groups are in order. Writes the group of each packet. */
static inline void
check_run(const offload_run *run, uint32_t count, uint8_t *groups)
{
    memset(groups, 0xFF, count);
    uint32_t packets = 0;
    for (uint32_t g = 0; g < run->group_count; g++)
    {
        const offload_group *group = &run->groups[g];
        uint32_t index = group->first;
        CHECK(g == 0 || group->first > group[-1].first);
        CHECK(group->count > 0);
        for (uint32_t i = 0; i < group->count; i++)
        {
            CHECK(index < count && groups[index] == 0xFF);
            groups[index] = (uint8_t)g;
            packets++;
            if (i + 1u == group->count)
                CHECK_EQUAL(index, group->last);
            else
                CHECK(run->next[index] > index);
            index = run->next[index];
        }
        check_group(run, group);
    }
    CHECK_EQUAL(packets, count);
}

#endif
