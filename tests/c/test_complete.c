/* SPDX-License-Identifier: MIT
 *
 * Checksums written into packets and segment sizes lowered there, in memory that ends with the packet, for packets
 * whose every field may be wrong.
 */
/* build: parts=offloads */
#include "check.h"
#include "tunring_packets.h"

#include <string.h>

static uint64_t state = 0xC0FFEEu;

/* Word by word; 0xFFFF for what holds its own checksum. */
static uint32_t
add_words(const BYTE *bytes, uint32_t length, uint32_t sum)
{
    for (uint32_t i = 0; i < length; i++)
        sum += i % 2 ? bytes[i] : (uint32_t)bytes[i] << 8;
    while (sum >> 16)
        sum = (sum & 0xFFFF) + (sum >> 16);
    return sum;
}

static BYTE *
exact_copy(const BYTE *bytes, uint32_t length)
{
    BYTE *copy = malloc(length ? length : 1);
    CHECK(copy);
    if (length)
        memcpy(copy, bytes, length);
    return copy;
}

/* A packet of either version with a transport header behind some options, and random payload. */
static uint32_t
make_packet(BYTE *packet)
{
    static const BYTE protocols[] = {1, 6, 17, 58, 47};
    const unsigned version = check_random(&state) % 2 ? 4 : 6;
    const BYTE protocol = protocols[check_random(&state) % sizeof(protocols)];
    uint32_t at = version == 4 ? 20 : 40;
    const uint32_t options = check_random(&state) % 3;
    const uint32_t size = 40 + check_random(&state) % 100;
    for (uint32_t i = 0; i < 400; i++)
        packet[i] = (BYTE)check_random(&state);
    packet[0] = (BYTE)(version << 4 | (version == 4 ? 5 + options * 2 : 0));
    if (version == 4)
    {
        memset(packet + at, 1, options * 8);
        packet[6] = packet[7] = 0;
        packet[9] = protocol;
    }
    else
        packet[6] = options ? 60 : protocol;
    for (uint32_t i = 0; version == 6 && i < options; i++)
    {
        packet[at + i * 8] = i + 1 < options ? 0 : protocol;
        packet[at + i * 8 + 1] = 0;
    }
    at += options * 8;
    const uint32_t total = at + size;
    packet[version == 4 ? 2 : 4] = 0;
    packet[version == 4 ? 3 : 5] = (BYTE)(version == 4 ? total : total - 40);
    if (protocol == 17)
    {
        packet[at + 4] = 0;
        packet[at + 5] = (BYTE)size;
    }
    if (protocol == 6)
    {
        static const BYTE mss[] = {1, 2, 4, 5, 0xb4, 1, 1, 0};
        packet[at + 12] = 0x70;
        packet[at + 13] = 0x02;
        memcpy(packet + at + 20, mss, sizeof(mss));
    }
    return total;
}

static bool
verifies(const BYTE *packet)
{
    const bool is_ip4 = packet[0] >> 4 == 4;
    uint32_t at = is_ip4 ? (packet[0] & 15) * 4u : 40;
    const uint32_t end = is_ip4 ? packet[3] : packet[5] + 40u;
    BYTE protocol = is_ip4 ? packet[9] : packet[6];
    for (; !is_ip4 && (protocol == 60 || protocol == 0); at += 8)
        protocol = packet[at];
    uint32_t pseudo = is_ip4 ? add_words(packet + 12, 8, 0) : add_words(packet + 8, 32, 0);
    pseudo += protocol + end - at;
    if (is_ip4 && add_words(packet, at, 0) != 0xFFFF)
        return false;
    switch (protocol)
    {
    case 1:
        return !is_ip4 || add_words(packet + at, end - at, 0) == 0xFFFF;
    case 58:
        return is_ip4 || add_words(packet + at, end - at, pseudo) == 0xFFFF;
    case 17:
        return (packet[at + 6] || packet[at + 7]) && add_words(packet + at, end - at, pseudo) == 0xFFFF;
    case 6:
        return add_words(packet + at, end - at, pseudo) == 0xFFFF;
    default:
        return true;
    }
}

static void
test_right_packets(void)
{
    unsigned clamped = 0;
    BYTE packet[400], before[400];
    for (unsigned i = 0; i < 20000; i++)
    {
        const uint32_t length = make_packet(packet);
        CHECK(tunring_fill_checksums(packet, length + check_random(&state) % 3));
        CHECK(verifies(packet));
        memcpy(before, packet, sizeof(packet));
        const uint32_t mss = 48 + check_random(&state) % 3000;
        if (tunring_clamp_mss(packet, length, mss, mss + 100))
        {
            clamped++;
            CHECK(verifies(packet) && memcmp(before, packet, sizeof(packet)) != 0);
            CHECK(!tunring_clamp_mss(packet, length, mss, mss + 100));
        }
        else
            CHECK(memcmp(before, packet, sizeof(packet)) == 0);
    }
    CHECK(clamped > 1000);
}

/* Nothing beyond the packet is touched, however its fields lie. */
static void
test_wrong_packets(void)
{
    BYTE packet[400];
    for (unsigned i = 0; i < 100000; i++)
    {
        uint32_t length = make_packet(packet);
        for (unsigned changes = check_random(&state) % 4; changes > 0; changes--)
            packet[check_random(&state) % 80] = (BYTE)check_random(&state);
        length = check_random(&state) % 3 ? check_random(&state) % (length + 1) : length;
        BYTE *exact = exact_copy(packet, length);
        (void)tunring_fill_checksums(exact, length);
        (void)tunring_clamp_mss(exact, length, 500, 500);
        free(exact);
    }
}

static void
test_left_alone(void)
{
    BYTE packet[400], before[400];
    for (unsigned i = 0; i < 1000; i++)
    {
        const uint32_t length = make_packet(packet);
        if (packet[0] >> 4 != 4)
            continue;
        packet[6] = 0x20; /* more fragments */
        memcpy(before, packet, sizeof(packet));
        CHECK(!tunring_fill_checksums(packet, length));
        CHECK_EQUAL(add_words(packet, (packet[0] & 15) * 4u, 0), 0xFFFF);
        memcpy(before + 10, packet + 10, 2);
        CHECK(memcmp(before, packet, sizeof(packet)) == 0);
        CHECK(!tunring_clamp_mss(packet, length, 500, 500));
        packet[3]++;
        CHECK(!tunring_fill_checksums(packet, length));
    }
}

int
main(void)
{
    test_right_packets();
    test_wrong_packets();
    test_left_alone();
    return 0;
}
