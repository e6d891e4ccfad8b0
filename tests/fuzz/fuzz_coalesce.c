/* SPDX-License-Identifier: MIT
 *
 * Coalesces whatever comes, and splits it again. Input: the offloads, then for each packet a byte that selects what to
 * do, a length of 2 bytes (low, high) and that many bytes.
 *
 * A fuzzer doesn't guess checksums or sequence numbers, so the byte may ask for them: COPY starts with the packet
 * before it, moved on by its payload, and adds the bytes to it by exclusive or; SEAL makes lengths and checksums right.
 */
#include "fuzz.h"
#include "packet/checksum.h"
#include "backends/tun_linux/offload_coalesce.h"
#include "backends/tun_linux/offload_split.h"

#define COPY 1u
#define SEAL 2u
#define MAX_LENGTH 3000u

typedef struct input
{
    tunring_packet packets[OFFLOAD_RUN];
    uint32_t count;
} input;

static void
move_on(BYTE *packet, uint32_t length)
{
    offload_headers headers;
    if (!offload_headers_parse(&headers, packet, length))
        return;
    BYTE *sequence = packet + headers.transport + TCP_SEQUENCE;
    if (headers.protocol == PROTOCOL_TCP)
        packet_put32(sequence, packet_get32(sequence) + length - headers.length);
    if (headers.version == 4)
        packet_put16(packet + IP4_IDENTIFICATION, packet_get16(packet + IP4_IDENTIFICATION) + 1u);
}

static void
seal(BYTE *packet, uint32_t length)
{
    const bool ip4 = length >= IP4_HEADER && packet[0] >> 4 == 4, ip6 = length >= IP6_HEADER && packet[0] >> 4 == 6;
    const uint32_t transport = ip4 ? IP4_HEADER : IP6_HEADER;
    if (ip4)
        packet_put16(packet + IP4_LENGTH, length);
    if (ip6)
        packet_put16(packet + IP6_LENGTH, length - IP6_HEADER);
    if ((ip4 || ip6) && packet[ip4 ? 9 : 6] == PROTOCOL_UDP && length >= transport + UDP_HEADER)
        packet_put16(packet + transport + UDP_LENGTH, length - transport);
    offload_headers headers;
    if (!offload_headers_parse(&headers, packet, length) || headers.extended)
        return;
    if (ip4)
    {
        packet_put16(packet + IP4_CHECKSUM, 0);
        packet_put16(packet + IP4_CHECKSUM, ~add_words(packet, IP4_HEADER, 0));
    }
    BYTE *checksum = packet + transport + offload_checksum_offset(&headers);
    const uint32_t pseudo = ip4 ? add_words(packet + 12, 8, 0) : add_words(packet + 8, 32, 0);
    packet_put16(checksum, 0);
    const uint32_t sum =
        add_words(packet + transport, length - transport, pseudo + headers.protocol + length - transport);
    packet_put16(checksum, headers.protocol == PROTOCOL_UDP && sum == 0xFFFF ? sum : ~sum);
}

static void
read_input(input *input, const uint8_t *data, size_t size)
{
    for (input->count = 0; size >= 3 && input->count < OFFLOAD_RUN; input->count++)
    {
        const uint8_t how = data[0];
        uint32_t length = (data[1] | (uint32_t)data[2] << 8) % MAX_LENGTH;
        const tunring_packet *last = input->count ? &input->packets[input->count - 1] : NULL;
        length = length < size - 3 ? length : (uint32_t)(size - 3);
        const bool copy = how & COPY && last && last->length >= length;
        const uint32_t total = copy ? last->length : length;
        BYTE *packet = exact_copy(copy ? last->data : data + 3, total);
        if (copy)
        {
            move_on(packet, total);
            for (uint32_t i = 0; i < length; i++)
                packet[i] ^= data[3 + i];
        }
        if (how & SEAL)
            seal(packet, total);
        input->packets[input->count] = (tunring_packet){packet, total};
        data += 3 + length;
        size -= 3 + length;
    }
}

/* But for what no receiver may see a difference in: the identification of an IPv4 packet that must not be fragmented,
 * and the two zeros of one's complement. */
static void
check_same(const BYTE *got, const tunring_packet *packet, const offload_headers *headers)
{
    BYTE *expected = exact_copy(packet->data, packet->length);
    if (headers->version == 4)
    {
        REQUIRE(add_words(expected, IP4_HEADER, 0) == 0xFFFF && add_words(got, IP4_HEADER, 0) == 0xFFFF);
        if (packet_get16(expected + IP4_FRAGMENT) & IP4_DONT_FRAGMENT)
            memcpy(expected + IP4_IDENTIFICATION, got + IP4_IDENTIFICATION, 2);
        memcpy(expected + IP4_CHECKSUM, got + IP4_CHECKSUM, 2);
    }
    BYTE *checksum = expected + headers->transport + offload_checksum_offset(headers);
    if (headers->protocol == PROTOCOL_TCP && packet_get16(checksum) == 0xFFFF)
        packet_put16(checksum, 0);
    REQUIRE(memcmp(got, expected, packet->length) == 0);
    free(expected);
}

static void
check_group(const offload_run *run, const offload_group *group)
{
    uint32_t length = 0, index = group->first;
    offload_frame frame;
    offload_group_frame(run, group, &frame);
    virtio_header virtio;
    memcpy(&virtio, frame.pieces[0].iov_base, sizeof(virtio));
    static BYTE whole[65536];
    for (uint32_t i = 0; i < frame.count; i++)
    {
        const uint32_t skip = i ? 0 : (uint32_t)sizeof(virtio), size = (uint32_t)frame.pieces[i].iov_len - skip;
        REQUIRE(length + size <= 65535);
        if (size)
            memcpy(whole + length, (const BYTE *)frame.pieces[i].iov_base + skip, size);
        length += size;
    }
    if (group->count == 1)
    {
        REQUIRE(virtio.gso_type == VIRTIO_GSO_NONE && virtio.flags == 0 && length == run->packets[index].length);
        return;
    }
    /* In memory that ends with it. */
    BYTE *copy = exact_copy(whole, length);
    offload_split split;
    REQUIRE(offload_split_begin(&split, &virtio, copy, length) && split.left == group->count);
    for (uint32_t i = 0; i < group->count; i++, index = run->next[index])
    {
        const uint32_t next = offload_split_next(&split);
        REQUIRE(next == run->packets[index].length);
        BYTE *place = malloc(next);
        REQUIRE(place);
        offload_split_write(&split, place);
        check_same(place, &run->packets[index], &group->headers);
        free(place);
    }
    free(copy);
}

/* The fields that the order of a packet depends on. */
typedef struct place
{
    uint8_t addresses; /* bytes of both; 0 if it has none */
    bool in_flow;
    offload_headers headers;
} place;

static place
place_of(const tunring_packet *packet)
{
    const unsigned version = packet->length ? packet->data[0] >> 4 : 0;
    place place = {0};
    if (version == 4 && packet->length >= IP4_HEADER)
        place.addresses = 8;
    if (version == 6 && packet->length >= IP6_HEADER)
        place.addresses = 32;
    place.in_flow = offload_headers_parse(&place.headers, packet->data, packet->length) && !place.headers.extended;
    return place;
}

/* Packets between the same addresses may overtake each other only if they are of different flows, and nothing overtakes
 * what is of none. */
static bool
ordered(const tunring_packet *one, const tunring_packet *other)
{
    const place a = place_of(one), b = place_of(other);
    if (a.addresses == 0 || b.addresses == 0)
        return true;
    const uint32_t offset = a.addresses == 8 ? IP4_ADDRESSES : IP6_ADDRESSES;
    if (a.addresses != b.addresses || memcmp(one->data + offset, other->data + offset, a.addresses) != 0)
        return false;
    const uint32_t ports = offset + a.addresses;
    return !a.in_flow || !b.in_flow ||
           (a.headers.protocol == b.headers.protocol && memcmp(one->data + ports, other->data + ports, 4) == 0);
}

/* Every packet is in one group. */
static void
list_groups(const offload_run *run, uint32_t count, uint32_t *groups)
{
    memset(groups, 0xFF, OFFLOAD_RUN * sizeof(*groups));
    uint32_t packets = 0;
    for (uint32_t g = 0; g < run->group_count; g++)
    {
        uint32_t index = run->groups[g].first;
        REQUIRE(run->groups[g].count > 0);
        for (uint32_t i = 0; i < run->groups[g].count; i++, index = run->next[index])
        {
            REQUIRE(index < count && groups[index] == UINT32_MAX);
            groups[index] = g;
            packets++;
        }
    }
    REQUIRE(packets == count);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    static input input;
    read_input(&input, data + 1, size - 1);
    static offload_run run;
    offload_coalesce(&run, input.packets, input.count, data[0]);
    /* Packets whose checksums are to be filled look in the end as if they had been filled before. */
    for (uint32_t i = 0; data[0] & OFFLOAD_FILL && i < input.count; i++)
        seal((BYTE *)(uintptr_t)input.packets[i].data, input.packets[i].length);
    uint32_t groups[OFFLOAD_RUN];
    list_groups(&run, input.count, groups);
    for (uint32_t g = 0; g < run.group_count; g++)
        check_group(&run, &run.groups[g]);
    for (uint32_t i = 0; i < input.count; i++)
        for (uint32_t k = 0; k < i; k++)
            REQUIRE(groups[k] <= groups[i] || !ordered(&input.packets[k], &input.packets[i]));
    for (uint32_t i = 0; i < input.count; i++)
        free((BYTE *)(uintptr_t)input.packets[i].data);
    return 0;
}
