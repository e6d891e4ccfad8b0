/* SPDX-License-Identifier: MIT
 *
 * Packets for the tests of the offloads, made and judged byte by byte without any of the code under test, but for what
 * writes one number.
 */
#ifndef TUNRING_OFFLOAD_PACKETS_H
#define TUNRING_OFFLOAD_PACKETS_H

#include "check.h"
#include "backends/tun_linux/offload_virtio.h"
#include "packet/checksum.h"

#include <stdbool.h>
#include <string.h>

#define TCP 6u
#define UDP 17u
#define FIN 0x01u
#define SYN 0x02u
#define RST 0x04u
#define PSH 0x08u
#define ACK 0x10u
#define URG 0x20u
#define ECE 0x40u
#define CWR 0x80u

/* The parts of a packet. All sizes in bytes. */
typedef struct shape
{
    uint8_t version;
    uint8_t protocol;
    uint8_t class; /* TOS or traffic class */
    uint8_t hops;
    uint8_t flags;
    uint8_t seed;         /* of the addresses */
    uint8_t extension[3]; /* IPv6: 1 + the type of each extension header, 8 bytes each */
    uint16_t fragment;    /* IPv4's flags and offset */
    uint16_t identification;
    uint16_t ports[2];
    uint16_t window;
    uint32_t ip_options;
    uint32_t tcp_options;
    uint32_t sequence;
    uint32_t acknowledgment;
    uint32_t payload;
    uint32_t payload_at; /* which bytes: those of a longer payload from here on */
} shape;

static inline uint32_t
add_up(const BYTE *bytes, uint32_t length, uint32_t sum)
{
    for (uint32_t i = 0; i < length; i++)
    {
        sum += i % 2 ? bytes[i] : (uint32_t)bytes[i] << 8;
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    return sum;
}

static inline uint32_t
transport_of(const shape *shape)
{
    uint32_t transport = shape->version == 4 ? 20 + shape->ip_options : 40;
    for (int i = 0; i < 3; i++)
        transport += shape->extension[i] ? 8 : 0;
    return transport;
}

static inline uint32_t
headers_of(const shape *shape)
{
    return transport_of(shape) + (shape->protocol == TCP ? 20 + shape->tcp_options : 8);
}

/* The sum of the pseudo-header. */
static inline uint32_t
pseudo_of(const shape *shape, const BYTE *packet, uint32_t length)
{
    const uint32_t sum = shape->protocol + (length - transport_of(shape));
    return add_up(packet + (shape->version == 4 ? 12 : 8), shape->version == 4 ? 8 : 32, (sum & 0xFFFF) + (sum >> 16));
}

static inline BYTE *
checksum_of(const shape *shape, BYTE *packet)
{
    return packet + transport_of(shape) + (shape->protocol == TCP ? 16 : 6);
}

/* All checksums as they have to be, TCP's never as 0xFFFF and UDP's never as 0. */
static inline void
seal(const shape *shape, BYTE *packet, uint32_t length)
{
    const uint32_t transport = transport_of(shape);
    BYTE *checksum = checksum_of(shape, packet);
    if (shape->version == 4)
    {
        packet_put16(packet + 10, 0);
        packet_put16(packet + 10, ~add_up(packet, transport, 0));
    }
    packet_put16(checksum, 0);
    const uint32_t sum = add_up(packet + transport, length - transport, pseudo_of(shape, packet, length));
    packet_put16(checksum, shape->protocol == UDP && sum == 0xFFFF ? 0xFFFF : ~sum);
}

/* Writes the packet and returns its length. */
static inline uint32_t
build(const shape *shape, BYTE *packet)
{
    const uint32_t transport = transport_of(shape), headers = headers_of(shape);
    const uint32_t length = headers + shape->payload;
    memset(packet, 0, headers);
    if (shape->version == 4)
    {
        packet[0] = (BYTE)(0x40 | (20 + shape->ip_options) / 4);
        packet[1] = shape->class;
        packet_put16(packet + 2, length);
        packet_put16(packet + 4, shape->identification);
        packet_put16(packet + 6, shape->fragment);
        packet[8] = shape->hops;
        packet[9] = shape->protocol;
        for (uint32_t i = 0; i < 8; i++)
            packet[12 + i] = (BYTE)(shape->seed + i);
        memset(packet + 20, 1, shape->ip_options); /* "no operation" */
    }
    else
    {
        packet[0] = (BYTE)(0x60 | shape->class >> 4);
        packet[1] = (BYTE)(shape->class << 4);
        packet_put16(packet + 4, length - 40);
        packet[7] = shape->hops;
        for (uint32_t i = 0; i < 32; i++)
            packet[8 + i] = (BYTE)(shape->seed + i);
        BYTE *next = packet + 6, *extension = packet + 40;
        for (int i = 0; i < 3; i++)
        {
            if (!shape->extension[i])
                continue;
            *next = shape->extension[i] - 1;
            next = extension;
            extension[2] = 1; /* an option that pads */
            extension[3] = 4;
            extension += 8;
        }
        *next = shape->protocol;
    }
    BYTE *at = packet + transport;
    packet_put16(at, shape->ports[0]);
    packet_put16(at + 2, shape->ports[1]);
    if (shape->protocol == TCP)
    {
        packet_put32(at + 4, shape->sequence);
        packet_put32(at + 8, shape->acknowledgment);
        at[12] = (BYTE)((20 + shape->tcp_options) / 4 << 4);
        at[13] = shape->flags;
        packet_put16(at + 14, shape->window);
        for (uint32_t i = 0; i < shape->tcp_options; i++)
            at[20 + i] = (BYTE)(i + 3);
    }
    else
        packet_put16(at + 4, 8 + shape->payload);
    for (uint32_t i = 0; i < shape->payload; i++)
        packet[headers + i] = (BYTE)((shape->payload_at + i) * 167u >> 3);
    seal(shape, packet, length);
    return length;
}

/* The same as the kernel hands it over: with the sum of the pseudo-header for a checksum. */
static inline uint32_t
build_partial(const shape *shape, BYTE *packet)
{
    const uint32_t length = build(shape, packet);
    packet_put16(checksum_of(shape, packet), pseudo_of(shape, packet, length));
    return length;
}

static inline virtio_header
virtio_of(const shape *shape, uint32_t segment)
{
    const uint8_t tcp = shape->version == 4 ? 1 : 4;
    return (virtio_header){
        .flags = 1,
        .gso_type = shape->protocol == UDP ? 5 : (uint8_t)(tcp | (shape->flags & CWR ? 0x80 : 0)),
        .header_length = (uint16_t)headers_of(shape),
        .gso_size = (uint16_t)segment,
        .checksum_start = (uint16_t)transport_of(shape),
        .checksum_offset = shape->protocol == TCP ? 16 : 6,
    };
}

/* The `index`-th packet of a superpacket with this payload in each. */
static inline shape
segment_of(const shape *whole, uint32_t segment, uint32_t index)
{
    shape part = *whole;
    const uint32_t at = segment * index;
    const bool last = at + segment >= whole->payload;
    part.payload_at += at;
    part.payload = last ? whole->payload - at : segment;
    part.sequence += at;
    part.identification = (uint16_t)(part.identification + index);
    if (!last)
        part.flags &= (uint8_t)~(FIN | PSH);
    if (index)
        part.flags &= (uint8_t)~CWR;
    return part;
}

static inline uint32_t
segments_of(const shape *whole, uint32_t segment)
{
    return whole->payload ? (whole->payload + segment - 1) / segment : 1;
}

/* An ordinary one. */
static inline shape
plain(uint8_t version, uint8_t protocol, uint32_t payload)
{
    return (shape){
        .version = version,
        .protocol = protocol,
        .hops = 64,
        .flags = ACK,
        .seed = 10,
        .fragment = 0x4000,
        .identification = 0xFFFE,
        .ports = {40000, 5201},
        .window = 501,
        .sequence = 0xFFFFFF00u,
        .acknowledgment = 77,
        .payload = payload,
    };
}

#endif
