/* SPDX-License-Identifier: MIT
 *
 * Coalescing: what is merged with what.
 */
/* build: parts=offloads */
#include "offload_runs.h"

static packets run_packets;

/* Groups the packets and lets them go. `expected` has a character for each: '0' and on, the group that it is in. */
#define EXPECT(expected) expect(__LINE__, ALL, expected)

static void
expect(int line, unsigned offloads, const char *expected)
{
    char got[OFFLOAD_RUN + 1] = {0};
    static offload_run run;
    /* The state may hold anything before. */
    memset(&run, 0xA5, sizeof(run));
    offload_coalesce(&run, run_packets.list, run_packets.count, offloads);
    uint8_t groups[OFFLOAD_RUN];
    check_run(&run, run_packets.count, groups);
    for (uint32_t i = 0; i < run_packets.count; i++)
        got[i] = (char)('0' + groups[i]);
    /* The characters of many groups wrap around: one is a zero. */
    if (memcmp(got, expected, run_packets.count + 1) != 0)
    {
        fprintf(stderr, "line %d: groups are %s, not %s\n", line, got, expected);
        exit(1);
    }
    free_packets(&run_packets);
}

/* Adds the packet and makes it the one that follows it. */
static BYTE *
add(shape *shape)
{
    BYTE *packet = add_packet(&run_packets, shape);
    shape->sequence += shape->payload;
    shape->payload_at += shape->payload;
    shape->identification++;
    return packet;
}

static void
add_times(shape *shape, int times)
{
    for (int i = 0; i < times; i++)
        add(shape);
}

/* Each of the four kinds. */
static shape
kind(int number, uint32_t payload)
{
    return plain(number & 2 ? 6 : 4, number & 1 ? UDP : TCP, payload);
}

static void
test_offloads(void)
{
    for (int i = 0; i < 4; i++)
    {
        for (unsigned offloads = 0; offloads < 8; offloads++)
        {
            const unsigned needed = i & 1 ? OFFLOAD_USO : i == 0 ? OFFLOAD_TSO4 : OFFLOAD_TSO6;
            shape shape = kind(i, 100);
            add_times(&shape, 5);
            expect(__LINE__, offloads, offloads & needed ? "00000" : "01234");
        }
    }
    EXPECT("");
}

/* Superpackets as they are written, byte by byte. */
static void
test_frame(void)
{
    static offload_run run;
    static BYTE expected[65536], got[65536];
    for (int i = 0; i < 4; i++)
    {
        for (uint32_t options = 0; options <= (i & 1 ? 0 : 40); options += 4)
        {
            shape part = kind(i, 700), whole = kind(i, 2 * 700 + 33);
            part.tcp_options = whole.tcp_options = options;
            part.class = whole.class = 0xB9;
            whole.flags = CWR | ECE | ACK | PSH | FIN;
            part.flags = CWR | ECE | ACK;
            add(&part);
            part.flags = ECE | ACK;
            add(&part);
            part.flags = ECE | ACK | PSH | FIN;
            part.payload = 33;
            add(&part);
            offload_coalesce(&run, run_packets.list, run_packets.count, ALL);
            CHECK_EQUAL(run.group_count, 1);

            offload_frame frame;
            offload_group_frame(&run, &run.groups[0], &frame);
            virtio_header virtio;
            const uint32_t length = join_frame(&frame, &virtio, got);
            const virtio_header right = virtio_of(&whole, 700);
            CHECK_EQUAL(length, build_partial(&whole, expected));
            CHECK(memcmp(&virtio, &right, sizeof(virtio)) == 0);
            for (uint32_t k = 0; k < length; k++)
                CHECK_EQUAL((k << 8 | got[k]), (k << 8 | expected[k]));

            /* Refused by the kernel: one by one. */
            offload_packet_frame(&run_packets.list[1], &frame);
            CHECK_EQUAL(join_frame(&frame, &virtio, got), run_packets.list[1].length);
            CHECK(memcmp(got, run_packets.list[1].data, run_packets.list[1].length) == 0);
            CHECK(virtio.gso_type == 0 && virtio.flags == 0);
            free_packets(&run_packets);
        }
    }
}

static void
test_sizes(void)
{
    for (int i = 0; i < 4; i++)
    {
        shape shape = kind(i, 100);
        add_times(&shape, 2);
        shape.payload = 50; /* a smaller one is the last */
        add_times(&shape, 3);
        shape.payload = 51; /* a larger one never follows */
        add(&shape);
        EXPECT("000112");

        shape = kind(i, 100);
        add_times(&shape, 2);
        shape.payload = 0; /* would get lost */
        add(&shape);
        shape.payload = 100;
        add_times(&shape, 2);
        EXPECT("00122");

        shape = kind(i, 0);
        add_times(&shape, 2);
        EXPECT("01");
    }
}

/* 65535 bytes in all, and 64 datagrams. */
static void
test_limits(void)
{
    char expected[OFFLOAD_RUN + 1] = {0};
    for (int i = 0; i < 4; i++)
    {
        shape shape = kind(i, 1);
        add_times(&shape, OFFLOAD_RUN);
        for (uint32_t k = 0; k < OFFLOAD_RUN; k++)
            expected[k] = (char)('0' + (i & 1 ? k / 64 : 0));
        EXPECT(expected);

        const uint32_t headers = headers_of(&shape), fifth = (65535 - headers) / 5 + 1;
        for (uint32_t more = 0; more < 2; more++)
        {
            shape = kind(i, fifth);
            add_times(&shape, 4);
            shape.payload = 65535 - headers - 4 * fifth + more;
            CHECK(shape.payload <= fifth);
            add(&shape);
            EXPECT(more ? "00001" : "00000");
        }
    }
}

static void
test_tcp_flags(void)
{
    for (int i = 0; i < 4; i += 2)
    {
        for (uint32_t flags = 0; flags < 256; flags++)
        {
            /* On the second of four. A packet that differs in ACK or ECE fits neither side. */
            shape shape = kind(i, 100);
            add(&shape);
            shape.flags = (uint8_t)flags;
            add(&shape);
            shape.flags = ACK;
            add_times(&shape, 2);
            if (flags & (SYN | RST | URG | ECE) || !(flags & ACK))
                EXPECT("0122");
            else if (flags & CWR)
                EXPECT(flags & (PSH | FIN) ? "0122" : "0111");
            else
                EXPECT(flags & (PSH | FIN) ? "0011" : "0000");

            /* On the first: then it must be allowed to be followed. */
            shape = kind(i, 100);
            shape.flags = (uint8_t)flags;
            add(&shape);
            shape.flags &= (uint8_t)~CWR;
            add_times(&shape, 2);
            EXPECT(flags & (SYN | RST | URG | PSH | FIN) ? "012" : "000");
        }
    }
}

/* A change of one field on the third of five, which then are three groups. */
static void
test_fields(void)
{
    for (int i = 0; i < 4; i++)
    {
        const int first = i & 2 ? 0 : 1, transport = i & 2 ? 40 : 20;
        const struct
        {
            int at;
            bool changes; /* and the packet is still of this flow */
        } fields[] = {
            {first, true},             /* TOS; class */
            {i & 2 ? 1 : 6, true},     /* reserved flag; class and flow label */
            {i & 2 ? 3 : 8, true},     /* flow label; TTL */
            {i & 2 ? 7 : 6, true},     /* hop limit */
            {transport + 4, !(i & 1)}, /* sequence number */
            {transport + 8, !(i & 1)}, /* acknowledgment */
            {transport + 11, !(i & 1)},
            {transport + 12, !(i & 1)}, /* reserved bits */
            {transport + 14, !(i & 1)}, /* window */
            {transport + 18, !(i & 1)}, /* urgent pointer */
            {transport + 20, !(i & 1)}, /* options */
            {transport + 31, !(i & 1)},
        };
        for (size_t f = 0; f < sizeof(fields) / sizeof(*fields); f++)
        {
            if (!fields[f].changes)
                continue;
            shape shape = kind(i, 100);
            shape.tcp_options = 12;
            add_times(&shape, 2);
            BYTE *packet = add(&shape);
            packet[fields[f].at] ^= fields[f].at == 6 ? 0x80 : fields[f].at == 0 ? 0x04 : 0x08;
            seal(&shape, packet, run_packets.list[2].length);
            add_times(&shape, 2);
            EXPECT("00122");
        }
    }
    /* Options of another size, in place of payload. */
    for (int i = 0; i < 4; i += 2)
    {
        shape shape = kind(i, 100);
        add_times(&shape, 2);
        shape.tcp_options = 12;
        shape.payload = 88;
        add_times(&shape, 2);
        EXPECT("0011");
    }
}

static void
test_sequence(void)
{
    for (int i = 0; i < 4; i += 2)
    {
        for (int gap = -200; gap <= 200; gap += 25)
        {
            shape shape = kind(i, 100);
            add_times(&shape, 2);
            shape.sequence += (uint32_t)gap;
            add_times(&shape, 2);
            EXPECT(gap ? "0011" : "0000");
        }
    }
}

static void
test_identification(void)
{
    for (int i = 0; i < 2; i++)
    {
        for (int gap = -2; gap <= 2; gap++)
        {
            for (int fragmentable = 0; fragmentable < 2; fragmentable++)
            {
                shape shape = kind(i, 100);
                shape.fragment = fragmentable ? 0 : 0x4000;
                add_times(&shape, 2);
                shape.identification = (uint16_t)(shape.identification + gap);
                add_times(&shape, 2);
                EXPECT(fragmentable && gap ? "0011" : "0000");
            }
        }
        /* The flag itself. */
        shape shape = kind(i, 100);
        add_times(&shape, 2);
        shape.fragment = 0;
        add_times(&shape, 2);
        EXPECT("0011");
    }
}

static void
test_udp_without_checksum(void)
{
    for (int i = 1; i < 4; i += 2)
    {
        for (uint32_t without = 0; without < 3; without++)
        {
            shape shape = kind(i, 100);
            for (uint32_t k = 0; k < 3; k++)
            {
                BYTE *packet = add(&shape);
                if (k == without)
                    packet_put16(checksum_of(&shape, packet), 0);
            }
            EXPECT(without == 0 ? "011" : without == 1 ? "012" : "001");
        }
        /* Also if 0 is what the sum would come to. */
        shape shape = kind(i, 100);
        for (uint32_t k = 0; k < 3; k++)
        {
            BYTE *packet = add(&shape), *checksum = checksum_of(&shape, packet),
                 *last = packet + headers_of(&shape) + 98;
            packet_put16(last, (packet_get16(last) + packet_get16(checksum)) % 0xFFFF);
            packet_put16(checksum, 0);
        }
        EXPECT("012");
    }
}

/* Any single bit: what doesn't verify goes alone and as it is, and its neighbours go where they belong. */
static void
test_corrupt(void)
{
    for (int i = 0; i < 4; i++)
    {
        for (uint32_t corrupt = 0; corrupt < 5; corrupt++)
        {
            shape shape = kind(i, 21);
            const uint32_t length = headers_of(&shape) + 21;
            for (uint32_t bit = 0; bit < 8 * length; bit++)
            {
                shape = kind(i, 21);
                for (uint32_t k = 0; k < 5; k++)
                {
                    BYTE *packet = add(&shape);
                    if (k == corrupt)
                        packet[bit / 8] ^= (BYTE)(1u << bit % 8);
                }
                static offload_run run;
                offload_coalesce(&run, run_packets.list, 5, ALL);
                uint8_t groups[OFFLOAD_RUN];
                check_run(&run, 5, groups);
                CHECK_EQUAL(run.groups[groups[corrupt]].count, 1);
                free_packets(&run_packets);
            }
            shape = kind(i, 21);
            for (uint32_t k = 0; k < 5; k++)
            {
                BYTE *packet = add(&shape);
                if (k == corrupt)
                    packet[length - 1] ^= 1;
            }
            static const char *expected[] = {"01111", "01222", "00122", "00012", "00001"};
            EXPECT(expected[corrupt]);
        }
    }
}

static void
test_interleaved(void)
{
    for (int i = 0; i < 4; i++)
    {
        shape a = kind(i, 100), b = a, c = a, d = a;
        b.ports[0]++;
        c.ports[1]++;
        d.seed++;
        for (int k = 0; k < 4; k++)
        {
            add(&a);
            add(&b);
            add(&c);
            add(&d);
        }
        EXPECT("0123012301230123");

        /* An event that closes one flow's group leaves the others'. */
        a = b = kind(i, 100);
        b.ports[0]++;
        add(&a);
        add(&b);
        a.payload = 99;
        add(&a);
        a.payload = 100;
        add(&a);
        add(&b);
        EXPECT("01021");
    }
    /* Both protocols, and both versions, with equal numbers. */
    shape shapes[4] = {kind(0, 10), kind(1, 10), kind(2, 10), kind(3, 10)};
    for (int k = 0; k < 8; k++)
        add(&shapes[k % 4]);
    EXPECT("01230123");
}

static void
test_many_flows(void)
{
    for (int i = 0; i < 4; i++)
    {
        char expected[OFFLOAD_RUN + 1] = {0};
        shape shapes[OFFLOAD_RUN];
        for (uint32_t k = 0; k < OFFLOAD_RUN; k++)
        {
            shapes[k] = kind(i, 10);
            shapes[k].ports[k % 2] = (uint16_t)(k * 256);
            expected[k] = (char)('0' + k);
        }
        for (uint32_t k = 0; k < OFFLOAD_RUN; k++)
            add(&shapes[k]);
        EXPECT(expected);
        for (uint32_t k = 0; k < OFFLOAD_RUN; k++)
        {
            add(&shapes[k % 64]);
            expected[k] = (char)('0' + k % 64);
        }
        EXPECT(expected);
    }
}

/* Two packets, what belongs to no flow, and two more: with these addresses, then with others. */
static void
check_barrier(int i, const BYTE *bytes, uint32_t length, uint32_t addresses)
{
    for (int other = 0; other < 2; other++)
    {
        shape shape = kind(i, 100);
        add_times(&shape, 2);
        BYTE *packet = add_bytes(&run_packets, bytes, length);
        if (other && addresses)
            packet[addresses] ^= 1;
        add_times(&shape, 2);
        EXPECT(other && addresses ? "00100" : "00122");
    }
}

static void
test_barriers(void)
{
    static BYTE bytes[70000];
    for (int i = 0; i < 4; i++)
    {
        const bool ip6 = i & 2;
        const uint32_t addresses = ip6 ? 39 : 12;
        /* Another protocol. */
        shape shape = kind(i, 100);
        uint32_t length = build(&shape, bytes);
        bytes[ip6 ? 6 : 9] = ip6 ? 58 : 1;
        check_barrier(i, bytes, length, addresses);
        /* Options; extensions; fragments. */
        shape.ip_options = ip6 ? 0 : 4;
        shape.extension[0] = ip6 ? 61 : 0;
        check_barrier(i, bytes, build(&shape, bytes), addresses);
        shape.ip_options = 0;
        shape.fragment = 0x2000;
        shape.extension[0] = ip6 ? 45 : 0;
        check_barrier(i, bytes, build(&shape, bytes), addresses);
        shape.fragment = 0x0010;
        check_barrier(i, bytes, build(&shape, bytes), addresses);
        /* Lengths that lie. */
        shape = kind(i, 100);
        length = build(&shape, bytes);
        check_barrier(i, bytes, length - 1, addresses);
        check_barrier(i, bytes, length + 1, addresses);
        check_barrier(i, bytes, ip6 ? 40 : 20, addresses);
        /* Without addresses it may be anybody's. */
        check_barrier(i, bytes, ip6 ? 39 : 19, 0);
        check_barrier(i, bytes, 1, 0);
        check_barrier(i, bytes, 0, 0);
        bytes[0] = 0;
        check_barrier(i, bytes, length, 0);
    }
}

/* A possible probe stays alone, whatever surrounds it; TCP has none of that kind. */
static void
test_probes(void)
{
    for (int i = 0; i < 4; i++)
    {
        for (int hops = 0; hops < 256; hops++)
        {
            shape shape = kind(i, 100);
            shape.hops = (uint8_t)hops;
            add_times(&shape, 5);
            EXPECT((i & 1) && hops <= 32 ? "01234" : "00000");
        }
        shape shape = kind(i, 100);
        add_times(&shape, 2);
        shape.hops = 32;
        add_times(&shape, 2);
        shape.hops = 33;
        add_times(&shape, 2);
        EXPECT(i & 1 ? "001233" : "001122");
    }
}

int
main(void)
{
    test_offloads();
    test_frame();
    test_sizes();
    test_limits();
    test_tcp_flags();
    test_fields();
    test_sequence();
    test_identification();
    test_udp_without_checksum();
    test_corrupt();
    test_interleaved();
    test_many_flows();
    test_barriers();
    test_probes();
    return 0;
}
