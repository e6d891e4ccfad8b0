/* SPDX-License-Identifier: MIT
 *
 * Where the headers of an IP packet are: found and checked once, so that nothing later has to ask how long the packet
 * is.
 */
#ifndef TUNRING_OFFLOAD_HEADERS_H
#define TUNRING_OFFLOAD_HEADERS_H

#include "wintun.h"

#include <stdbool.h>
#include <stdint.h>

#define IP4_HEADER 20u
#define IP4_LENGTH 2u
#define IP4_IDENTIFICATION 4u
#define IP4_FRAGMENT 6u /* flags and offset */
#define IP4_DONT_FRAGMENT 0x4000u
#define IP4_TTL 8u
#define IP4_CHECKSUM 10u
#define IP4_ADDRESSES 12u

#define IP6_HEADER 40u
#define IP6_LENGTH 4u /* of what follows the header */
#define IP6_HOP_LIMIT 7u
#define IP6_ADDRESSES 8u

#define PROTOCOL_TCP 6u
#define PROTOCOL_UDP 17u

#define TCP_HEADER 20u
#define TCP_SEQUENCE 4u
#define TCP_FLAGS 13u
#define TCP_CHECKSUM 16u
#define TCP_FIN 0x01u
#define TCP_PSH 0x08u
#define TCP_ACK 0x10u
#define TCP_ECE 0x40u
#define TCP_CWR 0x80u

#define UDP_HEADER 8u
#define UDP_LENGTH 4u
#define UDP_CHECKSUM 6u

typedef struct offload_headers
{
    uint8_t version;    /* 4 or 6 */
    uint8_t protocol;   /* PROTOCOL_TCP or PROTOCOL_UDP */
    bool extended;      /* there are IPv4 options or IPv6 extension headers */
    uint32_t transport; /* offset of the TCP or UDP header */
    uint32_t length;    /* of all headers: where the payload begins */
} offload_headers;

/* True for TCP or UDP in an IP packet of exactly this length that is not a fragment and has all headers whole. */
bool offload_headers_parse(offload_headers *headers, const BYTE *packet, uint32_t length);

/* The same for a superpacket with `segment` payload bytes per packet. Its length fields may be unset, as the kernel and
 * the guests of a virtual machine leave them: 0 in the IP header, 0 or the length of one segment in the UDP header. */
bool offload_headers_parse_super(offload_headers *headers, const BYTE *packet, uint32_t length, uint32_t segment);

/* The sum of addresses and protocol: the pseudo-header but for the length. For packets that aren't `extended`: a source
 * route among the extensions would put another address into it. */
uint16_t offload_pseudo_sum(const offload_headers *headers, const BYTE *packet);

/* Where the checksum of the transport header is, from that header on. */
static inline uint32_t
offload_checksum_offset(const offload_headers *headers)
{
    return headers->protocol == PROTOCOL_TCP ? TCP_CHECKSUM : UDP_CHECKSUM;
}

#endif
