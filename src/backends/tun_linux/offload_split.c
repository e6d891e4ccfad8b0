/* SPDX-License-Identifier: MIT
 *
 * Splits superpackets and completes checksums.
 *
 * The words that all headers of a superpacket share are summed up once. Each segment then costs a copy of the headers,
 * the few words that differ, and one pass over its payload that copies and sums.
 */
#include "backends/tun_linux/offload_split.h"

#include "packet/checksum.h"

/* ---- Beginning ---- */

/* True if the checksum lies behind the IP header, and before the end. */
static bool
checksum_inside(const offload_split *split)
{
    const BYTE *packet = split->packet;
    const unsigned version = packet[0] >> 4;
    const uint32_t header = version == 6 ? IP6_HEADER : (packet[0] & 0xFu) * 4;
    return (version == 4 || version == 6) && header >= IP4_HEADER && split->checksum_start >= header &&
           split->checksum_at + 2 <= split->length;
}

static bool
begin_single(offload_split *split, const virtio_header *virtio)
{
    const bool complete = !(virtio->flags & VIRTIO_NEEDS_CHECKSUM);
    split->checksum_start = complete ? split->length : virtio->checksum_start;
    split->checksum_at = split->checksum_start + virtio->checksum_offset;
    if (split->length > WINTUN_MAX_IP_PACKET_SIZE || !(complete || checksum_inside(split)))
        return false;
    split->left = 1;
    return true;
}

/* True if the type of the superpacket fits its headers. */
static bool
type_matches(uint8_t type, const offload_headers *headers)
{
    switch (type)
    {
    case VIRTIO_GSO_TCP4:
    case VIRTIO_GSO_TCP4 | VIRTIO_GSO_ECN:
        return headers->version == 4 && headers->protocol == PROTOCOL_TCP;
    case VIRTIO_GSO_TCP6:
    case VIRTIO_GSO_TCP6 | VIRTIO_GSO_ECN:
        return headers->version == 6 && headers->protocol == PROTOCOL_TCP;
    case VIRTIO_GSO_UDP:
        return headers->protocol == PROTOCOL_UDP;
    default:
        return false;
    }
}

/* The pseudo-header's sum without the length. The kernel has stored it with that of the superpacket, or with what the
 * UDP header calls its length; to take it from there keeps a wrong one wrong, and is right with a source route too. */
static bool
pseudo_sum(const offload_split *split, const virtio_header *virtio, uint16_t *sum)
{
    const offload_headers *headers = &split->headers;
    const uint32_t offset = offload_checksum_offset(headers);
    if (!(virtio->flags & VIRTIO_NEEDS_CHECKSUM))
    {
        *sum = headers->extended ? 0 : offload_pseudo_sum(headers, split->packet);
        return !headers->extended;
    }
    const uint16_t stored = packet_load_word(split->packet + headers->transport + offset);
    const uint16_t length = headers->protocol == PROTOCOL_UDP
                                ? packet_load_word(split->packet + headers->transport + UDP_LENGTH)
                                : packet_word(split->length - headers->transport);
    *sum = packet_fold((uint64_t)stored + (uint16_t)~length);
    return virtio->checksum_start == headers->transport && virtio->checksum_offset == offset;
}

static void
begin_network(offload_split *split)
{
    const BYTE *packet = split->packet;
    if (split->headers.version == 6)
        return;
    /* All but length, identification and checksum. */
    uint64_t sum = packet_sum(packet, 2, 0);
    sum = packet_sum(packet + IP4_FRAGMENT, 4, sum);
    sum = packet_sum(packet + IP4_ADDRESSES, split->headers.transport - IP4_ADDRESSES, sum);
    split->network_sum = packet_fold(sum);
    split->identification = packet_get16(packet + IP4_IDENTIFICATION);
}

static void
begin_transport(offload_split *split, uint16_t pseudo)
{
    const BYTE *transport = split->packet + split->headers.transport;
    if (split->headers.protocol == PROTOCOL_UDP)
    {
        split->transport_sum = packet_fold(packet_sum(transport, UDP_LENGTH, pseudo));
        return;
    }
    /* All but sequence number, flags and checksum. */
    const uint32_t length = split->headers.length - split->headers.transport;
    uint64_t sum = packet_sum(transport, TCP_SEQUENCE, pseudo);
    sum = packet_sum(transport + 8, 4, sum);
    sum = packet_sum(transport + 14, 2, sum);
    sum = packet_sum(transport + 18, length - 18, sum);
    split->transport_sum = packet_fold(sum);
    split->sequence = packet_get32(transport + TCP_SEQUENCE);
    split->flags = (uint8_t)(transport[TCP_FLAGS] & ~(TCP_FIN | TCP_PSH));
}

static bool
begin_superpacket(offload_split *split, const virtio_header *virtio)
{
    offload_headers *headers = &split->headers;
    uint16_t pseudo;
    if (virtio->gso_size == 0 ||
        !offload_headers_parse_super(headers, split->packet, split->length, virtio->gso_size) ||
        !type_matches(virtio->gso_type, headers) || !pseudo_sum(split, virtio, &pseudo))
        return false;
    const uint32_t payload = split->length - headers->length;
    split->segment = virtio->gso_size;
    split->at = headers->length;
    if (headers->length + (payload < split->segment ? payload : split->segment) > WINTUN_MAX_IP_PACKET_SIZE)
        return false;
    split->left = payload ? (payload + split->segment - 1) / split->segment : 1;
    begin_network(split);
    begin_transport(split, pseudo);
    return true;
}

bool
offload_split_begin(offload_split *split, const virtio_header *virtio, const BYTE *packet, uint32_t length)
{
    *split = (offload_split){.packet = packet, .length = length};
    if (length == 0)
        return false;
    return virtio->gso_type == VIRTIO_GSO_NONE ? begin_single(split, virtio) : begin_superpacket(split, virtio);
}

/* ---- Writing ---- */

uint32_t
offload_split_next(const offload_split *split)
{
    if (split->left == 0)
        return 0;
    return split->headers.length + (split->left > 1 ? split->segment : split->length - split->at);
}

/* UDP calls 0 "no checksum"; 0xFFFF is the same number. */
static uint16_t
complete(uint64_t sum, bool udp)
{
    const uint16_t checksum = (uint16_t)~packet_fold(sum);
    return udp && checksum == 0 ? 0xFFFFu : checksum;
}

static void
write_single(const offload_split *split, BYTE *place)
{
    const uint32_t start = split->checksum_start;
    memcpy(place, split->packet, start);
    if (start == split->length)
        return;
    const uint64_t sum = packet_sum_copy(place + start, split->packet + start, split->length - start, 0);
    packet_store_word(place + split->checksum_at, complete(sum, split->checksum_at - start == UDP_CHECKSUM));
}

static void
write_network(offload_split *split, BYTE *place, uint32_t size)
{
    if (split->headers.version == 6)
    {
        packet_put16(place + IP6_LENGTH, size - IP6_HEADER);
        return;
    }
    const uint16_t identification = split->identification++;
    const uint64_t sum = (uint64_t)split->network_sum + packet_word(size) + packet_word(identification);
    packet_put16(place + IP4_LENGTH, size);
    packet_put16(place + IP4_IDENTIFICATION, identification);
    packet_store_word(place + IP4_CHECKSUM, (uint16_t)~packet_fold(sum));
}

/* Returns the sum of what it wrote. */
static uint64_t
write_tcp(offload_split *split, BYTE *transport, uint32_t payload)
{
    /* FIN and PSH belong to the last segment, CWR to the first. */
    const uint8_t last = split->packet[split->headers.transport + TCP_FLAGS] & (TCP_FIN | TCP_PSH);
    packet_put32(transport + TCP_SEQUENCE, split->sequence);
    transport[TCP_FLAGS] = split->left > 1 ? split->flags : split->flags | last;
    split->sequence += payload;
    split->flags &= (uint8_t)~TCP_CWR;
    return (uint64_t)packet_load_word(transport + TCP_SEQUENCE) + packet_load_word(transport + TCP_SEQUENCE + 2) +
           packet_load_word(transport + TCP_FLAGS - 1);
}

static void
write_segment(offload_split *split, BYTE *place, uint32_t size)
{
    const offload_headers *headers = &split->headers;
    const bool udp = headers->protocol == PROTOCOL_UDP;
    const uint32_t payload = size - headers->length;
    BYTE *transport = place + headers->transport;
    uint64_t sum = (uint64_t)split->transport_sum + packet_word(size - headers->transport); /* the pseudo-header's */

    memcpy(place, split->packet, headers->length);
    write_network(split, place, size);
    if (udp)
    {
        packet_put16(transport + UDP_LENGTH, size - headers->transport);
        sum += packet_load_word(transport + UDP_LENGTH);
    }
    else
        sum += write_tcp(split, transport, payload);
    sum = packet_sum_copy(place + headers->length, split->packet + split->at, payload, sum);
    packet_store_word(transport + offload_checksum_offset(headers), complete(sum, udp));
    split->at += payload;
}

void
offload_split_write(offload_split *split, BYTE *place)
{
    if (split->headers.length)
        write_segment(split, place, offload_split_next(split));
    else
        write_single(split, place);
    split->left--;
}
