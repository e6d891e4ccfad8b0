/* SPDX-License-Identifier: MIT
 *
 * Parses IPv4 and IPv6 with TCP and UDP.
 */
#include "backends/tun_linux/offload_headers.h"

#include "packet/checksum.h"

#define IP6_HOP_BY_HOP 0u
#define IP6_ROUTING 43u
#define IP6_DESTINATION_OPTIONS 60u

/* The length in an IP header. A sender may leave that of a superpacket unset, at 0: what is read is then the length. */
static bool
length_fits(const BYTE *field, uint32_t length, bool super)
{
    const uint32_t stored = packet_get16(field);
    return stored == length || (super && stored == 0);
}

static bool
parse_ip4(offload_headers *headers, const BYTE *packet, uint32_t length, bool super)
{
    if (length < IP4_HEADER || !length_fits(packet + IP4_LENGTH, length, super))
        return false;
    headers->version = 4;
    headers->protocol = packet[9];
    headers->transport = (packet[0] & 0xFu) * 4;
    headers->extended = headers->transport > IP4_HEADER;
    /* Neither an offset nor "more fragments". */
    return headers->transport >= IP4_HEADER && headers->transport <= length &&
           (packet_get16(packet + IP4_FRAGMENT) & 0x3FFFu) == 0;
}

/* Extension headers that stand in front of any transport header. A fragment header isn't one of them, and neither are
 * those of IPsec. */
static bool
is_extension(uint8_t protocol)
{
    return protocol == IP6_HOP_BY_HOP || protocol == IP6_ROUTING || protocol == IP6_DESTINATION_OPTIONS;
}

static bool
parse_ip6(offload_headers *headers, const BYTE *packet, uint32_t length, bool super)
{
    if (length < IP6_HEADER || !length_fits(packet + IP6_LENGTH, length - IP6_HEADER, super))
        return false;
    headers->version = 6;
    headers->protocol = packet[6];
    headers->transport = IP6_HEADER;
    headers->extended = false;
    while (is_extension(headers->protocol))
    {
        const BYTE *extension = packet + headers->transport;
        if (length - headers->transport < 8)
            return false;
        const uint32_t size = (extension[1] + 1u) * 8;
        if (length - headers->transport < size)
            return false;
        headers->protocol = extension[0];
        headers->transport += size;
        headers->extended = true;
    }
    return true;
}

static bool
parse_transport(offload_headers *headers, const BYTE *packet, uint32_t length, bool super)
{
    const BYTE *transport = packet + headers->transport;
    const uint32_t left = length - headers->transport;
    uint32_t size;
    if (headers->protocol == PROTOCOL_TCP)
    {
        if (left < TCP_HEADER)
            return false;
        size = (transport[12] >> 4) * 4u;
        if (size < TCP_HEADER || size > left)
            return false;
    }
    else if (headers->protocol == PROTOCOL_UDP)
    {
        if (left < UDP_HEADER || (!super && packet_get16(transport + UDP_LENGTH) != left))
            return false;
        size = UDP_HEADER;
    }
    else
        return false;
    headers->length = headers->transport + size;
    return true;
}

static bool
parse(offload_headers *headers, const BYTE *packet, uint32_t length, bool super)
{
    if (length == 0)
        return false;
    switch (packet[0] >> 4)
    {
    case 4:
        return parse_ip4(headers, packet, length, super) && parse_transport(headers, packet, length, super);
    case 6:
        return parse_ip6(headers, packet, length, super) && parse_transport(headers, packet, length, super);
    default:
        return false;
    }
}

bool
offload_headers_parse(offload_headers *headers, const BYTE *packet, uint32_t length)
{
    return parse(headers, packet, length, false);
}

bool
offload_headers_parse_super(offload_headers *headers, const BYTE *packet, uint32_t length, uint32_t segment)
{
    if (!parse(headers, packet, length, true))
        return false;
    if (headers->protocol != PROTOCOL_UDP)
        return true;
    const uint32_t stored = packet_get16(packet + headers->transport + UDP_LENGTH);
    return stored == 0 || stored == UDP_HEADER + segment || stored == length - headers->transport;
}

uint16_t
offload_pseudo_sum(const offload_headers *headers, const BYTE *packet)
{
    const uint64_t protocol = packet_word(headers->protocol);
    return packet_fold(headers->version == 4 ? packet_sum(packet + IP4_ADDRESSES, 8, protocol)
                                             : packet_sum(packet + IP6_ADDRESSES, 32, protocol));
}
