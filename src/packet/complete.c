/* SPDX-License-Identifier: MIT
 *
 * Checksums and segment sizes, written into packets. Another thread may change a packet meanwhile: a length is read
 * once, and what was checked is used.
 */
#include "packet/checksum.h"
#include "tunring_packets.h"

enum
{
    IP4 = 20,
    IP6 = 40,
    FRAGMENT = 8, /* bytes of an IPv6 fragment header */
    TCP = 20,
    UDP = 8,
    ICMP = 8
};

enum
{
    PROTOCOL_HOP_BY_HOP = 0,
    PROTOCOL_ICMP = 1,
    PROTOCOL_TCP = 6,
    PROTOCOL_UDP = 17,
    PROTOCOL_ROUTING = 43,
    PROTOCOL_FRAGMENT = 44,
    PROTOCOL_ICMP6 = 58,
    PROTOCOL_DESTINATION_OPTIONS = 60,
    PROTOCOL_UNKNOWN = 255 /* a fragment's: its first bytes are not a header, or not all of one */
};

/* IPv4 options that are not followed by a length, and the source routes. */
enum
{
    OPTION_END = 0,
    OPTION_NOTHING = 1,
    OPTION_LOOSE_ROUTE = 131,
    OPTION_STRICT_ROUTE = 137
};

#define TCP_OPTION_MSS 2
#define TCP_SYN 0x02u

/* Where things are in a packet. */
typedef struct layout
{
    unsigned version;
    unsigned protocol;  /* of what is behind all headers of IP */
    bool routed;        /* the destination in the header is not the last one, which the checksum is about */
    uint32_t transport; /* where that begins */
    uint32_t end;       /* and ends: the packet may be padded */
} layout;

/* Returns whether a source route still has somewhere to go. */
static bool
has_source_route(const BYTE *options, const BYTE *end)
{
    while (options < end && *options != OPTION_END)
    {
        if (*options == OPTION_NOTHING)
        {
            options++;
            continue;
        }
        const BYTE size = end - options < 3 ? 0 : options[1];
        if (size < 2 || size > end - options)
            return false;
        if ((*options == OPTION_LOOSE_ROUTE || *options == OPTION_STRICT_ROUTE) && options[2] <= size)
            return true;
        options += size;
    }
    return false;
}

static bool
read_ip4(layout *found, const BYTE *packet, uint32_t length)
{
    if (length < IP4)
        return false;
    found->transport = (packet[0] & 0xFu) * 4;
    found->end = packet_get16(packet + 2);
    if (found->transport < IP4 || found->transport > found->end || found->end > length)
        return false;
    found->version = 4;
    /* Neither an offset nor "more fragments". */
    found->protocol = packet_get16(packet + 6) & 0x3FFFu ? PROTOCOL_UNKNOWN : packet[9];
    found->routed = has_source_route(packet + IP4, packet + found->transport);
    return true;
}

/* Steps over one extension header. False if it is not all there. */
static bool
step(layout *found, const BYTE *packet)
{
    const BYTE *header = packet + found->transport;
    const uint32_t left = found->end - found->transport;
    if (left < 8)
        return false;
    const uint32_t size = found->protocol == PROTOCOL_FRAGMENT ? FRAGMENT : (header[1] + 1u) * 8;
    if (left < size)
        return false;
    if (found->protocol == PROTOCOL_ROUTING && header[3] > 0)
        found->routed = true;
    /* An offset, or "more fragments". */
    const bool fragment = found->protocol == PROTOCOL_FRAGMENT && (packet_get16(header + 2) & 0xFFF9u) != 0;
    found->protocol = fragment ? PROTOCOL_UNKNOWN : header[0];
    found->transport += size;
    return true;
}

static bool
is_extension(unsigned protocol)
{
    return protocol == PROTOCOL_HOP_BY_HOP || protocol == PROTOCOL_ROUTING || protocol == PROTOCOL_FRAGMENT ||
           protocol == PROTOCOL_DESTINATION_OPTIONS;
}

static bool
read_ip6(layout *found, const BYTE *packet, uint32_t length)
{
    if (length < IP6)
        return false;
    found->version = 6;
    found->protocol = packet[6];
    found->routed = false;
    found->transport = IP6;
    found->end = IP6 + packet_get16(packet + 4);
    if (found->end > length)
        return false;
    while (is_extension(found->protocol))
        if (!step(found, packet))
            return false;
    return true;
}

static bool
read_layout(layout *found, const BYTE *packet, uint32_t length)
{
    if (length == 0)
        return false;
    switch (packet[0] >> 4)
    {
    case 4:
        return read_ip4(found, packet, length);
    case 6:
        return read_ip6(found, packet, length);
    default:
        return false;
    }
}

/* ---- Checksums ---- */

/* Writes the checksum of these bytes at `place`, which is among them; `sum` is that of what comes before them. */
static uint16_t
store_checksum(BYTE *place, const BYTE *bytes, uint32_t length, uint64_t sum)
{
    packet_store_word(place, 0);
    const uint16_t checksum = (uint16_t)~packet_fold(packet_sum(bytes, length, sum));
    packet_store_word(place, checksum);
    return checksum;
}

static uint64_t
pseudo_sum(const layout *found, const BYTE *packet, uint32_t size)
{
    const uint64_t sum = (uint64_t)packet_word(found->protocol) + packet_word(size);
    return found->version == 4 ? packet_sum(packet + 12, 8, sum) : packet_sum(packet + 8, 32, sum);
}

static bool
fill_udp(const layout *found, BYTE *packet)
{
    BYTE *datagram = packet + found->transport;
    const uint32_t left = found->end - found->transport;
    const uint32_t size = left >= UDP ? packet_get16(datagram + 4) : 0;
    if (size < UDP || size > left)
        return false;
    /* 0 would mean: without a checksum. */
    if (store_checksum(datagram + 6, datagram, size, pseudo_sum(found, packet, size)) == 0)
        packet_store_word(datagram + 6, 0xFFFF);
    return true;
}

static bool
fill_transport(const layout *found, BYTE *packet)
{
    BYTE *transport = packet + found->transport;
    const uint32_t size = found->end - found->transport;
    switch (found->protocol)
    {
    case PROTOCOL_UDP:
        return !found->routed && fill_udp(found, packet);
    case PROTOCOL_TCP:
        if (found->routed || size < TCP)
            return false;
        store_checksum(transport + 16, transport, size, pseudo_sum(found, packet, size));
        return true;
    case PROTOCOL_ICMP:
        if (found->version == 4 && size < ICMP)
            return false;
        if (found->version == 4)
            store_checksum(transport + 2, transport, size, 0);
        return true;
    case PROTOCOL_ICMP6:
        if (found->version == 6 && (found->routed || size < ICMP))
            return false;
        if (found->version == 6)
            store_checksum(transport + 2, transport, size, pseudo_sum(found, packet, size));
        return true;
    default:
        return found->protocol != PROTOCOL_UNKNOWN;
    }
}

bool
tunring_fill_checksums(BYTE *packet, uint32_t length)
{
    layout found;
    if (!read_layout(&found, packet, length))
        return false;
    if (found.version == 4)
        store_checksum(packet + 10, packet, found.transport, 0);
    return fill_transport(&found, packet);
}

/* ---- Segment sizes ---- */

/* Where the option's value is, in a header of that size; or NULL. */
static BYTE *
find_mss(BYTE *segment, uint32_t size)
{
    BYTE *at = segment + TCP, *end = segment + size;
    while (at < end && *at != OPTION_END)
    {
        if (*at == OPTION_NOTHING)
        {
            at++;
            continue;
        }
        const BYTE option = end - at < 2 ? 0 : at[1];
        if (option < 2 || option > end - at)
            return NULL;
        if (*at == TCP_OPTION_MSS)
            return option == 4 ? at + 2 : NULL;
        at += option;
    }
    return NULL;
}

/* A number's part of a sum that words are added to from `segment` on. */
static uint16_t
part_of_sum(const BYTE *segment, const BYTE *place)
{
    const BYTE swapped[2] = {place[1], place[0]};
    return packet_load_word((place - segment) & 1 ? swapped : place);
}

bool
tunring_clamp_mss(BYTE *packet, uint32_t length, uint32_t ip4_mss, uint32_t ip6_mss)
{
    layout found;
    if (!read_layout(&found, packet, length) || found.protocol != PROTOCOL_TCP)
        return false;
    BYTE *segment = packet + found.transport;
    const uint32_t left = found.end - found.transport, mss = found.version == 4 ? ip4_mss : ip6_mss;
    if (left < TCP || !(segment[13] & TCP_SYN))
        return false;
    const uint32_t size = (segment[12] >> 4) * 4u;
    if (size < TCP || size > left)
        return false;
    BYTE *value = find_mss(segment, size);
    if (!value || packet_get16(value) <= mss)
        return false;
    /* RFC 1624: what is subtracted is added as its complement. */
    uint64_t sum = (uint16_t)~packet_load_word(segment + 16);
    sum += (uint16_t)~part_of_sum(segment, value);
    packet_put16(value, mss);
    sum += part_of_sum(segment, value);
    packet_store_word(segment + 16, (uint16_t)~packet_fold(sum));
    return true;
}

/* ---- Several ---- */

static BYTE *
writable(const tunring_packet *packet)
{
    return (BYTE *)(uintptr_t)packet->data;
}

uint32_t
tunring_packets_fill_checksums(const tunring_packet *packets, uint32_t count)
{
    uint32_t filled = 0;
    for (uint32_t i = 0; i < count; i++)
        filled += tunring_fill_checksums(writable(&packets[i]), packets[i].length);
    return filled;
}

uint32_t
tunring_packets_clamp_mss(const tunring_packet *packets, uint32_t count, uint32_t ip4_mss, uint32_t ip6_mss)
{
    uint32_t clamped = 0;
    for (uint32_t i = 0; i < count; i++)
        clamped += tunring_clamp_mss(writable(&packets[i]), packets[i].length, ip4_mss, ip6_mss);
    return clamped;
}
