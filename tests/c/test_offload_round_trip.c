/* SPDX-License-Identifier: MIT
 *
 * Random superpackets: split, then coalesced, they are what they were; also if the packets of several of them come
 * mixed and some are damaged on the way.
 */
/* build: parts=offloads */
#include "offload_runs.h"

/* There is a single thread, so the thread sanitizer has little to find, and takes ten times as long. */
#if defined(__SANITIZE_THREAD__)
#define SUPERPACKETS 500
#define MIXTURES 120
#else
#define SUPERPACKETS 6000
#define MIXTURES 1500
#endif
#define FLOWS 5u

static uint64_t state = 0x2545F4914F6CDD1D;
static BYTE whole[70000], got[70000];
static offload_run run;

static uint32_t
below(uint32_t limit)
{
    return check_random(&state) % limit;
}

/* A superpacket as the kernel might hand it over and take it back. */
static shape
random_super(uint32_t *segment)
{
    shape super = plain(below(2) ? 4 : 6, below(2) ? TCP : UDP, 0);
    super.class = (uint8_t)below(256);
    /* UDP of few hops is never merged: test_probes.c has it. */
    super.hops = (uint8_t)(super.protocol == UDP ? 33 + below(223) : below(256));
    super.seed = (uint8_t)below(256);
    super.fragment = below(2) ? 0x4000 : 0;
    super.identification = (uint16_t)below(65536);
    super.ports[0] = (uint16_t)below(65536);
    super.ports[1] = (uint16_t)below(65536);
    super.window = (uint16_t)below(65536);
    super.sequence = below(4) ? check_random(&state) : 0xFFFFFFFFu - below(3000);
    super.acknowledgment = check_random(&state);
    if (super.protocol == TCP)
    {
        super.tcp_options = below(11) * 4;
        super.flags =
            (uint8_t)(ACK | (below(2) ? PSH : 0) | (below(8) ? 0 : FIN) | (below(8) ? 0 : CWR) | (below(8) ? 0 : ECE));
    }
    const uint32_t max = 65535 - headers_of(&super);
    const uint32_t count = 2 + below((super.protocol == UDP ? OFFLOAD_DATAGRAMS : OFFLOAD_RUN) - 1);
    *segment = 1 + below(below(4) ? 1500 : max / 2);
    super.payload = *segment * (count - 1) + 1 + below(*segment);
    if (super.payload > max)
        super.payload = max;
    super.payload_at = below(1000);
    return super;
}

static void
split_into(packets *list, const virtio_header *virtio, uint32_t length)
{
    offload_split split;
    CHECK(offload_split_begin(&split, virtio, whole, length));
    for (uint32_t size; (size = offload_split_next(&split)) > 0;)
    {
        offload_split_write(&split, got);
        add_bytes(list, got, size);
    }
}

static void
test_superpacket(void)
{
    uint32_t segment;
    const shape super = random_super(&segment);
    const virtio_header virtio = virtio_of(&super, segment);
    const uint32_t length = build_partial(&super, whole);
    static packets list;
    split_into(&list, &virtio, length);
    CHECK_EQUAL(list.count, segments_of(&super, segment));
    offload_coalesce(&run, list.list, list.count, ALL);
    uint8_t groups[OFFLOAD_RUN];
    check_run(&run, list.count, groups);
    CHECK_EQUAL(run.group_count, 1);

    offload_frame frame;
    offload_group_frame(&run, &run.groups[0], &frame);
    virtio_header back;
    CHECK_EQUAL(join_frame(&frame, &back, got), length);
    CHECK(memcmp(&back, &virtio, sizeof(back)) == 0);
    CHECK(memcmp(got, whole, length) == 0);
    free_packets(&list);
}

/* Where each packet of a mixture comes from. */
typedef struct origin
{
    uint8_t flow;
    bool damaged;
} origin;

static void
mix(packets *mixed, packets *flows, origin *origins)
{
    uint32_t at[FLOWS] = {0}, flow = 0;
    while (mixed->count < OFFLOAD_RUN)
    {
        if (below(3) == 0)
            flow = below(FLOWS);
        if (at[flow] == flows[flow].count)
        {
            for (flow = 0; flow < FLOWS && at[flow] == flows[flow].count; flow++)
            {
            }
            if (flow == FLOWS)
                return;
        }
        const tunring_packet *packet = &flows[flow].list[at[flow]++];
        origin *origin = &origins[mixed->count];
        BYTE *copy = add_bytes(mixed, packet->data, packet->length);
        *origin = (struct origin){(uint8_t)flow, below(20) == 0};
        if (origin->damaged)
            copy[packet->length - 1] ^= (BYTE)(1u << below(8));
    }
}

/* As many groups as there have to be: a flow's group ends with its last packet and at a damaged one. */
static uint32_t
groups_expected(const origin *origins, uint32_t count)
{
    uint32_t expected = 0;
    bool open[FLOWS] = {false};
    for (uint32_t i = 0; i < count; i++)
    {
        expected += origins[i].damaged || !open[origins[i].flow];
        open[origins[i].flow] = !origins[i].damaged;
    }
    return expected;
}

static void
test_mixture(void)
{
    uint8_t latest[FLOWS] = {0};
    static packets flows[FLOWS];
    for (uint32_t flow = 0; flow < FLOWS; flow++)
    {
        uint32_t segment;
        shape super = random_super(&segment);
        super.seed = 20;
        super.ports[0] = (uint16_t)flow;
        const virtio_header virtio = virtio_of(&super, segment);
        split_into(&flows[flow], &virtio, build_partial(&super, whole));
    }
    origin origins[OFFLOAD_RUN];
    static packets mixed;
    mix(&mixed, flows, origins);
    offload_coalesce(&run, mixed.list, mixed.count, ALL);
    uint8_t groups[OFFLOAD_RUN];
    /* Among others, that each group becomes just its packets again. */
    check_run(&run, mixed.count, groups);
    for (uint32_t i = 0; i < mixed.count; i++)
    {
        CHECK(groups[i] >= latest[origins[i].flow]);
        latest[origins[i].flow] = groups[i];
        if (origins[i].damaged)
            CHECK_EQUAL(run.groups[groups[i]].count, 1);
    }
    CHECK_EQUAL(run.group_count, groups_expected(origins, mixed.count));
    free_packets(&mixed);
    for (uint32_t flow = 0; flow < FLOWS; flow++)
        free_packets(&flows[flow]);
}

int
main(void)
{
    for (int i = 0; i < SUPERPACKETS; i++)
        test_superpacket();
    for (int i = 0; i < MIXTURES; i++)
        test_mixture();
    return 0;
}
