/* SPDX-License-Identifier: MIT
 *
 * Splitting: each segment against a packet that was made on its own.
 */
/* build: parts=offloads */
#include "offload_packets.h"
#include "backends/tun_linux/offload_split.h"

static BYTE whole[70000], expected[70000], before[70000];

/* A copy in memory that ends with the bytes, for ASan. */
static BYTE *
exact(const BYTE *bytes, uint32_t length)
{
    BYTE *copy = malloc(length ? length : 1);
    CHECK(copy);
    if (length)
        memcpy(copy, bytes, length);
    return copy;
}

static bool
begins(const virtio_header *virtio, const BYTE *packet, uint32_t length)
{
    BYTE *copy = exact(packet, length);
    offload_split split;
    const bool answer = offload_split_begin(&split, virtio, copy, length);
    if (!answer)
        CHECK_EQUAL(offload_split_next(&split), 0);
    for (uint32_t size; (size = offload_split_next(&split)) > 0;)
    {
        BYTE *place = exact(NULL, 0);
        place = realloc(place, size);
        CHECK(place && size <= WINTUN_MAX_IP_PACKET_SIZE);
        offload_split_write(&split, place);
        free(place);
    }
    free(copy);
    return answer;
}

/* The next packet has to be this one. */
static void
check_next(offload_split *split, const BYTE *packet, uint32_t length)
{
    CHECK_EQUAL(offload_split_next(split), length);
    BYTE *place = malloc(length);
    CHECK(place);
    memset(place, 0xA5, length);
    offload_split_write(split, place);
    for (uint32_t i = 0; i < length; i++)
        CHECK_EQUAL((i << 8 | place[i]), (i << 8 | packet[i]));
    free(place);
}

static void
check_superpacket(const shape *super, const virtio_header *virtio, const BYTE *bytes, uint32_t length)
{
    const uint32_t count = segments_of(super, virtio->gso_size);
    BYTE *copy = exact(bytes, length);
    offload_split split;
    CHECK(offload_split_begin(&split, virtio, copy, length));
    CHECK_EQUAL(split.left, count);
    for (uint32_t i = 0; i < count; i++)
    {
        const shape part = segment_of(super, virtio->gso_size, i);
        const uint32_t size = build(&part, expected);
        check_next(&split, expected, size);
    }
    CHECK_EQUAL(offload_split_next(&split), 0);
    CHECK_EQUAL(split.left, 0);
    CHECK(memcmp(copy, bytes, length) == 0);
    free(copy);
}

/* As the kernel hands it over, and without the sum of the pseudo-header. */
static void
check_split(const shape *super, uint32_t segment)
{
    virtio_header virtio = virtio_of(super, segment);
    uint32_t length = build_partial(super, whole);
    check_superpacket(super, &virtio, whole, length);
    /* The header's length is only a hint. */
    virtio.header_length = (uint16_t)(length + 1);
    check_superpacket(super, &virtio, whole, length);
    if (super->ip_options || super->extension[0])
        return;
    virtio.flags = 0;
    virtio.checksum_start = virtio.checksum_offset = 0xFFFF;
    length = build(super, whole);
    check_superpacket(super, &virtio, whole, length);
}

static void
test_sizes(void)
{
    static const uint32_t payloads[] = {1, 2, 3, 47, 48, 49, 96, 1399, 1400, 1401, 4200, 30001, 65000};
    static const uint32_t sizes[] = {1, 2, 7, 48, 1400, 65000, 65535};
    for (int i = 0; i < 4; i++)
    {
        for (size_t p = 0; p < sizeof(payloads) / sizeof(*payloads); p++)
        {
            for (size_t s = 0; s < sizeof(sizes) / sizeof(*sizes); s++)
            {
                if (payloads[p] / sizes[s] > 2000)
                    continue;
                const shape super = plain(i / 2 ? 6 : 4, i % 2 ? UDP : TCP, payloads[p]);
                check_split(&super, sizes[s]);
            }
        }
    }
}

static void
test_flags(void)
{
    for (uint8_t version = 4; version <= 6; version += 2)
    {
        for (uint32_t flags = 0; flags < 256; flags++)
        {
            shape super = plain(version, TCP, 250);
            super.flags = (uint8_t)flags;
            check_split(&super, 100);
            super.payload = 100;
            check_split(&super, 100);
        }
    }
}

static void
test_options(void)
{
    for (uint32_t tcp = 0; tcp <= 40; tcp += 4)
    {
        for (uint32_t ip = 0; ip <= 40; ip += 4)
        {
            shape super = plain(4, TCP, 1000);
            super.tcp_options = tcp;
            super.ip_options = ip;
            super.class = 0xB9;
            check_split(&super, 333);
        }
    }
}

static void
test_extensions(void)
{
    static const uint8_t extensions[][3] = {{1}, {44}, {61}, {1, 61}, {1, 44, 61}};
    for (size_t i = 0; i < sizeof(extensions) / sizeof(*extensions); i++)
    {
        for (int udp = 0; udp < 2; udp++)
        {
            shape super = plain(6, udp ? UDP : TCP, 1000);
            memcpy(super.extension, extensions[i], 3);
            super.class = 0xB9;
            check_split(&super, 300);

            /* The kernel has to give the position of the transport header. */
            virtio_header virtio = virtio_of(&super, 300);
            const uint32_t length = build_partial(&super, whole);
            virtio.flags = 0;
            CHECK(!begins(&virtio, whole, length));
            virtio.flags = 1;
            virtio.checksum_start -= 8;
            CHECK(!begins(&virtio, whole, length));
        }
    }
    /* Cut short anywhere, with a length to match, and with an extension that says it is longer. */
    shape super = plain(6, TCP, 40);
    super.extension[0] = 1;
    super.extension[1] = 61;
    const virtio_header virtio = virtio_of(&super, 10);
    const uint32_t length = build_partial(&super, whole);
    for (uint32_t cut = 40; cut <= length; cut++)
    {
        packet_put16(whole + 4, cut - 40);
        CHECK_EQUAL(begins(&virtio, whole, cut), cut >= headers_of(&super));
    }
    for (uint32_t size = 1; size < 256; size++)
    {
        whole[49] = (BYTE)size;
        CHECK(!begins(&virtio, whole, length));
    }

    /* Fragment, IPsec, nothing, another protocol. */
    static const uint8_t others[] = {44, 51, 50, 59, 58};
    for (size_t i = 0; i < sizeof(others); i++)
    {
        shape super = plain(6, TCP, 1000);
        super.extension[0] = 1;
        super.extension[1] = (uint8_t)(others[i] + 1);
        const virtio_header virtio = virtio_of(&super, 300);
        const uint32_t length = build_partial(&super, whole);
        CHECK(!begins(&virtio, whole, length));
    }
}

/* With a source route the sum of the pseudo-header is of another address: the one that the kernel has stored counts. */
static void
test_stored_sum(void)
{
    for (int udp = 0; udp < 2; udp++)
    {
        const shape super = plain(4, udp ? UDP : TCP, 500);
        const virtio_header virtio = virtio_of(&super, 200);
        const uint32_t length = build_partial(&super, whole);
        BYTE *checksum = checksum_of(&super, whole);
        packet_put16(checksum, (packet_get16(checksum) + 1) % 0xFFFF);
        offload_split split;
        CHECK(offload_split_begin(&split, &virtio, whole, length));
        while (offload_split_next(&split))
        {
            const uint32_t size = offload_split_next(&split);
            offload_split_write(&split, expected);
            CHECK_EQUAL(add_up(expected + 20, size - 20, pseudo_of(&super, expected, size)), 0xFFFE);
        }
    }
}

/* A checksum of 0 is "none" to UDP, and must be written as 0xFFFF; TCP's stays 0. */
static void
test_zero_checksum(void)
{
    for (int i = 0; i < 4; i++)
    {
        for (int gso = 0; gso < 2; gso++)
        {
            const shape super = plain(i / 2 ? 6 : 4, i % 2 ? UDP : TCP, 64);
            virtio_header virtio = virtio_of(&super, 64);
            const uint32_t length = build(&super, whole);
            BYTE *checksum = checksum_of(&super, whole);
            /* The last word takes what makes the sum 0xFFFF without the checksum. */
            packet_put16(whole + length - 2, (packet_get16(whole + length - 2) + packet_get16(checksum)) % 0xFFFF);
            memcpy(before, whole, length);
            packet_put16(checksum, pseudo_of(&super, whole, length));
            packet_put16(checksum_of(&super, before), super.protocol == UDP ? 0xFFFF : 0);
            virtio.gso_type = gso ? virtio.gso_type : 0;
            offload_split split;
            CHECK(offload_split_begin(&split, &virtio, whole, length));
            check_next(&split, before, length);
        }
    }
}

static void
test_single(void)
{
    for (int i = 0; i < 4; i++)
    {
        for (uint32_t payload = 0; payload < 1500; payload += payload < 20 ? 1 : 123)
        {
            const shape single = plain(i / 2 ? 6 : 4, i % 2 ? UDP : TCP, payload);
            virtio_header virtio = virtio_of(&single, 0);
            virtio.gso_type = 0;
            const uint32_t length = build_partial(&single, whole);
            build(&single, expected);
            BYTE *copy = exact(whole, length);
            offload_split split;
            CHECK(offload_split_begin(&split, &virtio, copy, length));
            check_next(&split, expected, length);
            CHECK_EQUAL(offload_split_next(&split), 0);

            /* Nothing to complete: as it is, whatever it is. */
            virtio.flags = 0;
            CHECK(offload_split_begin(&split, &virtio, copy, length));
            check_next(&split, whole, length);
            CHECK_EQUAL(offload_split_next(&split), 0);
            free(copy);
        }
    }
    const virtio_header none = {0};
    offload_split split;
    CHECK(offload_split_begin(&split, &none, (const BYTE *)"\x01", 1));
    check_next(&split, (const BYTE *)"\x01", 1);
    CHECK(!offload_split_begin(&split, &none, whole, 0));
    CHECK_EQUAL(offload_split_next(&split), 0);
    CHECK(begins(&none, whole, 65535));
    CHECK(!begins(&none, whole, 65536));
}

/* A fragment, an ICMP message and one with options: the checksum is at the kernel's position. */
static void
test_single_elsewhere(void)
{
    for (uint32_t start = 0; start < 100; start++)
    {
        for (uint32_t offset = 0; offset < 100; offset++)
        {
            shape single = plain(start % 2 ? 6 : 4, TCP, 33);
            const virtio_header virtio = {
                .flags = 1, .checksum_start = (uint16_t)start, .checksum_offset = (uint16_t)offset};
            const uint32_t length = build(&single, whole);
            const bool inside = start >= transport_of(&single) && start + offset + 2 <= length;
            CHECK_EQUAL(begins(&virtio, whole, length), inside);
            if (!inside)
                continue;
            offload_split split;
            CHECK(offload_split_begin(&split, &virtio, whole, length));
            memcpy(expected, whole, length);
            const uint32_t sum = add_up(whole + start, length - start, 0);
            packet_put16(expected + start + offset, offset == 6 && sum == 0xFFFF ? 0xFFFF : ~sum);
            check_next(&split, expected, length);
        }
    }
    const virtio_header virtio = {.flags = 1, .checksum_start = 20, .checksum_offset = 16};
    shape single = plain(4, TCP, 33);
    const uint32_t length = build(&single, whole);
    CHECK(begins(&virtio, whole, length));
    whole[0] = 0x55; /* neither 4 nor 6 */
    CHECK(!begins(&virtio, whole, length));
    whole[0] = 0x44; /* a header that is too short, or ends behind the checksum's start */
    CHECK(!begins(&virtio, whole, length));
    whole[0] = 0x46;
    CHECK(!begins(&virtio, whole, length));
    whole[0] = 0x60;
    CHECK(!begins(&virtio, whole, length));
    const virtio_header far = {.flags = 1, .checksum_start = 0xFFFF, .checksum_offset = 0xFFFF};
    CHECK(!begins(&far, whole, length));
}

/* One change at a time to what is right. */
static void
test_malformed(void)
{
    for (int i = 0; i < 4; i++)
    {
        const shape super = plain(i / 2 ? 6 : 4, i % 2 ? UDP : TCP, 1000);
        const uint32_t transport = transport_of(&super), version = super.version;
        const virtio_header right = virtio_of(&super, 300);
        const uint32_t length = build_partial(&super, whole);
        CHECK(begins(&right, whole, length));

        virtio_header wrong = right;
        wrong.gso_size = 0;
        CHECK(!begins(&wrong, whole, length));
        for (uint32_t type = 0; type < 256; type++)
        {
            wrong = right;
            wrong.gso_type = (uint8_t)type;
            const bool ecn = super.protocol == TCP && type == (right.gso_type | 0x80u);
            CHECK_EQUAL(begins(&wrong, whole, length), type == 0 || type == right.gso_type || ecn);
        }
        for (uint32_t value = 0; value < 200; value++)
        {
            wrong = right;
            wrong.checksum_start = (uint16_t)value;
            CHECK_EQUAL(begins(&wrong, whole, length), value == right.checksum_start);
            wrong = right;
            wrong.checksum_offset = (uint16_t)value;
            CHECK_EQUAL(begins(&wrong, whole, length), value == right.checksum_offset);
        }
        /* Cut short anywhere, also with a length to match. */
        for (uint32_t cut = 0; cut < length; cut++)
        {
            CHECK(!begins(&right, whole, cut));
            memcpy(before, whole, length);
            packet_put16(before + (version == 4 ? 2 : 4), version == 4 ? cut : cut - 40);
            if (super.protocol == UDP && cut >= transport + 8)
                packet_put16(before + transport + 4, cut - transport);
            CHECK_EQUAL(begins(&right, before, cut), cut >= headers_of(&super));
        }
        /* Lengths that lie. */
        memcpy(before, whole, length);
        packet_put16(before + (version == 4 ? 2 : 4), packet_get16(before + (version == 4 ? 2 : 4)) + 1);
        CHECK(!begins(&right, before, length));
        for (uint32_t value = 0; value < 256; value++)
        {
            memcpy(before, whole, length);
            before[0] = (BYTE)value;
            const bool same = version == 4 ? value == whole[0] : value >> 4 == 6;
            CHECK_EQUAL(begins(&right, before, length), same);
        }
        memcpy(before, whole, length);
        if (super.protocol == UDP)
        {
            packet_put16(before + transport + 4, 8);
            CHECK(!begins(&right, before, length));
            continue;
        }
        before[transport + 12] = 0x40;
        CHECK(!begins(&right, before, length));
        before[transport + 12] = 0xF0; /* 60 bytes, which are there */
        CHECK(begins(&right, before, length));
        const shape small = plain(super.version, TCP, 30);
        const uint32_t small_length = build_partial(&small, before);
        before[transport + 12] = 0xF0;
        CHECK(!begins(&right, before, small_length));
    }
    /* Fragments. */
    static const uint16_t fragments[] = {0x2000, 0x0001, 0x1FFF, 0x2001};
    for (size_t i = 0; i < sizeof(fragments) / sizeof(*fragments); i++)
    {
        shape super = plain(4, i % 2 ? UDP : TCP, 1000);
        super.fragment = fragments[i];
        const virtio_header virtio = virtio_of(&super, 300);
        const uint32_t length = build_partial(&super, whole);
        CHECK(!begins(&virtio, whole, length));
    }
    /* IPv6 can be larger than a packet may be, if it is split. */
    shape super = plain(6, TCP, 65515);
    const uint32_t length = build_partial(&super, whole);
    CHECK_EQUAL(length, 65575);
    check_split(&super, 1400);
    check_split(&super, 65475);
    const virtio_header virtio = virtio_of(&super, 65476);
    CHECK(!begins(&virtio, whole, length));
}

/* The stored sum of the pseudo-header is with the UDP length as it stands there. */
static void
set_udp_length(const shape *super, BYTE *packet, uint32_t value)
{
    const uint32_t transport = transport_of(super);
    packet_put16(packet + transport + 4, value);
    packet_put16(checksum_of(super, packet), pseudo_of(super, packet, transport + value));
}

/* Length fields that a guest or the kernel leaves unset: what was read is the length. */
static void
test_unset_lengths(void)
{
    for (int i = 0; i < 4; i++)
    {
        const shape super = plain(i / 2 ? 6 : 4, i % 2 ? UDP : TCP, 2500);
        const virtio_header virtio = virtio_of(&super, 1000);
        const uint32_t length = build_partial(&super, whole);
        const uint32_t real = super.protocol == UDP ? length - transport_of(&super) : 0;
        const uint32_t lengths[] = {real, 0, 8 + 1000};
        for (int unset = 0; unset < 2; unset++)
        {
            for (int u = 0; u < (super.protocol == UDP ? 3 : 1); u++)
            {
                build_partial(&super, whole);
                if (super.protocol == UDP)
                    set_udp_length(&super, whole, lengths[u]);
                if (unset)
                    packet_put16(whole + (super.version == 4 ? 2 : 4), 0);
                check_superpacket(&super, &virtio, whole, length);
            }
        }
        if (super.protocol == TCP)
            continue;
        /* Any other length is a damaged header, not an unset one. */
        for (uint32_t wrong = 1; wrong < 2600; wrong++)
        {
            if (wrong == real || wrong == 8 + 1000)
                continue;
            set_udp_length(&super, whole, wrong);
            CHECK(!begins(&virtio, whole, length));
        }
        /* A packet that is not a superpacket has no unset lengths. */
        build_partial(&super, whole);
        offload_headers headers;
        CHECK(offload_headers_parse(&headers, whole, length));
        set_udp_length(&super, whole, 0);
        CHECK(!offload_headers_parse(&headers, whole, length));
    }
}

/* Headers and no payload: one packet. */
static void
test_empty(void)
{
    for (int i = 0; i < 4; i++)
    {
        shape super = plain(i / 2 ? 6 : 4, i % 2 ? UDP : TCP, 0);
        super.flags = ACK | PSH | CWR;
        check_split(&super, 1400);
    }
}

int
main(void)
{
    test_sizes();
    test_flags();
    test_options();
    test_extensions();
    test_stored_sum();
    test_zero_checksum();
    test_single();
    test_single_elsewhere();
    test_malformed();
    test_unset_lengths();
    test_empty();
    return 0;
}
