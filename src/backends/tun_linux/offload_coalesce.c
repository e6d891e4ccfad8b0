/* SPDX-License-Identifier: MIT
 *
 * Finds what can be merged. The rules are those of the kernel's own GRO, and stricter where a superpacket with this
 * virtio header can't express what GRO could.
 *
 * A flow's newest group may grow; a packet that doesn't fit starts another one, which takes its place. Groups are
 * written in the order of their first packets, so the order within each flow comes by itself.
 */
#include "backends/tun_linux/offload_coalesce.h"

#include "packet/checksum.h"

/* TCP flags that a segment of a superpacket may have. */
#define MERGEABLE (TCP_FIN | TCP_PSH | TCP_ACK | TCP_ECE | TCP_CWR)

/* ---- Flows ---- */

/* Without options and extensions, the two ports directly follow the addresses. */
static uint32_t
flow_offset(const offload_headers *headers)
{
    return headers->version == 4 ? IP4_ADDRESSES : IP6_ADDRESSES;
}

static uint32_t
flow_size(const offload_headers *headers)
{
    return headers->version == 4 ? 8 + 4 : 32 + 4;
}

static bool
same_flow(const offload_run *run, const offload_group *group, const BYTE *packet, const offload_headers *headers)
{
    const BYTE *first = run->packets[group->first].data;
    if (group->headers.version != headers->version || group->headers.protocol != headers->protocol)
        return false;
    /* With sizes that the compiler knows, for speed. */
    return headers->version == 4 ? memcmp(first + IP4_ADDRESSES, packet + IP4_ADDRESSES, 8 + 4) == 0
                                 : memcmp(first + IP6_ADDRESSES, packet + IP6_ADDRESSES, 32 + 4) == 0;
}

/* The place of the packet's flow in the table, which has always more places than groups. */
static uint16_t *
find_flow(offload_run *run, const BYTE *packet, const offload_headers *headers)
{
    const uint32_t size = flow_size(headers);
    const BYTE *flow = packet + flow_offset(headers);
    uint32_t hash = headers->protocol;
    for (uint32_t i = 0; i < size; i += 4)
        hash = (hash ^ packet_get32(flow + i)) * 0x9E3779B1u;
    for (uint32_t place = hash >> 23;; place = (place + 1) % (2 * OFFLOAD_RUN))
    {
        uint16_t *found = &run->flows[place];
        if (*found == 0 || same_flow(run, &run->groups[*found - 1], packet, headers))
            return found;
    }
}

/* A packet without a flow may not be overtaken by what comes after it. */
static void
close_groups(offload_run *run, const tunring_packet *packet)
{
    const BYTE *data = packet->data;
    const unsigned version = packet->length ? data[0] >> 4 : 0;
    const uint32_t header = version == 4 ? IP4_HEADER : IP6_HEADER;
    const bool has_addresses = (version == 4 || version == 6) && packet->length >= header;
    const uint32_t offset = version == 4 ? IP4_ADDRESSES : IP6_ADDRESSES;
    for (uint32_t i = 0; i < run->group_count; i++)
    {
        offload_group *group = &run->groups[i];
        const BYTE *first = run->packets[group->first].data;
        if (!group->open)
            continue;
        if (!has_addresses ||
            (group->headers.version == version && memcmp(first + offset, data + offset, version == 4 ? 8 : 32) == 0))
            group->open = false;
    }
}

/* ---- What fits together ---- */

static bool
checksums_verify(const tunring_packet *packet, const offload_headers *headers)
{
    const BYTE *data = packet->data;
    const uint32_t length = packet->length - headers->transport;
    if (headers->version == 4 && packet_fold(packet_sum(data, IP4_HEADER, 0)) != 0xFFFFu)
        return false;
    const uint64_t pseudo = (uint64_t)offload_pseudo_sum(headers, data) + packet_word(length);
    return packet_fold(packet_sum(data + headers->transport, length, pseudo)) == 0xFFFFu;
}

/* True if something may be merged with the packet at all, before it (`first`) or after it. */
static bool
mergeable(const BYTE *packet, uint32_t length, const offload_headers *headers, unsigned offloads, bool first)
{
    const BYTE *transport = packet + headers->transport;
    if (length == headers->length)
        return false;
    if (headers->protocol == PROTOCOL_UDP)
    {
        const uint8_t hops = packet[headers->version == 4 ? IP4_TTL : IP6_HOP_LIMIT];
        /* Without a checksum nothing can be verified, and the kernel would add one. */
        const bool summed = (offloads & OFFLOAD_FILL) || packet_load_word(transport + UDP_CHECKSUM) != 0;
        return (offloads & OFFLOAD_USO) && hops > OFFLOAD_PROBE_HOPS && summed;
    }
    const uint8_t flags = transport[TCP_FLAGS];
    /* In the kernel's segments FIN and PSH are on the last one only, CWR on the first. */
    const uint8_t barred = (uint8_t)~(first ? MERGEABLE & ~(TCP_FIN | TCP_PSH) : MERGEABLE & ~TCP_CWR);
    return (offloads & (headers->version == 4 ? OFFLOAD_TSO4 : OFFLOAD_TSO6)) && (flags & barred) == 0;
}

/* Identifications have to come out as they are, counted up from the first one, unless fragments are forbidden: then
 * nobody may read a meaning into them (RFC 6864). */
static bool
same_ip4(const BYTE *first, const BYTE *packet, uint32_t distance)
{
    const uint16_t identification = (uint16_t)(packet_get16(first + IP4_IDENTIFICATION) + distance);
    return first[1] == packet[1] && memcmp(first + IP4_FRAGMENT, packet + IP4_FRAGMENT, 3) == 0 &&
           ((packet_get16(packet + IP4_FRAGMENT) & IP4_DONT_FRAGMENT) ||
            packet_get16(packet + IP4_IDENTIFICATION) == identification);
}

/* Class and flow label, and the hop limit. */
static bool
same_ip6(const BYTE *first, const BYTE *packet)
{
    return memcmp(first, packet, 4) == 0 && first[7] == packet[7];
}

/* Both TCP headers of the same size, but for sequence number, checksum and flags that may differ. */
static bool
same_tcp(const BYTE *first, const BYTE *packet, uint32_t size)
{
    const uint8_t differing = (uint8_t)(first[TCP_FLAGS] ^ packet[TCP_FLAGS]);
    return memcmp(first + 8, packet + 8, 5) == 0 && (differing & ~(TCP_FIN | TCP_PSH | TCP_CWR)) == 0 &&
           memcmp(first + 14, packet + 14, 2) == 0 && memcmp(first + 18, packet + 18, size - 18) == 0;
}

/* By the headers alone. */
static bool
fits(const offload_run *run, const offload_group *group, const tunring_packet *packet, const offload_headers *headers)
{
    const BYTE *first = run->packets[group->first].data;
    const BYTE *data = packet->data;
    const uint32_t payload = packet->length - headers->length;
    if (headers->length != group->headers.length || payload > group->segment ||
        group->length + payload > WINTUN_MAX_IP_PACKET_SIZE)
        return false;
    if (headers->version == 4 ? !same_ip4(first, data, group->count) : !same_ip6(first, data))
        return false;
    if (headers->protocol == PROTOCOL_UDP)
        return group->count < OFFLOAD_DATAGRAMS;
    return packet_get32(data + headers->transport + TCP_SEQUENCE) == group->sequence &&
           same_tcp(first + headers->transport, data + headers->transport, headers->length - headers->transport);
}

/* ---- Grouping ---- */

static offload_group *
start_group(offload_run *run, uint32_t index)
{
    offload_group *group = &run->groups[run->group_count++];
    *group = (offload_group){.first = (uint16_t)index, .last = (uint16_t)index, .count = 1};
    return group;
}

static void
start_flow(offload_run *run, uint32_t index, const offload_headers *headers, unsigned offloads)
{
    const tunring_packet *packet = &run->packets[index];
    offload_group *group = start_group(run, index);
    group->headers = *headers;
    group->open = mergeable(packet->data, packet->length, headers, offloads, true);
    group->length = packet->length;
    group->segment = packet->length - headers->length;
    if (headers->protocol == PROTOCOL_TCP)
    {
        group->sequence = packet_get32(packet->data + headers->transport + TCP_SEQUENCE) + group->segment;
        group->flags = packet->data[headers->transport + TCP_FLAGS];
    }
}

static void
append(offload_run *run, offload_group *group, uint32_t index, const offload_headers *headers)
{
    const tunring_packet *packet = &run->packets[index];
    const uint32_t payload = packet->length - headers->length;
    run->next[group->last] = (uint16_t)index;
    group->last = (uint16_t)index;
    group->count++;
    group->length += payload;
    group->sequence += payload;
    if (headers->protocol == PROTOCOL_TCP)
        group->flags |= packet->data[headers->transport + TCP_FLAGS] & (TCP_FIN | TCP_PSH);
    group->open = payload == group->segment && !(group->flags & (TCP_FIN | TCP_PSH));
}

/* Checksums come last, since they cost most: that of a first packet only once another one would follow it. */
static bool
joins(const offload_run *run, offload_group *group, const tunring_packet *packet, const offload_headers *headers,
      unsigned offloads)
{
    if (!group->open || !mergeable(packet->data, packet->length, headers, offloads, false) ||
        !fits(run, group, packet, headers))
        return false;
    if (offloads & OFFLOAD_FILL)
        return true;
    if (!group->verified)
        group->verified = checksums_verify(&run->packets[group->first], &group->headers);
    return group->verified && checksums_verify(packet, headers);
}

void
offload_coalesce(offload_run *run, const tunring_packet *packets, uint32_t count, unsigned offloads)
{
    run->packets = packets;
    run->group_count = 0;
    /* A packet alone joins nothing, and an empty ring has none: clearing the table would be most of what they cost. */
    if (count < 2 || !(offloads & ~OFFLOAD_FILL))
    {
        for (uint32_t i = 0; i < count; i++)
            (void)start_group(run, i);
        return;
    }
    memset(run->flows, 0, sizeof(run->flows));
    uint16_t *flow = NULL; /* of the packet before: most often this one's too */
    for (uint32_t i = 0; i < count; i++)
    {
        offload_headers headers;
        if (!offload_headers_parse(&headers, packets[i].data, packets[i].length) || headers.extended)
        {
            close_groups(run, &packets[i]);
            (void)start_group(run, i);
            continue;
        }
        if (!flow || !same_flow(run, &run->groups[*flow - 1], packets[i].data, &headers))
            flow = find_flow(run, packets[i].data, &headers);
        offload_group *group = *flow ? &run->groups[*flow - 1] : NULL;
        if (group && joins(run, group, &packets[i], &headers, offloads))
        {
            append(run, group, i, &headers);
            continue;
        }
        start_flow(run, i, &headers, offloads);
        *flow = (uint16_t)run->group_count;
    }
}

/* ---- Writing ---- */

static void
add_piece(offload_frame *frame, const BYTE *data, size_t length)
{
    /* writev() only reads. */
    frame->pieces[frame->count++] = (struct iovec){.iov_base = (void *)(uintptr_t)data, .iov_len = length};
}

void
offload_packet_frame(const tunring_packet *packet, offload_frame *frame)
{
    memset(frame->head, 0, sizeof(virtio_header));
    frame->count = 0;
    add_piece(frame, frame->head, sizeof(virtio_header));
    add_piece(frame, packet->data, packet->length);
}

static uint8_t
gso_type(const offload_group *group)
{
    if (group->headers.protocol == PROTOCOL_UDP)
        return VIRTIO_GSO_UDP;
    return (uint8_t)((group->headers.version == 4 ? VIRTIO_GSO_TCP4 : VIRTIO_GSO_TCP6) |
                     (group->flags & TCP_CWR ? VIRTIO_GSO_ECN : 0));
}

/* Makes the first packet's headers those of the superpacket. */
static void
finish_headers(const offload_group *group, BYTE *packet)
{
    const offload_headers *headers = &group->headers;
    BYTE *transport = packet + headers->transport;
    const uint32_t length = group->length - headers->transport;
    if (headers->version == 4)
    {
        packet_put16(packet + IP4_LENGTH, group->length);
        packet_store_word(packet + IP4_CHECKSUM, 0);
        packet_store_word(packet + IP4_CHECKSUM, (uint16_t)~packet_fold(packet_sum(packet, IP4_HEADER, 0)));
    }
    else
        packet_put16(packet + IP6_LENGTH, length);
    if (headers->protocol == PROTOCOL_UDP)
        packet_put16(transport + UDP_LENGTH, length);
    else
        transport[TCP_FLAGS] = group->flags;
    const uint64_t pseudo = (uint64_t)offload_pseudo_sum(headers, packet) + packet_word(length);
    packet_store_word(transport + offload_checksum_offset(headers), packet_fold(pseudo));
}

/* Begins the frame of a group with the virtio header and the headers that belong to it. */
static void
begin_frame(offload_frame *frame, const offload_group *group, const BYTE *first, uint8_t type, uint32_t segment)
{
    const offload_headers *headers = &group->headers;
    const virtio_header virtio = {
        .flags = VIRTIO_NEEDS_CHECKSUM,
        .gso_type = type,
        .header_length = (uint16_t)headers->length,
        .gso_size = (uint16_t)segment,
        .checksum_start = (uint16_t)headers->transport,
        .checksum_offset = (uint16_t)offload_checksum_offset(headers),
    };
    memcpy(frame->head, &virtio, sizeof(virtio));
    memcpy(frame->head + sizeof(virtio), first, headers->length);
    finish_headers(group, frame->head + sizeof(virtio));
    frame->count = 0;
    add_piece(frame, frame->head, sizeof(virtio) + headers->length);
}

bool
offload_filled_frame(const tunring_packet *packet, offload_frame *frame)
{
    offload_group group = {.length = packet->length};
    const offload_headers *headers = &group.headers;
    if (!offload_headers_parse(&group.headers, packet->data, packet->length) || headers->extended)
        return false;
    if (headers->protocol == PROTOCOL_TCP)
        group.flags = packet->data[headers->transport + TCP_FLAGS];
    begin_frame(frame, &group, packet->data, VIRTIO_GSO_NONE, 0);
    if (packet->length > headers->length)
        add_piece(frame, packet->data + headers->length, packet->length - headers->length);
    return true;
}

void
offload_group_frame(const offload_run *run, const offload_group *group, offload_frame *frame)
{
    const offload_headers *headers = &group->headers;
    uint32_t index = group->first;
    if (group->count == 1)
    {
        offload_packet_frame(&run->packets[index], frame);
        return;
    }
    begin_frame(frame, group, run->packets[index].data, gso_type(group), group->segment);
    for (uint32_t i = 0; i < group->count; i++, index = run->next[index])
        add_piece(frame, run->packets[index].data + headers->length, run->packets[index].length - headers->length);
}
